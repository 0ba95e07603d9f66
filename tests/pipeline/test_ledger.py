"""What the ledger and the champion's transaction promise, in a real MLflow registry."""

import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient
from tiny_challenger import put, tracking_in, trained
from typer.testing import CliRunner

from commands.history import history, moment_of
from commands.ledger import ledger_app
from commands.rollback import rollback
from regraft import registry
from regraft.config import TrackingConfig
from regraft.errors import (
    ChampionMoved,
    ConfigError,
    LedgerBroken,
    ModelNotFound,
    NoWayBack,
    RegistryError,
)
from regraft.registry.champion import (
    Move,
    Note,
    chain,
    champion_at,
    move_champion,
    record,
    roll_back,
    settle,
)
from regraft.registry.ledger import (
    APPLIED,
    ENTRY,
    HASH,
    HEAD,
    MAX_REASON,
    RECORDED,
    Draft,
    Entry,
    append,
    entries,
    faults,
    meant,
    read,
    verified,
)
from regraft.relocate import relocate_database
from regraft.state import who_am_i

pytestmark = pytest.mark.pipeline

WHO = "ada@engine"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
BOOK = "tiny.ledger"


@pytest.fixture
def tracking(tmp_path):
    """A store of its own with versions 1 to 9 of the model "tiny"; none serves."""
    tracking = tracking_in(tmp_path)
    fill(tracking, 9)
    return tracking


def fill(tracking: TrackingConfig, n_versions: int):
    """Versions that say they were checked to their end; there is nothing in them."""
    client = client_of(tracking)
    client.create_registered_model("tiny")
    for number in range(n_versions):
        seal = {"content_hash": f"{number}"}
        client.create_model_version("tiny", "regraft:/nothing", tags=seal)


def client_of(tracking: TrackingConfig) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)


def promote(tracking, after: int, expected: int | None, at: datetime = NOON) -> Entry:
    move = Move("promote", after, f"verdict-{after}", "better", WHO)
    return move_champion(tracking, "tiny", move, expected, at)


def back(tracking, to: int | None = None) -> Entry:
    return roll_back(tracking, "tiny", WHO, "it was worse", NOON, to)


def called(tracking) -> dict[str, int]:
    return registry.aliases(tracking, "tiny")


def walk(tracking, *versions: int):
    """Promotes them one after the other, an hour apart."""
    for hours, (before, after) in enumerate(zip((None, *versions), versions, strict=False)):
        promote(tracking, after, before, NOON + timedelta(hours=hours))


def test_every_decision_is_an_entry_sealed_over_the_one_before(tracking):
    walk(tracking, 1, 3)
    record(tracking, "tiny", Note("keep", "verdict-4", "a tie", WHO), NOON)
    told = entries(tracking, "tiny")
    assert faults(tracking, "tiny") == ()
    assert [(e.number, e.action, e.before, e.after) for e in told] == [
        (1, "promote", None, 1),
        (2, "promote", 1, 3),
        (3, "keep", 3, 3),
    ]
    assert [e.previous for e in told] == ["", told[0].hash, told[1].hash]
    assert told[2].verdict == "verdict-4"
    assert (
        str(told[1]) == "2026-11-24T13:00:00+00:00 ada@engine: v3 became champion after v1. better"
    )
    assert called(tracking) == {"champion": 3, "previous": 1}
    assert registry.list_versions(tracking).name.unique().tolist() == ["tiny"]
    assert registry.resolve(tracking, "").version == 3


def test_ledger_and_registry_are_read_to_their_last_page(tracking, monkeypatch):
    walk(tracking, 1, 3, 7)
    client_of(tracking).create_registered_model("a twin")
    whole, listed = read(tracking, "tiny"), registry.list_versions(tracking)
    for size in (1, 2, 3):
        monkeypatch.setattr("regraft.registry.versions._PAGE", size)
        assert read(tracking, "tiny") == whole
        assert registry.list_versions(tracking).equals(listed)
        assert meant(tracking, "a twin") == "a twin"
    assert len(whole.entries) == 3
    assert len(listed) == 9


