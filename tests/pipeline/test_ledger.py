"""The ledger and changes of the champion in a real MLflow registry."""

import json
import logging
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from tiny_challenger import tracking_in
from tiny_store import Store, registered_pair, weak_model
from typer.testing import CliRunner

from regraft import registry
from regraft.cli.history import history, parse_moment
from regraft.cli.ledger import ledger_app
from regraft.cli.rollback import rollback
from regraft.core.config import TrackingConfig
from regraft.core.errors import (
    ChampionMoved,
    ConfigError,
    LedgerBroken,
    ModelNotFound,
    NoRollbackTarget,
    RegistryError,
)
from regraft.core.relocate import relocate_database
from regraft.core.state import current_user, environment, open_state
from regraft.registry.champion import (
    ChampionChange,
    DecisionRecord,
    move_champion,
    reconcile,
    record_decision,
    roll_back,
)
from regraft.registry.champion_history import champion_at, promotion_stack
from regraft.registry.ledger import (
    APPLIED,
    ENTRY,
    HASH,
    HEAD,
    MAX_REASON,
    RECORDED,
    Draft,
    Entry,
    append_entry,
    list_entries,
    list_faults,
    load_verified_ledger,
    read_ledger,
    resolve_model_name,
)
from regraft.registry.versions import LEDGER

pytestmark = pytest.mark.pipeline

