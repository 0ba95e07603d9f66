"""A registered version, judged again on the current photos."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from regraft.core.config import Config
from steps.find_version import find_version
from steps.ingest import ingest
from steps.mirror import mirror
from steps.promote import promote as judge
from steps.split import split


@pipeline(execution_mode=ExecutionMode.FAIL_FAST)
def promote(config: Config, fingerprint: str, reference: str) -> None:
    """From the photos to the verdict about a version, a stage a line."""
    table = ingest(config.ingest, fingerprint)
    splits = split(table, config.split)
    version = find_version(reference, config.tracking, after=splits)
    verdict = judge(version, splits, config)
    mirror(config.tracking, after=verdict)