def test_reason_is_cut_to_what_a_registry_takes_before_it_is_sealed(tracking):
    said = "two\nlines\0 " + "ä" * 3000
    entry = record(tracking, "tiny", Note("hold", "", said, WHO), NOON)
    assert entry == entries(tracking, "tiny")[0]
    assert len(entry.reason) == MAX_REASON
    assert entry.reason.startswith("two lines ä")
    assert entry.reason.endswith("ä…")
    assert faults(tracking, "tiny") == ()


def test_ledger_of_a_moved_state_folder_still_verifies(tracking):
    """The paths in its databases are made to name the new place; sealed text must not change."""
    folder = Path(tracking.uri.removeprefix("sqlite:///")).parent
    record(tracking, "tiny", Note("keep", "", f"see {folder}/reports/a.html", WHO), NOON)
    assert relocate_database(folder / "mlflow.db", folder, Path("/elsewhere")) > 0
    assert faults(tracking, "tiny") == ()
    assert entries(tracking, "tiny")[0].reason == f"see {folder}/reports/a.html"


def edit(tracking, number: int, **changes: object):
    """Changes what an entry says, as somebody would who can write tags."""
    client = client_of(tracking)
    said = json.loads(client.get_model_version(BOOK, str(number)).tags[ENTRY])
    client.set_model_version_tag(BOOK, str(number), ENTRY, json.dumps(said | changes))


def test_changed_entry_is_found(tracking):
    walk(tracking, 1, 3, 7)
    edit(tracking, 2, after=4)
    assert faults(tracking, "tiny") == (
        "Entry 2 was changed: its hash is not that of what it says.",
    )
    client_of(tracking).set_model_version_tag(BOOK, "2", ENTRY, "no entry")
    assert faults(tracking, "tiny")[0] == "Entry 2 cannot be read: it is not what was written."


def test_entry_that_was_changed_and_sealed_again_is_found(tracking):
    """By the one after it; the newest one by the mark on the registered model."""
    from hashlib import sha256

    walk(tracking, 1, 3, 7)
    sound = client_of(tracking).get_model_version(BOOK, "2").tags
    for number, told in ((2, "Entry 3 follows an entry that is not there."), (3, "tail was cut")):
        edit(tracking, number, who="eve@engine")
        said = client_of(tracking).get_model_version(BOOK, str(number)).tags[ENTRY]
        seal = sha256(said.encode()).hexdigest()
        client_of(tracking).set_model_version_tag(BOOK, str(number), HASH, seal)
        assert told in " ".join(faults(tracking, "tiny"))
        for tag in (ENTRY, HASH):
            client_of(tracking).set_model_version_tag(BOOK, "2", tag, sound[tag])


def test_deleted_entry_is_found(tracking):
    walk(tracking, 1, 3, 7)
    client_of(tracking).delete_model_version(BOOK, "2")
    assert faults(tracking, "tiny") == (
        "Entry 2 is missing: it was deleted.",
        "Entry 3 follows an entry that is not there.",
    )


@pytest.mark.parametrize(
    ("n_cut", "told"), [(1, "It ends with entry 2, but it had an entry"), (3, "no entry at all")]
)
def test_tail_that_was_cut_off_is_found(tracking, n_cut, told):
    walk(tracking, 1, 3, 7)
    for number in range(4 - n_cut, 4):
        client_of(tracking).delete_model_version(BOOK, str(number))
    (fault,) = faults(tracking, "tiny")
    assert told in fault
    assert fault.endswith("its tail was cut off.")


def test_entries_that_changed_places_are_found(tracking):
    walk(tracking, 1, 3, 7)
    client = client_of(tracking)
    second, third = (client.get_model_version(BOOK, number).tags for number in ("2", "3"))
    for number, tags in (("2", third), ("3", second)):
        for tag in (ENTRY, HASH):
            client.set_model_version_tag(BOOK, number, tag, tags[tag])
    assert "Entry 2 follows an entry that is not there." in faults(tracking, "tiny")