WHO = "ada@engine"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LEDGER_NAME = "tiny.ledger"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with versions 1 to 9 of the model "tiny", saved after each of three promotions."""
    store = Store(tmp_path_factory.mktemp("ledger"))
    fill(store.tracking, 9)
    store.save("none serves")
    promote_all(store.tracking, 1)
    store.save("1 serves")
    promote(store.tracking, 3, 1, NOON + timedelta(hours=1))
    store.save("1, 3 served")
    promote(store.tracking, 7, 3, NOON + timedelta(hours=2))
    store.save("1, 3, 7 served")
    return store


@pytest.fixture
def tracking(store):
    """Nine versions, no champion."""
    store.restore("none serves")
    return store.tracking


@pytest.fixture
def champion_1(store):
    """Version 1 was promoted at noon."""
    store.restore("1 serves")
    return store.tracking


@pytest.fixture
def champions_1_3(store):
    """Version 1 was promoted at noon, version 3 an hour later."""
    store.restore("1, 3 served")
    return store.tracking


@pytest.fixture
def champions_1_3_7(store):
    """Version 1 was promoted at noon, versions 3 and 7 an hour and two later."""
    store.restore("1, 3, 7 served")
    return store.tracking


def fill(tracking: TrackingConfig, n_versions: int):
    """Create sealed versions without files."""
    client = client_of(tracking)
    client.create_registered_model("tiny")
    for number in range(n_versions):
        seal = {"content_hash": f"{number}"}
        client.create_model_version("tiny", "regraft:/nothing", tags=seal)


def client_of(tracking: TrackingConfig) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)


def promote(tracking, after: int, expected: int | None, at: datetime = NOON) -> Entry:
    move = ChampionChange("promote", after, f"verdict-{after}", "better", WHO)
    return move_champion(tracking, "tiny", move, expected, at)


def back(tracking, to: int | None = None) -> Entry:
    return roll_back(tracking, "tiny", WHO, "it was worse", NOON, to)


def called(tracking) -> dict[str, int]:
    return registry.get_aliases(tracking, "tiny")


def promote_all(tracking, *versions: int):
    """Promote the versions in turn, an hour apart."""
    for hours, (before, after) in enumerate(zip((None, *versions), versions, strict=False)):
        promote(tracking, after, before, NOON + timedelta(hours=hours))


def test_every_decision_is_an_entry_hashed_over_the_previous_entry(champions_1_3):
    record_decision(champions_1_3, "tiny", DecisionRecord("keep", "verdict-4", "a tie", WHO), NOON)
    told = list_entries(champions_1_3, "tiny")
    assert list_faults(champions_1_3, "tiny") == ()
    assert [(e.number, e.action, e.before, e.after) for e in told] == [
        (1, "promote", None, 1),
        (2, "promote", 1, 3),
        (3, "keep", 3, 3),
    ]
    assert [e.previous for e in told] == ["", told[0].hash, told[1].hash]
    assert told[2].verdict == "verdict-4"
    for part in ("2026-11-24T13:00:00+00:00", "ada@engine", "v3", "v1", "better"):
        assert part in str(told[1])
    assert called(champions_1_3) == {"champion": 3, "previous": 1}
    assert registry.list_versions(champions_1_3).name.unique().tolist() == ["tiny"]
    assert registry.resolve(champions_1_3, "").version == 3


def test_ledger_and_registry_are_read_to_their_last_page(champions_1_3_7, monkeypatch):
    client_of(champions_1_3_7).create_registered_model("a twin")
    whole, listed = read_ledger(champions_1_3_7, "tiny"), registry.list_versions(champions_1_3_7)
    for size in (1, 2, 3):
        monkeypatch.setattr("regraft.registry.versions._PAGE", size)
        assert read_ledger(champions_1_3_7, "tiny") == whole
        assert registry.list_versions(champions_1_3_7).equals(listed)
        assert resolve_model_name(champions_1_3_7, "a twin") == "a twin"
    assert len(whole.entries) == 3
    assert len(listed) == 9


def test_reason_is_truncated_before_it_is_hashed(tracking):
    said = "two\nlines\0 " + "ä" * 3000
    entry = record_decision(tracking, "tiny", DecisionRecord("hold", "", said, WHO), NOON)
    assert entry == list_entries(tracking, "tiny")[0]
    assert len(entry.reason) == MAX_REASON
    assert entry.reason.startswith("two lines ä")
    assert entry.reason.endswith("ä…")
    assert list_faults(tracking, "tiny") == ()


def test_ledger_of_a_moved_state_folder_still_verifies(tracking):
    """The move replaces paths in the databases; the hashed text must not change."""
    folder = Path(tracking.uri.removeprefix("sqlite:///")).parent
    record_decision(
        tracking, "tiny", DecisionRecord("keep", "", f"see {folder}/reports/a.html", WHO), NOON
    )
    assert relocate_database(folder / "mlflow.db", folder, Path("/elsewhere")) > 0
    assert list_faults(tracking, "tiny") == ()
    assert list_entries(tracking, "tiny")[0].reason == f"see {folder}/reports/a.html"


def faulty_entries(tracking) -> list[int]:
    """Return the number of the first entry that each fault names."""
    return [int(re.search(r"\d+", fault)[0]) for fault in list_faults(tracking, "tiny")]


def edit(tracking, number: int, **changes: object):
    """Change the content of an entry through its tag."""
    client = client_of(tracking)
    said = json.loads(client.get_model_version(LEDGER_NAME, str(number)).tags[ENTRY])
    client.set_model_version_tag(LEDGER_NAME, str(number), ENTRY, json.dumps(said | changes))


def test_changed_entry_is_detected(champions_1_3_7):
    edit(champions_1_3_7, 2, after=4)
    assert faulty_entries(champions_1_3_7) == [2]
    client_of(champions_1_3_7).set_model_version_tag(LEDGER_NAME, "2", ENTRY, "no entry")
    assert faulty_entries(champions_1_3_7) == [2, 3]  # the third follows one that cannot be read


def test_changed_entry_with_a_new_hash_is_detected(champions_1_3_7):
    """Through the next entry; for the newest entry, through the tag of the registered model."""
    from hashlib import sha256

    sound = client_of(champions_1_3_7).get_model_version(LEDGER_NAME, "2").tags
    for number, first in ((2, 3), (3, 3)):
        edit(champions_1_3_7, number, who="eve@engine")
        said = client_of(champions_1_3_7).get_model_version(LEDGER_NAME, str(number)).tags[ENTRY]
        seal = sha256(said.encode()).hexdigest()
        client_of(champions_1_3_7).set_model_version_tag(LEDGER_NAME, str(number), HASH, seal)
        assert faulty_entries(champions_1_3_7)[0] == first
        for tag in (ENTRY, HASH):
            client_of(champions_1_3_7).set_model_version_tag(LEDGER_NAME, "2", tag, sound[tag])


def test_deleted_entry_is_detected(champions_1_3_7):
    client_of(champions_1_3_7).delete_model_version(LEDGER_NAME, "2")
    assert faulty_entries(champions_1_3_7) == [2, 3]


@pytest.mark.parametrize(("n_cut", "last"), [(1, "entry 2,"), (3, "no entry")])
def test_missing_newest_entries_are_detected(champions_1_3_7, n_cut, last):
    head = read_ledger(champions_1_3_7, "tiny").head
    for number in range(4 - n_cut, 4):
        client_of(champions_1_3_7).delete_model_version(LEDGER_NAME, str(number))
    (fault,) = list_faults(champions_1_3_7, "tiny")
    assert last in fault
    assert head[:12] in fault


def test_swapped_entries_are_detected(champions_1_3_7):
    client = client_of(champions_1_3_7)
    second, third = (client.get_model_version(LEDGER_NAME, number).tags for number in ("2", "3"))
    for number, tags in (("2", third), ("3", second)):
        for tag in (ENTRY, HASH):
            client.set_model_version_tag(LEDGER_NAME, number, tag, tags[tag])
    assert 2 in faulty_entries(champions_1_3_7)


def test_another_model_of_that_name_is_no_ledger(tracking):
    client_of(tracking).create_registered_model(LEDGER_NAME)
    (fault,) = list_faults(tracking, "tiny")
    assert LEDGER_NAME in fault
    assert f"tag {LEDGER}" in fault


def test_broken_ledger_stops_every_change_and_names_the_remedy(champions_1_3_7):
    edit(champions_1_3_7, 1, who="eve@engine")
    edit(champions_1_3_7, 2, who="eve@engine")
    for act in (lambda: promote(champions_1_3_7, 9, 7), lambda: back(champions_1_3_7)):
        with pytest.raises(LedgerBroken, match=rf"{LEDGER_NAME} .*Entry 1 "):
            act()
    assert called(champions_1_3_7) == {"champion": 7, "previous": 3}
    told = rf"\(and 1 more\).*regraft history tiny.*{LEDGER_NAME}.*tag {RECORDED} of tiny"
    with pytest.raises(LedgerBroken, match=told):
        load_verified_ledger(champions_1_3_7, "tiny")
    client_of(champions_1_3_7).delete_registered_model(LEDGER_NAME)  # as the text says
    [gone] = list_faults(champions_1_3_7, "tiny")
    assert LEDGER_NAME in gone
    client_of(champions_1_3_7).delete_registered_model_tag("tiny", RECORDED)
    assert promote(champions_1_3_7, 9, 7).number == 1
    assert called(champions_1_3_7) == {"champion": 9, "previous": 7}


def test_entry_after_an_older_head_is_rejected_and_no_fault(champions_1_3):
    first, second = list_entries(champions_1_3, "tiny")
    draft = Draft(NOON.isoformat(), WHO, "promote", "tiny", 1, 4, "", "")
    with pytest.raises(ChampionMoved, match=rf"{LEDGER_NAME}.*: v3 .* v1\. better"):
        append_entry(champions_1_3, draft, first.hash)
    assert list_entries(champions_1_3, "tiny") == (first, second)
    assert list_faults(champions_1_3, "tiny") == ()
    assert promote(champions_1_3, 7, 3).number == 4  # the rejected entry 3 leaves a gap
    assert list_faults(champions_1_3, "tiny") == ()
    client_of(champions_1_3).delete_model_version(
        LEDGER_NAME, "3"
    )  # a rejected entry is a record too
    assert faulty_entries(champions_1_3) == [3]


def test_change_is_refused_if_the_champion_has_changed(champions_1_3):
    with pytest.raises(ChampionMoved, match=r"v1 .* tiny.* v3 .*better"):
        promote(champions_1_3, 7, 1)
    with pytest.raises(ChampionMoved, match=r"none .* tiny.* v3 .*better"):
        promote(champions_1_3, 7, None)
    assert called(champions_1_3) == {"champion": 3, "previous": 1}
    assert len(list_entries(champions_1_3, "tiny")) == 2


def test_missing_version_cannot_become_champion(champion_1):
    with pytest.raises(ModelNotFound, match="tiny/77"):
        promote(champion_1, 77, 1)
    assert len(list_entries(champion_1, "tiny")) == 1


def test_rollback_returns_to_the_previous_champion(tracking):
    """Version 8 was never promoted."""
    promote_all(tracking, 7, 9)
    entry = back(tracking)
    assert (entry.action, entry.before, entry.after, entry.reason) == (
        "rollback",
        9,
        7,
        "it was worse",
    )
    assert called(tracking) == {"champion": 7}


def test_rollback_after_a_rollback_goes_further_back(champions_1_3_7):
    assert called(champions_1_3_7) == {"champion": 7, "previous": 3}
    assert back(champions_1_3_7).after == 3
    assert called(champions_1_3_7) == {"champion": 3, "previous": 1}
    assert back(champions_1_3_7).after == 1
    assert called(champions_1_3_7) == {"champion": 1}
    assert promotion_stack(list_entries(champions_1_3_7, "tiny")) == (1,)
    with pytest.raises(NoRollbackTarget, match=r"tiny .*: v1\. .*: v1\."):
        back(champions_1_3_7)


def test_rollback_accepts_any_former_champion(champions_1_3_7):
    assert back(champions_1_3_7, to=1).after == 1
    assert promotion_stack(list_entries(champions_1_3_7, "tiny")) == (1,)
    assert back(champions_1_3_7, to=7).after == 7  # the rollback was the mistake
    assert promotion_stack(list_entries(champions_1_3_7, "tiny")) == (1, 7)
    told = r"tiny .* 8: .* v7\. .*: v1, v7\..*--to"
    with pytest.raises(NoRollbackTarget, match=told):
        back(champions_1_3_7, to=8)
    with pytest.raises(NoRollbackTarget, match=r"tiny .* 7: "):
        back(champions_1_3_7, to=7)


def test_no_rollback_target_without_entries(tracking):
    with pytest.raises(NoRollbackTarget, match=r"tiny .*: none\. .*: none "):
        back(tracking)


def test_champion_before_the_ledger_is_the_bottom_of_the_stack(tracking):
    client_of(tracking).set_registered_model_alias("tiny", "champion", "2")
    promote(tracking, 5, 2)
    assert promotion_stack(list_entries(tracking, "tiny")) == (2, 5)
    assert back(tracking).after == 2


def test_rollback_to_a_deleted_version_names_the_next_earlier_champion(champions_1_3_7):
    client_of(champions_1_3_7).delete_model_version("tiny", "3")
    told = r"v3 of tiny.*tiny/3.*regraft rollback tiny --to 1`"
    with pytest.raises(NoRollbackTarget, match=told):
        back(champions_1_3_7)
    assert called(champions_1_3_7) == {"champion": 7}
    assert back(champions_1_3_7, to=1).after == 1
    newest = promote(champions_1_3_7, 9, 1)
    assert newest.number == 5
    client_of(champions_1_3_7).delete_model_version("tiny", "1")
    with pytest.raises(NoRollbackTarget, match=r"v1 of tiny.*tiny/1") as refused:
        back(champions_1_3_7)
    assert "--to" not in str(refused.value)  # no version is left to be named


def test_previous_skips_a_deleted_version(champions_1_3_7):
    client_of(champions_1_3_7).delete_model_version("tiny", "3")
    promote(champions_1_3_7, 9, 7)
    assert back(champions_1_3_7).after == 7
    assert called(champions_1_3_7) == {"champion": 7, "previous": 1}


def test_change_by_hand_is_recorded_and_not_undone(champions_1_3):
    client_of(champions_1_3).set_registered_model_alias("tiny", "champion", "5")
    reconcile(champions_1_3, "tiny", NOON)
    last = list_entries(champions_1_3, "tiny")[-1]
    assert (last.action, last.before, last.after) == ("outside", 3, 5)
    assert last.who == "unknown (outside of Regraft)"
    assert called(champions_1_3) == {"champion": 5, "previous": 3}
    assert promotion_stack(list_entries(champions_1_3, "tiny")) == (1, 3, 5)
    reconcile(champions_1_3, "tiny", NOON)
    assert len(list_entries(champions_1_3, "tiny")) == 3
    client_of(champions_1_3).set_registered_model_alias("tiny", "champion", "1")
    reconcile(champions_1_3, "tiny", NOON)
    assert promotion_stack(list_entries(champions_1_3, "tiny")) == (1,)
    assert called(champions_1_3) == {"champion": 1}


def test_champion_whose_alias_was_removed_by_hand_can_be_restored(champions_1_3):
    client_of(champions_1_3).delete_registered_model_alias("tiny", "champion")
    assert back(champions_1_3).after == 3
    told = [(e.action, e.before, e.after) for e in list_entries(champions_1_3, "tiny")[2:]]
    assert told == [("outside", 3, None), ("rollback", None, 3)]
    assert called(champions_1_3) == {"champion": 3, "previous": 1}


def test_pending_promotion_of_a_deleted_version_blocks_no_later_change(champion_1):
    head = read_ledger(champion_1, "tiny").head
    append_entry(champion_1, Draft(NOON.isoformat(), WHO, "promote", "tiny", 1, 3, "", ""), head)
    client_of(champion_1).delete_model_version("tiny", "3")
    assert promote(champion_1, 5, 1).after == 5  # reconciles first
    told = [(e.action, e.before, e.after) for e in list_entries(champion_1, "tiny")[1:]]
    assert told == [("promote", 1, 3), ("outside", 3, 1), ("promote", 1, 5)]
    assert called(champion_1) == {"champion": 5, "previous": 1}


def test_change_of_a_killed_process_is_completed_by_the_next(champion_1):
    head = read_ledger(champion_1, "tiny").head
    append_entry(champion_1, Draft(NOON.isoformat(), WHO, "promote", "tiny", 1, 3, "", ""), head)
    assert read_ledger(champion_1, "tiny").pending
    assert called(champion_1)["champion"] == 1
    reconcile(champion_1, "tiny", NOON)
    assert called(champion_1) == {"champion": 3, "previous": 1}
    assert not read_ledger(champion_1, "tiny").pending
    assert len(list_entries(champion_1, "tiny")) == 2


def test_entry_is_marked_once_it_is_applied(tracking):
    entry = promote(tracking, 1, None)
    client = client_of(tracking)
    assert client.get_model_version(LEDGER_NAME, "1").tags[APPLIED] == "1"
    assert client.get_model_version(LEDGER_NAME, "1").description == str(entry)
    assert client.get_registered_model(LEDGER_NAME).tags[HEAD] == entry.hash


def test_champion_at_a_time(tracking):
    client_of(tracking).set_registered_model_alias("tiny", "champion", "2")
    promote(tracking, 3, 2, NOON)
    promote(tracking, 7, 3, NOON + timedelta(hours=1))
    told = list_entries(tracking, "tiny")
    assert champion_at(told, NOON - timedelta(days=1)) == 2
    assert champion_at(told, NOON) == 3
    assert champion_at(told, NOON + timedelta(minutes=59)) == 3
    assert champion_at(told, NOON + timedelta(hours=1)) == 7
    assert champion_at((), NOON) is None


def test_empty_name_selects_the_only_model(store):
    store.restore("start")
    tracking = store.tracking
    with pytest.raises(ModelNotFound, match=r"mlflow\.db.* none.*regraft train"):
        resolve_model_name(tracking, "")
    fill(tracking, 1)
    promote(tracking, 1, None)
    assert resolve_model_name(tracking, "") == "tiny"  # its ledger is no model
    with pytest.raises(ModelNotFound, match=r" tinny .*mlflow\.db.* tiny\."):
        resolve_model_name(tracking, "tinny")
    client_of(tracking).create_registered_model("twin")
    with pytest.raises(ModelNotFound, match=r"mlflow\.db.* tiny, twin\."):
        resolve_model_name(tracking, "")


def test_lock_that_is_never_released_is_reported(tracking, monkeypatch):
    monkeypatch.setattr("regraft.registry.champion._LOCK_TIMEOUT_S", 0.1)
    with (
        FileLock(f"{tracking.uri.removeprefix('sqlite:///')}.champion.lock"),
        pytest.raises(RegistryError, match=r" 0\.1 s .*\.champion\.lock"),
    ):
        promote(tracking, 1, None)
    assert promote(tracking, 1, None).after == 1


@contextmanager
def forked_server(backend: TrackingConfig, folder: Path):
    """Run the web application of `mlflow server` in a forked process, with MLflow imported."""
    listener = socket.create_server(("127.0.0.1", 0))  # so that requests wait until it is up
    arguments = (listener, backend.uri, str(folder / "artifacts"))
    context = multiprocessing.get_context("fork")
    process = context.Process(target=serve_application, args=arguments)
    process.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        process.kill()
        process.join()
        listener.close()


def serve_application(listener: socket.socket, backend_uri: str, artifacts: str):
    warnings.simplefilter("ignore")
    os.environ |= {
        "_MLFLOW_SERVER_FILE_STORE": backend_uri,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
    }
    from mlflow.server import app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    address = listener.getsockname()
    make_server(*address, app, threaded=True, fd=listener.fileno()).serve_forever()


@contextmanager
def command_server(backend: TrackingConfig, folder: Path):
    """Run `mlflow server` as a command."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", backend.uri, "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_for(port: int, process: subprocess.Popen, limit_s: float = 60):
    until = time.monotonic() + limit_s
    while time.monotonic() < until and process.poll() is None:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the MLflow server did not start")


