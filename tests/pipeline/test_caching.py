"""What the cache of steps depends on, each change in a run of its own.

The fast tier has several changes in one run: test_counts.py.
"""

import shutil

import pytest
from tiny_challenger import draw_photos
from tiny_train import last_run, made_anew, output, stages

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

PROBE = "freeze.policy=probe"


def test_photo_changed_in_place_is_noticed(world):
    before = output(last_run(), "ingest").digest
    photo = sorted(world.photos.rglob("*.png"))[0]
    draw_photos(world.folder / "others", 1, seed=7)
    shutil.copyfile(world.folder / "others" / photo.parent.name / "0.png", photo)
    again = world.train(PROBE)
    assert "ingest" in made_anew(again)
    assert output(again, "ingest").digest != before


def test_change_in_the_core_alone_makes_everything_anew(world, monkeypatch):
    monkeypatch.setattr("regraft.orchestration.caching.code_hash", lambda places: "another")
    again = world.train()
    assert made_anew(again) == set(stages(again)) - {"register", "promote", "mirror"}


def test_each_setting_makes_anew_only_what_depends_on_it(world):
    assert made_anew(world.train("evaluate.n_gallery=3")) == {"evaluate"}
    assert made_anew(world.train(PROBE)) == {"freeze", "fine_tune", "evaluate"}
    assert made_anew(world.train("tune.head_l2=[5.0]")) == {
        *("choose_backbone", "fine_tune", "measure_transfer", "evaluate"),
    }