def test_other_model_of_that_name_is_no_ledger(tracking):
    client_of(tracking).create_registered_model(BOOK)
    assert faults(tracking, "tiny") == (
        "tiny.ledger has lost its tag regraft.ledger, or is another model of that name.",
    )


def test_broken_ledger_stops_every_move_and_says_what_to_do(tracking):
    walk(tracking, 1, 3, 7)
    edit(tracking, 1, who="eve@engine")
    edit(tracking, 2, who="eve@engine")
    for act in (lambda: promote(tracking, 9, 7), lambda: back(tracking)):
        with pytest.raises(LedgerBroken, match=r"as it was written, but: Entry 1 was changed: .*"):
            act()
    assert called(tracking) == {"champion": 7, "previous": 3}
    with pytest.raises(LedgerBroken, match=r"\(and 1 more\).*delete the registered model tiny"):
        verified(tracking, "tiny")
    client_of(tracking).delete_registered_model(BOOK)  # as the text says
    [gone] = faults(tracking, "tiny")
    assert gone == f"Its registered model {BOOK} is gone, though decisions were recorded there."
    client_of(tracking).delete_registered_model_tag("tiny", RECORDED)
    assert promote(tracking, 9, 7).number == 1
    assert called(tracking) == {"champion": 9, "previous": 7}


def test_bid_that_names_an_older_head_has_lost_and_is_no_fault(tracking):
    walk(tracking, 1, 3)
    first, second = entries(tracking, "tiny")
    draft = Draft(NOON.isoformat(), WHO, "promote", "tiny", 1, 4, "", "")
    with pytest.raises(ChampionMoved, match=r"another was faster: .*v3 became champion after v1.*"):
        append(tracking, draft, first.hash)
    assert entries(tracking, "tiny") == (first, second)
    assert faults(tracking, "tiny") == ()
    assert promote(tracking, 7, 3).number == 4  # bid 3 leaves a gap
    assert faults(tracking, "tiny") == ()
    client_of(tracking).delete_model_version(BOOK, "3")  # a lost bid is a record too
    assert faults(tracking, "tiny") == ("Entry 3 is missing: it was deleted.",)


def test_champion_that_moved_is_not_moved_again(tracking):
    walk(tracking, 1, 3)
    with pytest.raises(ChampionMoved, match=r"Expected v1 to be the champion of tiny, as it was w"):
        promote(tracking, 7, 1)
    with pytest.raises(ChampionMoved, match=r"Expected none .* but v3 is\. Last entry .* v3 becam"):
        promote(tracking, 7, None)
    assert called(tracking) == {"champion": 3, "previous": 1}
    assert len(entries(tracking, "tiny")) == 2


def test_version_that_is_not_there_never_becomes_champion(tracking):
    walk(tracking, 1)
    with pytest.raises(ModelNotFound, match="tiny/77"):
        promote(tracking, 77, 1)
    assert len(entries(tracking, "tiny")) == 1


def test_rollback_goes_to_the_version_that_was_champion(tracking):
    """Version 8 was never promoted."""
    walk(tracking, 7, 9)
    entry = back(tracking)
    assert (entry.action, entry.before, entry.after, entry.reason) == (
        "rollback",
        9,
        7,
        "it was worse",
    )
    assert called(tracking) == {"champion": 7}


def test_rollback_after_a_rollback_goes_further_back(tracking):
    walk(tracking, 1, 3, 7)
    assert called(tracking) == {"champion": 7, "previous": 3}
    assert back(tracking).after == 3
    assert called(tracking) == {"champion": 3, "previous": 1}
    assert back(tracking).after == 1
    assert called(tracking) == {"champion": 1}
    assert chain(entries(tracking, "tiny")) == (1,)
    with pytest.raises(NoWayBack, match=r"found none: v1 serves now, .*that led there are: v1\."):
        back(tracking)


