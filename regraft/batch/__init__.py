"""Any number of photos labelled, a shard at a time, into a folder of Parquet files."""

from regraft.batch.answer import ShardAnswers, answer_shard, schema_of
from regraft.batch.folder import Answerer, Shard, clear_unfinished
from regraft.batch.plan import BatchPlan, plan
from regraft.batch.request import BatchRequest, answer, answerer_of, classifier_of, plan_batch
from regraft.batch.summary import BatchSummary, answers, current, summarise
from regraft.batch.walk import walk

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
