"""Effects of new labels, of a better model and of a warm start on the champion."""

import shutil
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from tiny_challenger import draw_photos
from tiny_train import NAME, last_run, output

from regraft import registry
from regraft.evaluation.evaluate import EvaluationReport
from regraft.model.classifier import ImageClassifier
from regraft.promotion import Verdict

pytestmark = pytest.mark.pipeline

PROBE = "freeze.policy=probe"
CHAMPION = ("backbone.source=champion", 'backbone.architecture=""')
BOLD = "promote.level=0.2"  # nine photos show little


def write(world, frame: pd.DataFrame):
    path = world.folder / "manifest.csv"
    frame.to_csv(path, index=False)
    return path


def add_photos(world, n_per_class: int):
    draw_photos(world.folder / f"{n_per_class} more", n_per_class, seed=11)
    for path in (world.folder / f"{n_per_class} more").rglob("*.png"):
        path.rename(world.photos / path.parent.name / f"new {path.name}")
    shutil.rmtree(world.folder / f"{n_per_class} more")


@dataclass(frozen=True)
class Retrained:
    """The results of a run on a manifest, and the aliases after it.

    started_from: the network before its training.
    """

    manifest: pd.DataFrame
    verdict: Verdict
    report: EvaluationReport
    started_from: ImageClassifier
    aliases: dict[str, int]


def retrain(world, manifest: pd.DataFrame, *settings: str) -> Retrained:
    run = world.train(*settings, photos=write(world, manifest))
    parts = (output(run, stage) for stage in ("promote", "evaluate", "load_pretrained"))
    return Retrained(manifest, *parts, registry.get_aliases(world.tracking, NAME))


@pytest.fixture(scope="module")
def split_of_first(shared_world) -> pd.DataFrame:
    """A manifest of the split that version 1 was trained on."""
    frame = output(last_run(), "split").frame
    return frame[["path", "label", "split"]].rename(columns={"path": "image"})


@pytest.fixture(scope="module")
def shuffled(shared_world, split_of_first) -> Retrained:
    """Version 2, trained on shuffled labels; version 1 serves."""
    frame = split_of_first.copy()
    trained_on = frame.split != "test"
    frame.loc[trained_on, "label"] = np.random.default_rng(5).permutation(frame.label[trained_on])
    return retrain(shared_world, frame)


@pytest.fixture(scope="module")
def better(shared_world, split_of_first, shuffled) -> Retrained:
    """Version 3, trained from version 2, which serves meanwhile, on the right labels.

    Of each class, the test photos are one more, which version 2 has seen in its training. One class
    has no validation photos, and the photos come from two cameras.
    """
    frame = split_of_first.assign(camera=lambda rows: np.arange(len(rows)) % 2)
    seen = frame[frame.split == "train"].groupby("label").head(1)
    frame.loc[seen.index, "split"] = "test"
    frame = frame[~((frame.label == "amber") & (frame.split == "validation"))]
    second = registry.find(shared_world.tracking, NAME, "2")
    registry.set_alias(shared_world.tracking, second, registry.CHAMPION)
    return retrain(shared_world, frame, PROBE, BOLD, *CHAMPION)


def test_shuffled_labels_lose_and_no_alias_of_the_champion_moves(shared_world, shuffled):
    assert shuffled.verdict.decision == "keep"
    assert shuffled.aliases == {"champion": 1, "challenger": 2}
    row = registry.list_versions(shared_world.tracking).set_index("version").loc[2]
    assert row.why == shuffled.verdict.reason


def test_better_challenger_is_promoted_on_photos_that_the_champion_has_not_seen(better):
    verdict, n_test = better.verdict, better.report.n
    assert verdict.moves_champion, verdict.reason
    assert better.aliases == {"challenger": 3, "champion": 3, "previous": 2}
    n_seen = better.manifest.label.nunique()
    assert n_test == (better.manifest.split == "test").sum()
    assert (verdict.evidence["n_seen"], verdict.evidence["n"]) == (n_seen, n_test - n_seen)


def test_column_of_the_manifest_is_a_slice_of_the_report(better):
    test = better.manifest[better.manifest.split == "test"]
    counts = better.report.slices.set_index(["column", "value"]).n
    assert counts["camera"].to_dict() == test.camera.astype(str).value_counts().to_dict()


def test_training_may_go_on_from_the_champion(shared_world, better):
    start, champion = better.started_from, registry.find(shared_world.tracking, NAME, "2")
    weights = registry.load(shared_world.tracking, champion).weights
    shared = {name for name in weights.keys() & start.weights.keys() if not name.startswith("head")}
    assert start.card.parent == champion.content_hash
    assert len(shared) > 10
    for name in shared:
        assert start.weights[name].equal(weights[name]), name
    assert better.verdict.champion == 2


def test_class_without_validation_photos_keeps_every_number_in_its_row(better):
    report, test = better.report, better.manifest[better.manifest.split == "test"]
    assert "amber" not in set(better.manifest.label[better.manifest.split == "validation"])
    assert report.classes == ("amber", "blue", "green")
    assert report.per_class.set_index("label").n.to_dict() == test.label.value_counts().to_dict()
    assert set(report.predictions.label) == set(report.classes)
    judged = report.predictions[report.predictions.split == "test"]
    right = judged.label == judged.predicted
    assert report.accuracy.value == right.mean() == 1.0
