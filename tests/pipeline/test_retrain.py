"""What new photos, new labels and a better model do to the champion."""

import shutil

import numpy as np
import pandas as pd
import pytest
from tiny_challenger import draw_photos
from tiny_train import NAME, last_run, output

from regraft import registry

pytestmark = pytest.mark.pipeline

PROBE = "freeze.policy=probe"


def sides(run) -> dict[str, str]:
    return output(run, "split").frame.set_index("sha256").side.to_dict()


def frame_of(run) -> pd.DataFrame:
    """A manifest that says what the run's split was."""
    frame = output(run, "split").frame
    return frame[["path", "label", "side"]].rename(columns={"path": "image", "side": "split"})


def write(world, frame: pd.DataFrame):
    path = world.folder / "manifest.csv"
    frame.to_csv(path, index=False)
    return path


def add_photos(world, n_per_class: int):
    draw_photos(world.folder / f"{n_per_class} more", n_per_class, seed=11)
    for path in (world.folder / f"{n_per_class} more").rglob("*.png"):
        path.rename(world.photos / path.parent.name / f"new {path.name}")
    shutil.rmtree(world.folder / f"{n_per_class} more")


def test_new_photos_move_no_old_one_and_a_tie_keeps_the_champion(world):
    before = sides(last_run())
    add_photos(world, 2)
    run = world.train(PROBE)
    after, verdict = sides(run), output(run, "promote")
    assert len(after) == 66
    assert {photo: after[photo] for photo in before} == before
    judged = {photo for photo, side in after.items() if side == "test"}
    for version in ("1", "2"):
        contender = registry.find(world.tracking, NAME, version)
        assert not judged & set(registry.load_manifest(world.tracking, contender).sha256)
    assert verdict.evidence["n"] == len(judged)
    assert verdict.reason.startswith("a tie keeps the champion")
    assert registry.aliases(world.tracking, NAME) == {"champion": 1, "challenger": 2}


def test_shuffled_labels_lose_and_no_alias_of_the_champion_moves(world):
    frame = frame_of(last_run())
    trained_on = frame.split != "test"
    shuffled = np.random.default_rng(5).permutation(frame.label[trained_on])
    frame.loc[trained_on, "label"] = shuffled
    run = world.train(PROBE, photos=write(world, frame))
    verdict = output(run, "promote")
    assert verdict.decision == "keep"
    assert registry.aliases(world.tracking, NAME) == {"champion": 1, "challenger": 2}
    row = registry.list_versions(world.tracking).set_index("version").loc[2]
    assert (row.aliases, row.why) == ("challenger", verdict.reason)


def test_better_challenger_is_promoted_on_photos_that_the_champion_has_not_seen(world):
    frame = frame_of(last_run()).assign(camera=lambda rows: np.arange(len(rows)) % 2)
    green = frame[(frame.label == "green") & (frame.split != "test")]
    wrong = frame.copy()
    wrong.loc[green.index[:-2], "label"] = "blue"
    seen = frame[frame.split == "train"].groupby("label").head(1)
    frame.loc[seen.index, "split"] = "test"
    first = world.train(PROBE, photos=write(world, wrong), called="improving")
    bold = "promote.level=0.2"  # nine photos show little
    better = world.train(PROBE, bold, photos=write(world, frame), called="improving")
    assert output(first, "promote").moves
    verdict = output(better, "promote")
    assert verdict.moves, verdict.reason
    aliases = registry.aliases(world.tracking, "improving")
    assert aliases == {"challenger": 2, "champion": 2, "previous": 1}
    n_test = output(better, "evaluate").n
    assert (verdict.evidence["n_seen"], verdict.evidence["n"]) == (len(seen), n_test - len(seen))
    check_slices(output(better, "evaluate"), frame)


def check_slices(report, frame: pd.DataFrame):
    """A column of the manifest is a slice of the report."""
    test = frame[frame.split == "test"]
    counts = report.slices.set_index(["column", "value"]).n
    assert counts["camera"].to_dict() == test.camera.astype(str).value_counts().to_dict()


def test_training_may_go_on_from_the_champion(world):
    run = world.train(PROBE, "backbone.source=champion", 'backbone.architecture=""')
    start, champion = output(run, "load_pretrained"), registry.find(world.tracking, NAME, "1")
    weights = registry.load(world.tracking, champion).weights
    for name in weights.keys() & start.weights.keys():
        if not name.startswith("head"):
            assert start.weights[name].equal(weights[name]), name
    assert output(run, "promote").champion == 1


def test_class_without_validation_photos_keeps_every_number_in_its_row(world):
    frame = frame_of(last_run())
    frame = frame[~((frame.label == "amber") & (frame.split == "validation"))]
    run = world.train(PROBE, photos=write(world, frame))
    report = output(run, "evaluate")
    test = frame[frame.split == "test"]
    assert report.classes == ("amber", "blue", "green")
    assert report.per_class.set_index("label").n.to_dict() == test.label.value_counts().to_dict()
    assert set(report.predictions.label) == set(report.classes)
    judged = report.predictions[report.predictions.side == "test"]
    right = judged.label == judged.predicted
    assert report.accuracy.value == right.mean() == 1.0