@pytest.mark.parametrize(
    "start", [forked_server, pytest.param(command_server, marks=pytest.mark.slow)]
)
def test_ledger_works_on_an_mlflow_server_without_a_lock(tmp_path, start):
    """Four clients promote at once; only MLflow's numbering orders their entries."""
    with start(tracking_in(tmp_path), tmp_path) as uri:
        check_racing_clients(TrackingConfig(uri=uri, name="tiny"))


def check_racing_clients(server: TrackingConfig):
    fill(server, 5)
    promote(server, 1, None)

    def bid(number: int) -> int:
        try:
            return promote(server, number, 1).after or 0
        except ChampionMoved:
            return 0

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(bid, range(2, 6)))
    (winner,) = [number for number in said if number]
    assert called(server) == {"champion": winner, "previous": 1}
    assert list_faults(server, "tiny") == ()
    assert [e.after for e in list_entries(server, "tiny")] == [1, winner]
    record_decision(server, "tiny", DecisionRecord("keep", "", "ä tie / a line", WHO), NOON)
    assert back(server).after == 1
    assert called(server) == {"champion": 1}
    assert list_faults(server, "tiny") == ()
    assert registry.list_versions(server).name.unique().tolist() == ["tiny"]


def test_ledger_and_rollback_of_real_models(tmp_path, monkeypatch):
    """Versions with files, from register()."""
    monkeypatch.chdir(tmp_path)
    tracking = Store(tmp_path, registered_pair()).tracking
    promote_all(tracking, 1, 2)
    back(tracking)
    served = registry.load(tracking, registry.resolve(tracking, ""))
    assert served.weights["head.bias"].equal(
        weak_model().challenger.classifier.weights["head.bias"]
    )
    assert called(tracking) == {"challenger": 2, "champion": 1}


