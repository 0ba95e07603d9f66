import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from regraft.core.errors import AlreadyRunning, StateError
from regraft.core.state import (
    State,
    activate,
    environment,
    exclusive_lock,
    existing_state,
    marked_runs,
    open_state,
    places,
    readable_state,
    remove_run_marker,
    run_marker,
    state_lock,
)
from regraft.core.state import folder as state_folder

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def read(database, column="value"):
    with closing(sqlite3.connect(database)) as connection:
        return [value for (value,) in connection.execute(f"SELECT {column} FROM t")]


@pytest.fixture
def database(tmp_path):
    """An SQLite file with a table t of the values that are put into it."""

    def make(*values, path=tmp_path / "some.db"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE t (value)")
            connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
        return path

    return make


def test_only_the_owner_can_read_a_new_state_and_others_stay(tmp_path):
    new = open_state(tmp_path / "parent" / "new").root
    assert new.stat().st_mode & 0o777 == 0o700
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    assert open_state(shared).root.stat().st_mode & 0o777 == 0o750
    new.chmod(0o755)  # by its owner
    assert open_state(new).root.stat().st_mode & 0o777 == 0o755


def test_a_fresh_state_has_every_folder_and_remembers_its_place(tmp_path):
    state = open_state(tmp_path / "a b" / "state")
    folders = (state.zenml, state.artifacts, state.mlflow_artifacts, state.checkpoints)
    folders += (
        state.embeddings,
        state.images,
        state.photos,
        state.splits,
        state.reports,
        state.runs,
        state.journal,
        state.schedule,
    )
    assert all(folder.is_dir() and folder.parent == state.root for folder in folders)
    record = json.loads((state.root / "state.json").read_text())
    root = str(tmp_path / "a b" / "state")
    assert record == {"format": 2, "root": root, "places": {}}
    assert state.moved_from is None
    assert places(state).tracking.uri == f"sqlite:///{tmp_path}/a b/state/mlflow.db"


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_state(Path("here")).root == tmp_path / "here"


def forked(work):
    """The pid of a new process that does the work; its exit code is 0 if the work returns true."""
    pid = os.fork()
    if pid:
        return pid
    try:  # whatever happens, the copy of this test run ends here
        os._exit(0 if work() else 1)
    finally:
        os._exit(2)


def ended(pid):
    """The exit code of a process, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_two_openings_at_once_of_one_fresh_folder_both_succeed(tmp_path):
    begin, began = os.pipe()

    def work():
        os.close(began)
        os.read(begin, 1)  # until the parent lets both go
        return open_state(tmp_path / "state").moved_from is None

    both = [forked(work) for _ in range(2)]
    os.close(begin)
    os.close(began)
    assert [ended(pid) for pid in both] == [0, 0]


def test_a_moved_state_is_noticed_once_and_its_files_name_the_new_place(tmp_path, database):
    state = open_state(tmp_path / "old")
    database(f"{state.root}/artifacts/x", path=state.mlflow_database)
    state.zenml_database.parent.mkdir(parents=True)
    database(f"{state.root}/artifacts/x", path=state.zenml_database)
    (state.zenml / "config.yaml").write_text(f"url: sqlite:///{state.root}/zenml.db\n")
    moved = open_state(state.root.rename(tmp_path / "new"))
    assert moved.moved_from == state.root
    assert read(moved.mlflow_database) == [f"{tmp_path}/new/artifacts/x"]
    assert read(moved.zenml_database) == [f"{tmp_path}/new/artifacts/x"]
    assert f"sqlite:///{tmp_path}/new/zenml.db" in (moved.zenml / "config.yaml").read_text()
    assert open_state(moved.root).moved_from is None


def test_a_repair_that_was_killed_is_done_again(tmp_path, database, monkeypatch):
    state = open_state(tmp_path / "old")
    database(f"{state.root}/x", path=state.mlflow_database)
    root = state.root.rename(tmp_path / "new")
    monkeypatch.setattr(state_folder, "relocate_yaml", lambda *_: os.kill(0, "no signal"))
    with pytest.raises(TypeError):
        open_state(root)
    monkeypatch.undo()
    assert open_state(root).moved_from == state.root
    assert read(root / "mlflow.db") == [f"{root}/x"]


def test_the_environment_keeps_zenml_and_mlflow_at_home_and_quiet(tmp_path):
    state = open_state(tmp_path)
    variables = environment(state, debug=False)
    assert variables["ZENML_CONFIG_PATH"] == f"{tmp_path}/zenml"
    assert (Path(variables["ZENML_CUSTOM_SOURCE_ROOT"]) / "regraft" / "__init__.py").is_file()
    assert variables["ZENML_ANALYTICS_OPT_IN"] == "false"
    assert variables["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert variables["ZENML_LOGGING_VERBOSITY"] == "WARN"
    assert environment(state, debug=True)["ZENML_LOGGING_VERBOSITY"] == "DEBUG"
    assert "MLFLOW_TRACKING_URI" not in variables


@pytest.fixture
def variables(monkeypatch):
    """Restore the environment variables afterwards; zenml counts as not imported."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.delitem(sys.modules, "zenml", raising=False)
    return os.environ


def test_activate_takes_out_what_leads_to_another_store(tmp_path, variables):
    variables["ZENML_STORE_URL"] = "https://elsewhere"
    variables["ZENML_ACTIVE_STACK_ID"] = "17"
    activate(open_state(tmp_path))
    assert variables["ZENML_CONFIG_PATH"] == f"{tmp_path}/zenml"
    assert not {"ZENML_STORE_URL", "ZENML_ACTIVE_STACK_ID"} & set(variables)


def test_activate_after_zenml_was_imported_for_another_state_is_refused(
    tmp_path, variables, monkeypatch
):
    monkeypatch.setitem(sys.modules, "zenml", state_folder)
    variables["ZENML_CONFIG_PATH"] = "/elsewhere/zenml"
    places = rf"{re.escape(str(tmp_path))} .*/elsewhere/zenml\b"
    with pytest.raises(StateError, match=places):
        activate(open_state(tmp_path))


def test_a_run_is_marked_as_long_as_its_block(tmp_path):
    state = open_state(tmp_path)
    with run_marker(state, "train 2025/01"):
        assert marked_runs(state) == {"train 2025/01": True}
        with pytest.raises(AlreadyRunning), run_marker(state, "train 2025/01"):
            pass
        assert marked_runs(state) == {"train 2025/01": True}
    with pytest.raises(KeyError), run_marker(state, "another"):
        raise KeyError
    assert list(state.runs.iterdir()) == []


def test_a_run_whose_process_was_killed_is_marked_dead(tmp_path):
    state = open_state(tmp_path)
    killed_within(lambda: run_marker(state, "run"))
    with run_marker(state, "alive"):
        assert marked_runs(state) == {"run": False, "alive": True}
    remove_run_marker(state, "run")
    remove_run_marker(state, "run")
    assert marked_runs(state) == {}


@pytest.mark.parametrize("lie", [{"host": "elsewhere"}, {"created": 0.0}, {"pid": 1}])
def test_a_marker_is_believed_about_nothing_but_whose_it_is(tmp_path, lie):
    """Host names of containers change, and a changed clock changes start times."""
    state = open_state(tmp_path)

    @contextmanager
    def both():
        with run_marker(state, "dead"), exclusive_lock(state, "retrain cats", NOW):
            yield

    killed_within(both)

    def rewrite(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | lie))

    rewrite(state.runs / "dead.json")
    rewrite(state.locks / "retrain cats.json")
    with run_marker(state, "alive"), exclusive_lock(state, "retrain cats", NOW) as killed:
        assert killed == (replace(killed[0], **lie),)
        rewrite(state.runs / "alive.json")
        rewrite(state.locks / "retrain cats.json")
        assert marked_runs(state) == {"dead": False, "alive": True}
        with pytest.raises(AlreadyRunning), exclusive_lock(state, "retrain cats", NOW):
            pass
        (state.locks / "retrain cats.json").unlink()
        with pytest.raises(AlreadyRunning, match="retrain cats") as unknown:  # noqa: SIM117
            with exclusive_lock(state, "retrain cats", NOW):
                pass
        assert str(os.getpid()) not in str(unknown.value)


