"""Batch prediction: labels any number of photos, shard by shard, into a folder of Parquet files."""

from regraft.operations.batch.folder import Predictor, Shard, clear_unfinished
from regraft.operations.batch.plan import BatchPlan, plan
from regraft.operations.batch.predict import ShardResult, partition_schema, predict_shard
from regraft.operations.batch.request import (
    BatchRequest,
    load_classifier,
    plan_batch,
    resolve_predictor,
    run_shard,
)
from regraft.operations.batch.summary import (
    BatchSummary,
    read_current,
    read_predictions,
    summarise,
)
from regraft.operations.batch.walk import walk

__all__ = [
    "BatchPlan",
    "BatchRequest",
    "BatchSummary",
    "Predictor",
    "Shard",
    "ShardResult",
    "clear_unfinished",
    "load_classifier",
    "partition_schema",
    "plan",
    "plan_batch",
    "predict_shard",
    "read_current",
    "read_predictions",
    "resolve_predictor",
    "run_shard",
    "summarise",
    "walk",
]
