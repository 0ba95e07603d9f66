"""Any number of photos, labelled by the champion a shard at a time."""

from zenml import pipeline
from zenml.client import Client
from zenml.enums import ExecutionMode

from regraft.core import errors
from regraft.core.config import Config
from regraft.core.errors import RegraftError, UnusablePhoto
from regraft.operations.batch import BatchRequest
from steps.predict_plan import predict_plan
from steps.predict_shard import predict_shard
from steps.predict_summary import predict_summary


@pipeline(dynamic=True, execution_mode=ExecutionMode.FAIL_FAST)
def predict(request: BatchRequest, config: Config) -> None:
    """From the photos to their answers, a step for each shard that has none yet."""
    plan = predict_plan.submit(request, config.batch, config.tracking)
    planned = plan.load()
    lanes = [plan] * config.batch.n_parallel  # the last step of each; the next waits for it
    for number, shard in enumerate(planned.todo):
        lane = number % len(lanes)
        lanes[lane] = predict_shard.submit(
            shard, planned.answerer, config.embed, config.tracking, after=lanes[lane]
        )
    predict_summary(plan, after=lanes)


def failure(run_name: str) -> RegraftError | None:
    """What a step of the run has failed of, if it was something that Regraft raises on purpose.

    A step of another thread or machine raises nothing here, but ZenML keeps what it said.
    """
    kinds = {
        f"{kind.__module__}.{kind.__name__}": kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, RegraftError) and kind is not UnusablePhoto
    }
    for step in Client().get_pipeline_run(run_name).steps.values():
        said = step.exception_info
        if said and said.source in kinds:
            return kinds[said.source](said.message)
    return None
