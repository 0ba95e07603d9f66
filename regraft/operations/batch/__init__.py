"""Any number of photos labelled, a shard at a time, into a folder of Parquet files."""

from regraft.operations.batch.answer import ShardAnswers, answer_shard, schema_of
from regraft.operations.batch.folder import Answerer, Shard, clear_unfinished
from regraft.operations.batch.plan import BatchPlan, plan
from regraft.operations.batch.request import (
    BatchRequest,
    answer,
    answerer_of,
    classifier_of,
    plan_batch,
)
from regraft.operations.batch.summary import BatchSummary, answers, current, summarise
from regraft.operations.batch.walk import walk

__all__ = [
    "Answerer",
    "BatchPlan",
    "BatchRequest",
    "BatchSummary",
    "Shard",
    "ShardAnswers",
    "answer",
    "answer_shard",
    "answerer_of",
    "answers",
    "classifier_of",
    "clear_unfinished",
    "current",
    "plan",
    "plan_batch",
    "schema_of",
    "summarise",
    "walk",
]
