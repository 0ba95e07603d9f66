"""Any number of photos, labelled by a registered model, a shard at a time."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from regraft.core.config import Config
from regraft.operations.batch import BatchRequest
from steps.predict_plan import predict_plan
from steps.predict_shard import predict_shard
from steps.predict_summary import predict_summary


@pipeline(dynamic=True, execution_mode=ExecutionMode.FAIL_FAST)
def predict(request: BatchRequest, config: Config) -> None:
    """From the photos to their predictions, a step for each shard that has none yet."""
    plan = predict_plan.submit(request, config.batch, config.tracking)
    planned = plan.load()
    lanes = [plan] * config.batch.n_parallel  # the last step of each; the next waits for it
    for number, shard in enumerate(planned.todo):
        lane = number % len(lanes)
        lanes[lane] = predict_shard.submit(
            shard, planned.predictor, config.embed, config.tracking, after=lanes[lane]
        )
    predict_summary(plan, after=lanes)