def test_rollback_can_name_any_version_that_was_champion(tracking):
    walk(tracking, 1, 3, 7)
    assert back(tracking, to=1).after == 1
    assert chain(entries(tracking, "tiny")) == (1,)
    assert back(tracking, to=7).after == 7  # the rollback was the mistake
    assert chain(entries(tracking, "tiny")) == (1, 7)
    told = r"before, got 8: it never was\. v7 serves now; .*newest last: v1, v7\. Name one of them"
    with pytest.raises(NoWayBack, match=told):
        back(tracking, to=8)
    with pytest.raises(NoWayBack, match=r"got 7: it serves already"):
        back(tracking, to=7)


def test_no_way_back_without_a_record(tracking):
    with pytest.raises(NoWayBack, match=r"none serves now, .*led there are: none is recorded"):
        back(tracking)


def test_champion_from_before_the_ledger_is_the_bottom_of_the_chain(tracking):
    client_of(tracking).set_registered_model_alias("tiny", "champion", "2")
    promote(tracking, 5, 2)
    assert chain(entries(tracking, "tiny")) == (2, 5)
    assert back(tracking).after == 2


def test_rollback_to_a_version_that_is_gone_names_the_next_earlier(tracking):
    walk(tracking, 1, 3, 7)
    client_of(tracking).delete_model_version("tiny", "3")
    told = r"Expected v3 of tiny, .*cannot be loaded from there: .*rollback tiny --to 1`"
    with pytest.raises(NoWayBack, match=told):
        back(tracking)
    assert called(tracking) == {"champion": 7}
    assert back(tracking, to=1).after == 1
    walk_on = promote(tracking, 9, 1)
    assert walk_on.number == 5
    client_of(tracking).delete_model_version("tiny", "1")
    with pytest.raises(NoWayBack, match=r"No earlier champion is left\."):
        back(tracking)


def test_previous_passes_over_a_version_that_is_gone(tracking):
    walk(tracking, 1, 3, 7)
    client_of(tracking).delete_model_version("tiny", "3")
    promote(tracking, 9, 7)
    assert back(tracking).after == 7
    assert called(tracking) == {"champion": 7, "previous": 1}


def test_move_by_hand_is_written_down_and_left_alone(tracking):
    walk(tracking, 1, 3)
    client_of(tracking).set_registered_model_alias("tiny", "champion", "5")
    settle(tracking, "tiny", NOON)
    last = entries(tracking, "tiny")[-1]
    assert (last.action, last.before, last.after) == ("outside", 3, 5)
    assert last.who == "somebody outside of Regraft"
    assert called(tracking) == {"champion": 5, "previous": 3}
    assert chain(entries(tracking, "tiny")) == (1, 3, 5)
    settle(tracking, "tiny", NOON)
    assert len(entries(tracking, "tiny")) == 3
    client_of(tracking).set_registered_model_alias("tiny", "champion", "1")
    settle(tracking, "tiny", NOON)
    assert chain(entries(tracking, "tiny")) == (1,)
    assert called(tracking) == {"champion": 1}


def test_champion_that_was_taken_away_by_hand_can_be_brought_back(tracking):
    walk(tracking, 1, 3)
    client_of(tracking).delete_registered_model_alias("tiny", "champion")
    assert back(tracking).after == 3
    told = [(e.action, e.before, e.after) for e in entries(tracking, "tiny")[2:]]
    assert told == [("outside", 3, None), ("rollback", None, 3)]
    assert called(tracking) == {"champion": 3, "previous": 1}


def test_decided_version_that_was_deleted_before_it_served_stops_nobody(tracking):
    walk(tracking, 1)
    head = read(tracking, "tiny").head
    append(tracking, Draft(NOON.isoformat(), WHO, "promote", "tiny", 1, 3, "", ""), head)
    client_of(tracking).delete_model_version("tiny", "3")
    assert promote(tracking, 5, 1).after == 5  # settles first
    told = [(e.action, e.before, e.after) for e in entries(tracking, "tiny")[1:]]
    assert told == [("promote", 1, 3), ("outside", 3, 1), ("promote", 1, 5)]
    assert called(tracking) == {"champion": 5, "previous": 1}


