"""The same work as `regraft train` as a plain script: the core alone, no ZenML and no MLflow."""

import argparse
from pathlib import Path

from regraft.core.config import load_config
from regraft.data.ingest import ingest
from regraft.data.split import split
from regraft.evaluation.evaluate import evaluate
from regraft.evaluation.report import render
from regraft.model.classifier import load_pretrained
from regraft.model.freeze import freeze
from regraft.training.transfer import measure_transfer
from regraft.training.tune import fine_tune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos")
    parser.add_argument("state", type=Path)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    places = (f"ingest.photos={arguments.photos}", f"embed.store_url={arguments.state}/embeddings")
    config = load_config(None, (*places, *arguments.set))
    splits = split(ingest(config.ingest), config.split)
    pretrained = load_pretrained(config.backbone, splits.classes)
    transfer = measure_transfer(pretrained, splits, config.tune, config.embed)
    plan = freeze(pretrained, config.freeze)
    challenger = fine_tune(pretrained, plan, splits, config.tune, print, config.embed)
    report = evaluate(challenger, transfer, splits, config.evaluate, config.embed)
    (arguments.state / "report.html").write_text(render(report, "plain"))
    print(report)


if __name__ == "__main__":
    main()
