"""`backbone.source=auto` trains from the chosen backbone; the command writes what it found."""

import hashlib
import re

import pandas as pd
import pytest
from tiny_challenger import ARCHITECTURE, weights_file
from tiny_train import NAME, SETTINGS, made_anew, output, stages
from typer.testing import CliRunner

from commands import app

pytestmark = pytest.mark.pipeline


@pytest.fixture
def candidates(world):
    other = weights_file(world.folder / "other.safetensors", seed=1)
    digests = {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (world.weights, other)
    }
    return [f"file:{path}@{ARCHITECTURE}@{digest}" for path, digest in digests.items()]


def test_auto_trains_from_the_chosen_backbone_and_chooses_once(world, candidates):
    named = ", ".join(f"'{candidate}'" for candidate in candidates)
    settings = (
        *("backbone.source=auto", "backbone.architecture=''", "freeze.policy=probe"),
        f"backbone.candidates=[{named}]",
    )
    run = world.train(*settings)
    assert run.status == "completed"
    assert stages(run)["choose_backbone"] == "completed"
    chosen = output(run, "choose_backbone")
    assert f"{chosen.source}@{chosen.architecture}@{chosen.sha256}" in candidates
    info = output(run, "fine_tune").classifier.card.backbone
    assert (info.source, info.sha256) == (chosen.source, chosen.sha256)
    assert "pickle" not in run.steps["choose_backbone"].output.materializer.import_path.lower()

    again = world.train(*settings)
    assert made_anew(again) == set()
    assert stages(again)["choose_backbone"] == "cached"


def test_command_compares_without_a_run_and_says_what_to_do_next(world, candidates):
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    given = ["--backbones", f"{candidates[0]}, {candidates[1]},bundled:nothing"]
    where = ["--state", str(world.state.root), "--name", NAME]
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
    assert "bundled:nothing: not compared. Expected bundled:NAME" in done.stdout
    [chosen] = table[table.is_chosen].source
    assert f"  chosen    {chosen}: " in done.stdout
    assert f"--set backbone.source={chosen.partition('@')[0]}" in done.stdout.replace("'", "")
    with open(places[1], "rb") as picture:
        assert picture.read(4) == b"\x89PNG"
