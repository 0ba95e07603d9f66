"""Where the data of a state folder lives is written down once, and every command reads it there."""

import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from regraft.core.config import Config, load_config
from regraft.core.errors import ConfigError
from regraft.core.state import fix_places, open_state, places
from regraft.operations.workflows.settings import complete_config

SERVER = "tracking.uri=http://127.0.0.1:5000"


@pytest.fixture
def state(tmp_path):
    return open_state(tmp_path / "state")


def config(*settings: str) -> Config:
    return load_config(None, settings)


def test_without_a_setting_everything_is_in_the_state_folder(state):
    for name, place in vars(places(state)).items():
        if name == "tracking":
            assert place.uri == f"sqlite:///{state.root}/mlflow.db"
            assert place.artifacts_url == f"{state.root}/mlflow"
        elif name != "has_registry":
            assert Path(place).parent == state.root, name
    assert not places(state).has_registry


def test_the_first_setting_counts_for_every_later_command(state):
    chosen = complete_config(config(SERVER, "embed.store_url=s3://b/rows/"), "photos", "", state)
    assert chosen.tracking.artifacts_url == ""  # the server's own
    later = places(open_state(state.root))
    assert later.tracking.uri == "http://127.0.0.1:5000"
    assert (later.tracking.artifacts_url, later.embeddings) == ("", "s3://b/rows")
    assert later.has_registry
    again = complete_config(config(), "photos", "", state)
    assert (again.tracking.uri, again.embed.store_url) == (later.tracking.uri, "s3://b/rows")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (SERVER, "tracking.uri=http://127.0.0.1:5001"),
        (SERVER, "tracking.artifacts_url=s3://b/files"),
        ("retrain.journal_url=s3://b/journal", "retrain.journal_url=s3://c/journal"),
    ],
)
def test_a_second_place_of_records_is_an_error_with_both(state, first, second):
    fix_places(config(first), state)
    before = places(state)
    key, _, got = second.partition("=")
    with pytest.raises(ConfigError, match=rf"Expected {key}=.*{state.root}.* got {got}\. Omit"):
        complete_config(config(first, second), "photos", "", state)
    assert places(state) == before
    fix_places(config(first), state)  # the same setting again is none


def test_the_folders_own_store_counts_once_it_is_used(state):
    state.mlflow_database.touch()
    with pytest.raises(ConfigError, match=rf"Expected tracking\.uri=sqlite:///{state.root}"):
        fix_places(config(SERVER), state)
    (state.journal / "attempts").mkdir()
    (state.journal / "attempts" / "x.json").touch()
    with pytest.raises(ConfigError, match=rf"Expected retrain\.journal_url={state.journal},"):
        fix_places(config("retrain.journal_url=s3://b/j"), state)
    fix_places(config(f"tracking.uri=sqlite:///{state.mlflow_database}"), state)


def test_the_folders_own_store_is_another_one_after_a_server(state):
    fix_places(config(SERVER), state)
    with pytest.raises(ConfigError, match=r"got sqlite:///"):
        fix_places(config(f"tracking.uri=sqlite:///{state.mlflow_database}"), state)


def test_another_cache_applies_to_one_command(state):
    fix_places(config("embed.store_url=/first"), state)
    once = complete_config(config("embed.store_url=/second"), "photos", "", state)
    assert once.embed.store_url == "/second"
    assert places(state).embeddings == "/first"


def test_a_relative_place_is_the_same_from_any_folder(state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fix_places(config("tracking.uri=sqlite:///m.db", "promote.reports_url=pages"), state)
    monkeypatch.chdir("/")
    tracking = places(state).tracking
    assert tracking.uri == f"sqlite:///{tmp_path}/m.db"
    assert tracking.artifacts_url == str(state.mlflow_artifacts)  # a database stores no files
    assert places(state).reports == str(tmp_path / "pages")


def test_a_moved_state_folder_takes_its_places_along(state, tmp_path):
    inside, outside = f"{state.root}/deep/pages", f"{tmp_path}/rows"
    fix_places(config(f"promote.reports_url={inside}", f"embed.store_url={outside}"), state)
    moved = open_state(Path(shutil.move(state.root, tmp_path / "moved")))
    assert places(moved).reports == f"{tmp_path}/moved/deep/pages"
    assert places(moved).embeddings == outside


def test_a_model_has_its_own_split_memory_in_the_folder_of_all(state):
    settings = places(state).settings("cats")
    assert settings["split.memory_url"] == f"{state.splits}/cats"
    assert len(settings) == len(fields(places(state))) - 1  # tracking has two, two have none
    assert not re.search("schedule|registry", str(settings.keys()))