def test_what_a_killed_process_began_is_finished_by_the_next(tracking):
    walk(tracking, 1)
    head = read(tracking, "tiny").head
    append(tracking, Draft(NOON.isoformat(), WHO, "promote", "tiny", 1, 3, "", ""), head)
    assert read(tracking, "tiny").pending
    assert called(tracking)["champion"] == 1
    settle(tracking, "tiny", NOON)
    assert called(tracking) == {"champion": 3, "previous": 1}
    assert not read(tracking, "tiny").pending
    assert len(entries(tracking, "tiny")) == 2


def test_entry_says_whether_it_is_carried_out(tracking):
    entry = promote(tracking, 1, None)
    client = client_of(tracking)
    assert client.get_model_version(BOOK, "1").tags[APPLIED] == "1"
    assert client.get_model_version(BOOK, "1").description == str(entry)
    assert client.get_registered_model(BOOK).tags[HEAD] == entry.hash


def test_who_served_at_a_time(tracking):
    client_of(tracking).set_registered_model_alias("tiny", "champion", "2")
    promote(tracking, 3, 2, NOON)
    promote(tracking, 7, 3, NOON + timedelta(hours=1))
    told = entries(tracking, "tiny")
    assert champion_at(told, NOON - timedelta(days=1)) == 2
    assert champion_at(told, NOON) == 3
    assert champion_at(told, NOON + timedelta(minutes=59)) == 3
    assert champion_at(told, NOON + timedelta(hours=1)) == 7
    assert champion_at((), NOON) is None


def test_nameless_model_is_the_only_one(tmp_path):
    tracking = tracking_in(tmp_path)
    with pytest.raises(ModelNotFound, match=r"Expected one model in .*found none\. Run `reg"):
        meant(tracking, "")
    fill(tracking, 1)
    promote(tracking, 1, None)
    assert meant(tracking, "") == "tiny"  # its ledger is no model
    with pytest.raises(ModelNotFound, match=r"the model tinny in .*found tiny\. Name one of these"):
        meant(tracking, "tinny")
    client_of(tracking).create_registered_model("twin")
    with pytest.raises(ModelNotFound, match=r"found tiny, twin\. Name one of these"):
        meant(tracking, "")


def test_turn_that_never_comes_is_told(tracking, monkeypatch):
    monkeypatch.setattr("regraft.registry.champion._LOCK_TIMEOUT_S", 0.1)
    with (
        FileLock(f"{tracking.uri.removeprefix('sqlite:///')}.champion.lock"),
        pytest.raises(RegistryError, match=r"Waited 0\.1 s for my turn .*the lock goes with it"),
    ):
        promote(tracking, 1, None)
    assert promote(tracking, 1, None).after == 1


@pytest.fixture
def server(tmp_path):
    """A real MLflow server on this machine, as a store."""
    backend = tracking_in(tmp_path)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", backend.uri, "--workers", "1"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    try:
        wait_for(port, process)
        yield TrackingConfig(uri=f"http://127.0.0.1:{port}", name="tiny")
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
    raise AssertionError("the MLflow server does not come up")


def test_ledger_lives_on_an_mlflow_server_where_no_lock_is(server):
    """Four clients promote at once; the order that MLflow gives is all that keeps them apart."""
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
    assert faults(server, "tiny") == ()
    assert [e.after for e in entries(server, "tiny")] == [1, winner]
    record(server, "tiny", Note("keep", "", "ä tie / a line", WHO), NOON)
    assert back(server).after == 1
    assert called(server) == {"champion": 1}
    assert faults(server, "tiny") == ()
    assert registry.list_versions(server).name.unique().tolist() == ["tiny"]


