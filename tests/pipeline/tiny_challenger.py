"""A real challenger, small enough to be made in a second: coloured noise, a 99 000-weight network.

The photos of a class share their mean colour, so even random weights tell the classes apart.
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from mlflow import MlflowClient
from PIL import Image
from safetensors.torch import save_file

from regraft.core.config import (
    BackboneConfig,
    Config,
    EmbedConfig,
    EvaluateConfig,
    FreezeConfig,
    IngestConfig,
    RegistryConfig,
    SplitConfig,
    TrackingConfig,
    TuneConfig,
)
from regraft.data.ingest import ingest
from regraft.data.split import Splits, split
from regraft.evaluation.evaluate import EvaluationReport, evaluate
from regraft.model.backbone import build_body
from regraft.model.classifier import load_pretrained
from regraft.model.freeze import freeze
from regraft.registry import RegisteredVersion, register
from regraft.training.transfer import measure_transfer
from regraft.training.tune import Challenger, fine_tune

ARCHITECTURE = "timm:test_efficientnet"
# Training and registration get the same one, as in a pipeline; the same on every processor.
TUNE = TuneConfig(epochs=0, precision="fp32", head_l2=(0.1,))
_shared = tempfile.TemporaryDirectory()
COLOURS = {"amber": (220, 160, 30), "blue": (30, 60, 220), "green": (40, 200, 60)}


@dataclass(frozen=True)
class Trained:
    """What the registry is handed."""

    challenger: Challenger
    report: EvaluationReport
    splits: Splits


def draw_photos(folder: Path, n_per_class: int = 12, seed: int = 0):
    generator = np.random.default_rng(seed)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for number in range(n_per_class):
            noise = generator.integers(0, 256, (24, 24, 3))
            pixels = (0.5 * noise + 0.5 * np.array(colour)).astype(np.uint8)
            Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save(
                folder / label / f"{number}.png"
            )


def weights_file(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_file(build_body(ARCHITECTURE).module.state_dict(), path)
    return path


def train_tiny(folder: Path, seed: int = 0) -> Trained:
    """The road up to the registry, on photos in folder/photos (drawn if they are not there)."""
    if not (folder / "photos").exists():
        draw_photos(folder / "photos")
    weights = weights_file(folder / f"{seed}.safetensors", seed)
    splits = split(
        ingest(IngestConfig(photos=str(folder / "photos"))),
        SplitConfig(test_fraction=0.3, validation_fraction=0.2, near_duplicate_bits=0),
    )
    backbone = BackboneConfig(source=f"file:{weights}", architecture=ARCHITECTURE)
    pretrained = load_pretrained(backbone, splits.classes)
    plan = freeze(pretrained, FreezeConfig())
    transfer = measure_transfer(pretrained, splits, TUNE, EmbedConfig())
    challenger = fine_tune(pretrained, plan, splits, TUNE, lambda record: None)
    return Trained(challenger, evaluate(challenger, transfer, splits, EvaluateConfig()), splits)


def answering(trained: Trained, label: str) -> Trained:
    """The same, but its model always says this class: a challenger that has to lose."""
    classifier = trained.challenger.classifier
    bias = torch.zeros(len(classifier.card.classes))
    bias[classifier.card.classes.index(label)] = 50.0
    weights = classifier.weights | {
        "head.weight": torch.zeros_like(classifier.weights["head.weight"]),
        "head.bias": bias,
    }
    challenger = replace(trained.challenger, classifier=replace(classifier, weights=weights))
    report = evaluate(challenger, trained.report.transfer, trained.splits, EvaluateConfig())
    return Trained(challenger, report, trained.splits)


@cache
def trained() -> Trained:
    """One training for all tests that only read it."""
    return train_tiny(Path(_shared.name))


@cache
def _empty_store() -> Path:
    """An MLflow store with its tables, which take seconds to make: to be copied."""
    path = Path(_shared.name) / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


def tracking_in(folder: Path, name: str = "tiny") -> TrackingConfig:
    """An MLflow store of its own, with a space in its path."""
    root = folder / "state folder"
    root.mkdir(exist_ok=True)
    shutil.copyfile(_empty_store(), root / "mlflow.db")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    return TrackingConfig(uri=uri, artifacts_url=str(root / "mlflow"), name=name)


def put(trained: Trained, tracking: TrackingConfig) -> RegisteredVersion:
    """Registers it, with the fewest photos looked at."""
    config = Config(registry=RegistryConfig(n_parity=3), tracking=tracking, tune=TUNE)
    return register(
        trained.challenger, trained.report, trained.splits, config, {"zenml_run": "tiny"}
    )
