"""From a folder of labelled photos to a judged model."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from regraft.core.config import Config
from steps.choose_backbone import choose_backbone
from steps.evaluate import evaluate
from steps.fine_tune import fine_tune
from steps.freeze import freeze
from steps.ingest import ingest
from steps.load_pretrained import load_pretrained
from steps.measure_transfer import measure_transfer
from steps.mirror import mirror
from steps.promote import promote
from steps.register import register
from steps.split import split


@pipeline(execution_mode=ExecutionMode.FAIL_FAST)
def train(config: Config, fingerprint: str) -> None:
    """From the photos to the verdict, a stage a line."""
    table = ingest(config.ingest, fingerprint)
    splits = split(table, config.split)
    backbone = choose_backbone(config.backbone, splits, config.split, config.tune, config.embed)
    pretrained = load_pretrained(backbone, splits, config.classes)
    plan = freeze(pretrained, config.freeze)
    challenger = fine_tune(pretrained, plan, splits, config.tune, config.embed, config.tracking)
    transfer = measure_transfer(pretrained, splits, config.tune, config.embed, after=challenger)
    report = evaluate(challenger, transfer, splits, config.evaluate, config.embed)
    version = register(challenger, report, splits, config)
    verdict = promote(version, splits, config, report)
    mirror(config.tracking, after=verdict)
