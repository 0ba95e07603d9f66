"""Terminals that lack a character, and arguments that are not UTF-8."""

import io
import sys

import pytest

from regraft.cli import main
from regraft.cli.table import fit_paths
from regraft.core.config import Config
from regraft.core.errors import ConfigError, StateError
from regraft.core.state import State, open_state
from regraft.operations.workflows.settings import complete_config

FOREIGN = "caf\udce9"  # the bytes 63 61 66 e9, which are not UTF-8


@pytest.fixture
def write(monkeypatch, tmp_path):
    """Run the command line on a terminal with an encoding; return what it wrote, or its exit."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main() replaces it
    monkeypatch.chdir(tmp_path)

    def written(encoding: str, *arguments: str) -> tuple[int, bytes]:
        stdout = io.TextIOWrapper(io.BytesIO(), encoding)
        stderr = io.TextIOWrapper(stdout.buffer, encoding, write_through=True)
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setattr(sys, "argv", ["regraft", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        stdout.flush()
        return int(ended.value.code or 0), stdout.buffer.getvalue()

    return written


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("latin-1", "für \\u8702.yaml: ok\n".encode("latin-1")),
        ("ascii", b"f\\xfcr \\u8702.yaml: ok\n"),
        ("utf-8", "für 蜂.yaml: ok\n".encode()),
    ],
)
def test_a_character_that_the_terminal_lacks_is_escaped(write, tmp_path, encoding, shown):
    (tmp_path / "für 蜂.yaml").write_text("", encoding="utf-8")
    assert write(encoding, "config", "check", "für 蜂.yaml") == (0, shown)


def test_an_error_is_escaped_too(write):
    code, shown = write("ascii", "config", "check", "蜂.yaml")
    assert code == 2
    assert b"got none" in shown
    assert b"\\u8702.yaml" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", FOREIGN),
        ("retrain", "photos", "--model", FOREIGN),
        ("approve", "--reason", FOREIGN),
        ("config", "show", "--set", f"tracking.name={FOREIGN}"),
        ("schedule", "add", "--cron", "0 3 * * *", "--command", f"train {FOREIGN}"),
    ],
    ids=lambda words: words[0],
)
def test_an_argument_that_is_not_utf_8_ends_with_2_and_a_sentence(write, tmp_path, arguments):
    code, shown = write("utf-8", *arguments)
    assert code == 2
    assert b"Expected an argument in UTF-8" in shown
    assert b"xe9" in shown
    assert list(tmp_path.iterdir()) == []


def test_an_existing_place_that_is_not_utf_8_is_refused_where_it_would_be_stored(
    tmp_path,
):
    place = tmp_path / FOREIGN
    place.mkdir()
    with pytest.raises(ConfigError, match="is not UTF-8; rename it"):
        complete_config(Config(), str(place), "photos", State(tmp_path))
    with pytest.raises(StateError, match="special meaning"):
        open_state(place)


@pytest.mark.parametrize(("is_terminal", "shown"), [(True, "...r/with a name.jpg"), (False, None)])
def test_the_end_of_a_path_fits_the_terminal(monkeypatch, is_terminal, shown):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setenv("COLUMNS", "30")
    path = "/a/long/folder/with a name.jpg"
    assert fit_paths([path, "short.jpg"], 10) == [shown or path, "short.jpg"]
