"""From a folder of labelled photos to a judged champion."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from regraft.config import Config
from steps.evaluate import evaluate
from steps.fine_tune import fine_tune
from steps.freeze import freeze
from steps.ingest import ingest
from steps.load_pretrained import load_pretrained
from steps.promote import promote
from steps.register import register
from steps.split import split


@pipeline(execution_mode=ExecutionMode.FAIL_FAST)
def train(config: Config, fingerprint: str) -> None:
    """Ingest, split, load pretrained, freeze, fine-tune, evaluate, register, promote."""
    table = ingest(config.ingest, fingerprint)
    splits = split(table, config.split)
    pretrained = load_pretrained(config.backbone, splits)
    plan = freeze(pretrained, config.freeze)
    challenger = fine_tune(pretrained, plan, splits, config.tune, config.tracking)
    report = evaluate(challenger, splits, config.evaluate, config.tracking)
    version = register(challenger, report, splits, config)
    promote(version, report, splits, config.promote, config.tracking)
