"""The champion under other class names or another threshold, judged like any challenger."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from regraft.core.config import Config
from steps.evaluate import evaluate
from steps.ingest import ingest
from steps.measure_transfer import measure_transfer
from steps.mirror import mirror
from steps.promote import promote
from steps.register import register
from steps.revise import revise as revise_champion
from steps.split import split


@pipeline(execution_mode=ExecutionMode.FAIL_FAST)
def revise(config: Config, fingerprint: str) -> None:
    """From the photos to the verdict about the revision, a stage a line."""
    table = ingest(config.ingest, fingerprint)
    splits = split(table, config.split)
    pretrained, challenger, _, _ = revise_champion(splits, config)
    transfer = measure_transfer(pretrained, splits, config.tune, config.embed)
    report = evaluate(challenger, transfer, splits, config.evaluate, config.embed)
    version = register(challenger, report, splits, config)
    verdict = promote(version, splits, config, report)
    mirror(config.tracking, after=verdict)