def test_an_invalid_marker_is_reported_with_its_file(tmp_path):
    state = open_state(tmp_path)
    (state.runs / "x.json").write_text("{}")
    with pytest.raises(StateError, match=re.escape(str(state.runs / "x.json"))):
        marked_runs(state)


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "state").write_text("")
    for root in (tmp_path / "state", tmp_path / "state" / "below"):
        with pytest.raises(StateError, match=rf"{re.escape(str(root))}, .*\bfile\b"):
            open_state(root)


def test_a_state_that_a_command_only_reads_is_not_created(tmp_path):
    none = re.escape(str(tmp_path / "none"))
    with pytest.raises(StateError, match=rf"{none}, .*`regraft train PHOTOS`"):
        existing_state(tmp_path / "none")
    assert not list(tmp_path.iterdir())
    assert existing_state(open_state(tmp_path / "some").root).root == tmp_path / "some"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write")
def test_a_place_that_cannot_be_written_says_why(tmp_path):
    with pytest.raises(OSError, match="/proc/regraft") as error:
        Path("/proc/regraft").mkdir()
    with pytest.raises(StateError, match=rf"/proc/regraft\b.*{re.escape(error.value.strerror)}"):
        open_state(Path("/proc/regraft"))


@pytest.mark.parametrize("character", ["#", "?", "%", '"', "\\", "\n"])
def test_a_character_that_urls_misread_is_refused_before_anything_is_made(tmp_path, character):
    with pytest.raises(StateError, match=rf"{re.escape(repr(character))}.*--state"):
        open_state(tmp_path / f"a{character}b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("written", "age"), [(1, "older"), (3, "newer")])
def test_a_state_of_another_format_is_refused(tmp_path, written, age):
    (tmp_path / "state.json").write_text(f'{{"format": {written}, "root": "/x"}}')
    place = re.escape(str(tmp_path))
    with pytest.raises(StateError, match=rf"format 2 .*{place}.*\b{written}: .*\b{age} Regraft"):
        open_state(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x", "root": "/x"}'])
def test_an_invalid_record_is_refused(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(StateError, match=re.escape(str(tmp_path / "state.json"))):
        open_state(tmp_path)


def test_a_moved_state_whose_database_is_broken_says_so(tmp_path):
    state = open_state(tmp_path / "old")
    state.mlflow_database.write_bytes(b"no database at all" * 100)
    root = state.root.rename(tmp_path / "new")
    with pytest.raises(StateError, match=r"/old to .*/new\b"):
        open_state(root)


def test_a_lock_that_stays_held_is_named(tmp_path, monkeypatch):
    state = open_state(tmp_path)
    monkeypatch.setattr(state_folder, "_LOCK_TIMEOUT_S", 0.05)
    failures = []

    def wait():
        with pytest.raises(StateError, match=rf"\b0 s .*{re.escape(str(state.lock))}"):
            open_state(tmp_path)
        failures.append("as it should")

    with state_lock(state):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert failures == ["as it should"]


def killed_within(block):
    """Fork a process and kill it with SIGKILL within the block."""

    def work():
        with block():
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(work)) == -signal.SIGKILL


def test_only_one_process_at_a_time_holds_the_exclusive_lock(tmp_path):
    state = open_state(tmp_path)
    with exclusive_lock(state, "retrain cats", NOW) as killed:
        assert killed == ()
        told = rf"retrain cats .*\b{os.getpid()}\b.* 2025-01-01T"
        with pytest.raises(AlreadyRunning, match=told), exclusive_lock(state, "retrain cats", NOW):
            pass
        with exclusive_lock(state, "retrain dogs", NOW):
            pass
    assert not list(state.locks.glob("*.json"))
    assert marked_runs(state) == {}


def test_the_marker_of_a_killed_process_is_returned_to_the_next_process(tmp_path):
    state = open_state(tmp_path)
    killed_within(lambda: exclusive_lock(state, "retrain cats", NOW))
    with exclusive_lock(state, "retrain cats", NOW) as killed:
        [earlier] = killed
        assert (earlier.name, earlier.started) == ("retrain cats", "2025-01-01T00:00:00+00:00")
    with exclusive_lock(state, "retrain cats", NOW) as killed:
        assert killed == ()


def test_markers_of_killed_processes_accumulate_until_a_process_ends_normally(tmp_path):
    state = open_state(tmp_path)
    for _ in range(3):
        killed_within(lambda: exclusive_lock(state, "retrain cats", NOW))
    with pytest.raises(KeyError), exclusive_lock(state, "retrain cats", NOW) as killed:
        raise KeyError  # before it could note them
    with exclusive_lock(state, "retrain cats", NOW) as again:
        assert again == killed
        assert len({marker.pid for marker in killed}) == 3
    with exclusive_lock(state, "retrain cats", NOW) as killed:
        assert killed == ()


def test_only_a_dead_run_is_forgotten(tmp_path):
    """The run may have been resumed in the meantime."""
    state = open_state(tmp_path)
    killed_within(lambda: run_marker(state, "run"))
    with run_marker(state, "run"):
        remove_run_marker(state, "run")
        assert marked_runs(state) == {"run": True}


def test_a_name_may_be_as_long_as_a_model_s_in_any_letters(tmp_path):
    state = open_state(tmp_path)
    for name in ("retrain " + "写" * 60, "retrain " + "写" * 59 + "真"):
        with run_marker(state, name), exclusive_lock(state, name, NOW):
            assert marked_runs(state) == {name: True}


def test_an_error_lets_the_next_one_in(tmp_path):
    state = open_state(tmp_path)
    with pytest.raises(KeyError), exclusive_lock(state, "retrain cats", NOW):
        raise KeyError
    with exclusive_lock(state, "retrain cats", NOW) as killed:
        assert killed == ()


BAD_PLACES = {
    "a file": "file",
    "under a file": "file/deep/state",
    "a loop of links": "loop",
    "a name that is too long": "x" * 300,
    "a link to nowhere that may not be": "/proc/state",
    "/proc": "/proc",
    "/proc/self": "/proc/self/fd/state",
    "/sys": "/sys/state",
    "a home of nobody": "~nobody-of-this-name/state",
    "a device": "/dev/null",
}


@pytest.mark.parametrize("place", BAD_PLACES.values(), ids=BAD_PLACES.keys())
@pytest.mark.parametrize("opened", [open_state, existing_state, readable_state])
def test_a_place_that_cannot_hold_a_state_folder_is_refused_at_once(tmp_path, place, opened):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    root = Path(place) if place.startswith("~") else tmp_path / place
    began = time.monotonic()
    with pytest.raises(StateError, match=r"(?s)Expected .* got[ :].*--state"):
        opened(root)
    assert time.monotonic() - began < 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def as_nobody(work: Callable[[], object]) -> str:
    """Return what the work printed, as text, in a process that has no permission."""

    def child(sender: Connection):
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            sender.send(str(work()))
        except StateError as error:
            sender.send(f"StateError: {error}")

    receiver, sender = get_context("fork").Pipe(duplex=False)
    process = get_context("fork").Process(target=child, args=(sender,))
    process.start()
    said = receiver.recv() if receiver.poll(20) else "nothing"
    process.join()
    receiver.close()
    sender.close()
    return said


@pytest.fixture
def protected():
    """A state folder that everybody may read, and nobody but its owner may write."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "state"
        open_state(root)
        for path in (root.parent, root, *root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if os.getuid():  # the owner is this user
            root.chmod(0o555)
            (root / ".lock").chmod(0o444)
        yield root
        root.chmod(0o755)


def test_a_folder_without_write_permission_is_read_and_not_written(protected):
    said = as_nobody(lambda: (readable_state(protected).is_writable, places(State(protected))))
    assert said.startswith("(False, Places(")
    for opened in (open_state, existing_state):
        said = as_nobody(lambda opened=opened: opened(protected))
        assert re.match(rf"StateError: Expected a writable .*{protected}.*Permission denied", said)
    said = as_nobody(lambda: open_state(protected / "deep" / "state"))
    assert re.match(r"StateError: .*/deep/state.*Permission denied", said)


def test_a_moved_folder_without_write_permission_says_what_to_do(protected):
    moved = protected.parent / "moved"
    if os.getuid() == 0:
        protected.rename(moved)
    else:
        shutil.copytree(protected, moved)
    said = as_nobody(lambda: readable_state(moved))
    assert re.match(rf"StateError: .*{moved} before, got one of {protected}.*writable", said)
    if os.getuid() == 0:
        moved.rename(protected)


def test_a_folder_that_may_not_be_read_is_refused(protected):
    protected.chmod(0o700 if os.getuid() == 0 else 0o000)
    said = as_nobody(lambda: readable_state(protected))
    assert re.match(r"StateError: Expected a readable state folder .*Permission denied", said)
