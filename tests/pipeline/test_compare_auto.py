"""`backbone.source=auto` trains from the chosen backbone; the command writes what it found."""

import hashlib
import re

import pandas as pd
import pytest
from tiny_challenger import ARCHITECTURE, weights_file
from tiny_train import NAME, SETTINGS, made_anew, output, stages
from typer.testing import CliRunner

from regraft.cli import app

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def world(shared_world):
    return shared_world


@pytest.fixture(scope="module")
def candidates(world):
    other = weights_file(world.folder / "other.safetensors", seed=1)
    digests = {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (world.weights, other)
    }
    return [f"file:{path}@{ARCHITECTURE}@{digest}" for path, digest in digests.items()]


@pytest.fixture(scope="module")
def settings(candidates) -> tuple[str, ...]:
    named = ", ".join(f"'{candidate}'" for candidate in candidates)
    return (
        *("backbone.source=auto", "backbone.architecture=''", "freeze.policy=probe"),
        f"backbone.candidates=[{named}]",
    )


@pytest.fixture(scope="module")
def auto(world, settings):
    return world.train(*settings)


@pytest.mark.slow  # the fast tier has the choice itself: tests/unit/test_compare_choice.py
def test_auto_trains_from_the_chosen_backbone(auto, candidates):
    run = auto
    assert run.status == "completed"
    assert stages(run)["choose_backbone"] == "completed"
    chosen = output(run, "choose_backbone")
    assert f"{chosen.source}@{chosen.architecture}@{chosen.sha256}" in candidates
    info = output(run, "fine_tune").classifier.card.backbone
    assert (info.source, info.sha256) == (chosen.source, chosen.sha256)
    assert "pickle" not in run.steps["choose_backbone"].output.materializer.import_path.lower()


@pytest.mark.slow  # the fast tier has it of other stages: test_same_command_again_registers_...
def test_auto_chooses_once(world, auto, settings):
    again = world.train(*settings)
    assert made_anew(again) == set()
    assert stages(again)["choose_backbone"] == "cached"


def test_command_compares_without_a_run_and_says_what_to_do_next(world, candidates):
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    given = ["--backbones", f"{candidates[0]}, {candidates[1]},bundled:nothing"]
    where = ["--state", str(world.state.root), "--model", NAME]
    done = CliRunner().invoke(
        app, ["compare-backbones", str(world.photos), *given, *options, *where]
    )
    assert done.exit_code == 0, done.output
    places = re.findall(r"^  (?:table|picture) +(.*)$", done.stdout, re.MULTILINE)
    assert [place.rpartition("/")[2] for place in places] == [
        *(f"compare-{NAME}.csv", f"compare-{NAME}.png")
    ]
    table = pd.read_csv(places[0])
    assert table.source.tolist()[2] == "bundled:nothing"
    assert re.search(r"^ *bundled:nothing: .*bundled:NAME", done.stdout, re.MULTILINE)
    [chosen] = table[table.is_chosen].source
    assert re.search(rf"^  chosen +{re.escape(chosen)}: ", done.stdout, re.MULTILINE)
    assert f"--set backbone.source={chosen.partition('@')[0]}" in done.stdout.replace("'", "")
    with open(places[1], "rb") as picture:
        assert picture.read(4) == b"\x89PNG"