def invoke(app, *words: str):
    from typer import Typer

    if not isinstance(app, Typer):
        one = Typer()
        one.command()(app)
        app = one
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def there(champions_1_3_7, monkeypatch):
    """A state folder with three promotions; its path, and its store."""
    root = Path(champions_1_3_7.artifacts_url).parent
    for name, value in environment(open_state(root), debug=False).items():
        monkeypatch.setenv(name, value)
    return str(root), champions_1_3_7


def test_ledger_verify_prints_the_number_of_entries_and_the_head(there):
    state, tracking = there
    said = invoke(ledger_app, "verify", "--state", state)
    head = list_entries(tracking, "tiny")[-1].hash
    assert re.fullmatch(rf"tiny: 3 .* {head}\n", said.output)
    client_of(tracking).delete_model_version(LEDGER_NAME, "2")
    said = invoke(ledger_app, "verify", "tiny", "--state", state)
    assert isinstance(said.exception, LedgerBroken)
    assert said.exception.exit_code == 6
    shown = invoke(history, "--state", state)
    assert list_faults(tracking, "tiny")[0] in shown.output


def test_history_prints_the_decisions_and_the_champion_at_a_time(there):
    state, tracking = there
    lines = invoke(history, "--state", state).output.splitlines()
    assert lines[0].split() == ["when", "who", "action", "champion", "verdict", "reason"]
    assert lines[2].split("  ")[0] == "2026-11-24 13:00:00"
    assert "v1 -> v3" in lines[2]
    assert lines[-1].endswith(" tiny v7")
    told = invoke(history, "--as-of", "2026-11-24T13:30", "--state", state, "--json").output
    answer = json.loads(told)
    assert (answer["champion"], answer["as_of"]) == (3, "2026-11-24T13:30:00+00:00")
    assert answer["entries"] == [asdict(entry) for entry in list_entries(tracking, "tiny")[:2]]
    then = invoke(history, "--as-of", "2026-11-23", "--state", state).output
    _, served = then.splitlines()  # the first says that nothing was decided
    assert "2026-11-23 23:59:59 UTC" in served
    assert served.endswith(" tiny none")
    client_of(tracking).set_registered_model_alias("tiny", "champion", "5")
    told = invoke(history, "--state", state).output.splitlines()
    assert told[len(lines) - 1].endswith(" tiny v5")
    assert len(told) == len(lines) + 1  # and that the ledger does not say so yet


def test_invalid_date_is_refused():
    assert parse_moment("2026-11-24T12:00:00Z") == NOON
    with pytest.raises(ConfigError, match=r"--as-of.* 'yesterday'"):
        parse_moment("yesterday")


def test_rollback_command_prints_the_champion(there):
    state, tracking = there
    said = invoke(rollback, "--reason", "too many blue ones", "--state", state)
    assert re.fullmatch(r"tiny v3 .* v7 .*entry 4\)\n", said.output)
    last = list_entries(tracking, "tiny")[-1]
    assert (last.who, last.reason) == (current_user(), "too many blue ones")
    assert "@" in last.who
    assert invoke(rollback, "tiny", "--to", "1", "--state", state).output.startswith("tiny v1 ")