def test_ledger_and_rollback_of_real_models(tmp_path, monkeypatch):
    """Versions as registration makes them, with their files."""
    monkeypatch.chdir(tmp_path)
    tracking = tracking_in(tmp_path)
    made = trained()
    versions = []
    for bias in (0.0, 1.0):
        weights = dict(made.challenger.classifier.weights)
        weights["head.bias"] = weights["head.bias"] + bias
        classifier = replace(made.challenger.classifier, weights=weights)
        challenger = replace(made.challenger, classifier=classifier)
        versions.append(put(replace(made, challenger=challenger), tracking))
    walk(tracking, 1, 2)
    back(tracking)
    served = registry.load(tracking, registry.resolve(tracking, ""))
    assert served.content_hash == versions[0].content_hash
    assert called(tracking) == {"challenger": 2, "champion": 1}


def invoke(app, *words: str):
    from typer import Typer

    if not isinstance(app, Typer):
        one = Typer()
        one.command()(app)
        app = one
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def there(template, tmp_path, monkeypatch):
    """A state folder with three promotions; its path, and its store."""
    from tests.pipeline.conftest import copy_of, reset_zenml

    state = copy_of(template, tmp_path / "state folder", monkeypatch)
    tracking = TrackingConfig(uri=state.tracking_uri, name="tiny")
    fill(tracking, 9)
    walk(tracking, 1, 3, 7)
    yield str(state.root), tracking
    reset_zenml()


def test_ledger_verify_says_how_many_and_the_head(there):
    state, tracking = there
    said = invoke(ledger_app, "verify", "--state", state)
    head = entries(tracking, "tiny")[-1].hash
    assert said.output == f"tiny: 3 entries, as they were written, head {head}\n"
    client_of(tracking).delete_model_version(BOOK, "2")
    said = invoke(ledger_app, "verify", "tiny", "--state", state)
    assert isinstance(said.exception, LedgerBroken)
    assert said.exception.exit_code == 6
    shown = invoke(history, "--state", state)
    assert "Not as it was written: Entry 2 is missing" in shown.output


def test_history_tells_what_was_decided_and_what_served_then(there):
    state, tracking = there
    lines = invoke(history, "--state", state).output.splitlines()
    assert lines[0].split() == ["when", "who", "action", "champion", "verdict", "reason"]
    assert lines[2].split("  ")[0] == "2026-11-24 13:00:00"
    assert "v1 -> v3" in lines[2]
    assert lines[-1] == "Serves now: tiny v7"
    told = invoke(history, "--as-of", "2026-11-24T13:30", "--state", state, "--json").output
    answer = json.loads(told)
    assert (answer["champion"], answer["as_of"]) == (3, "2026-11-24T13:30:00+00:00")
    assert answer["entries"] == [asdict(entry) for entry in entries(tracking, "tiny")[:2]]
    then = invoke(history, "--as-of", "2026-11-23", "--state", state).output
    assert then.splitlines() == [
        "Nothing was decided by then.",
        "Served at 2026-11-23 23:59:59 UTC: tiny none",
    ]
    client_of(tracking).set_registered_model_alias("tiny", "champion", "5")
    assert "the next decision will record it" in invoke(history, "--state", state).output


def test_date_that_is_none_is_told():
    assert moment_of("2026-11-24T12:00:00Z") == NOON
    with pytest.raises(ConfigError, match=r"for --as-of, got 'yesterday'\. Write one of these"):
        moment_of("yesterday")


def test_rollback_command_says_what_serves(there):
    state, tracking = there
    said = invoke(rollback, "--reason", "too many blue ones", "--state", state)
    assert said.output == "tiny v3 serves now; before: v7 (entry 4 of the ledger)\n"
    last = entries(tracking, "tiny")[-1]
    assert (last.who, last.reason) == (who_am_i(), "too many blue ones")
    assert "@" in last.who
    assert invoke(rollback, "tiny", "--to", "1", "--state", state).output.startswith("tiny v1 serv")
