"""Decisions of `regraft retrain` around a training: when to skip it, and how an attempt ends.

Nothing is trained here, and neither ZenML nor a network is needed.
"""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from memory_registry import use_memory_registry
from tiny import photo_file, write_files

from regraft.core.config import apply_overrides, load_config
from regraft.core.errors import AlreadyRunning, ModelNotFound, NoPhotos
from regraft.core.state import current_process, exclusive_lock, make_marker, open_state
from regraft.operations import journal
from regraft.operations.advice import ClassDelta, Delta, Reason, RetrainAdvice
from regraft.operations.journal import Attempt
from regraft.operations.retrain.conclude import (
    RunOutcome,
    RunSnapshot,
    Trained,
    attempt_without_training,
    changed_settings,
    conclude,
    conclude_run,
    repeat_attempt,
    sum_up,
    take_snapshot,
)
from regraft.operations.retrain.guards import find_weakened
from regraft.operations.retrain.unchanged import find_unchanged_attempt, read_aliases
from regraft.operations.workflows.retrain import RetrainRequest, retrain_config
from regraft.operations.workflows.retrain import attempt as run_attempt
from regraft.operations.workflows.settings import complete_config

NAME = "cats"
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
FIELDS = ("version", "verdict", "champion", "accuracy", "n_test", "flips", "started_from")


@pytest.fixture
def state(tmp_path):
    return open_state(tmp_path / "state")


@pytest.fixture
def photos(tmp_path):
    files = {f"{label}/{n}.png": photo_file(n) for label in ("cat", "dog") for n in range(3)}
    return write_files(tmp_path / NAME, files)


@pytest.fixture
def config(state, photos):
    """A complete configuration, with all paths in the state folder."""
    set_aliases(state, champion=1, challenger=1)
    return complete_config(load_config(None), str(photos), NAME, state)


def set_aliases(state, **aliases):
    """The only table of a SQLite registry that is read, as in MLflow 3.17."""
    with closing(sqlite3.connect(state.mlflow_database)) as database, database:
        database.execute("DROP TABLE IF EXISTS registered_model_aliases")
        database.execute(
            "CREATE TABLE registered_model_aliases (name TEXT, alias TEXT, version INTEGER)"
        )
        rows = [(NAME, alias, version) for alias, version in aliases.items()]
        database.executemany("INSERT INTO registered_model_aliases VALUES (?, ?, ?)", rows)


def advice(decision="skip", n_added=0, **changes) -> RetrainAdvice:
    delta = Delta(1, (ClassDelta("cat", 50, n_added, 0, 0, 0), ClassDelta("dog", 50, 0, 0, 0, 0)))
    reason = f"{decision} for {n_added}"
    lines = (Reason("photos", reason, "info"), Reason("drift", "p = 0.002", "for"))
    return replace(RetrainAdvice(decision, reason, lines, delta), **changes)


TRAINED = Trained(
    outcome="promote",
    reason="six wins",
    version=2,
    verdict="verdict-2",
    champion=2,
    accuracy=0.9,
    accuracy_low=0.8,
    accuracy_high=0.95,
    n_test=40,
    started_from="warm",
    interpolation="0.5",
    flips=3,
    flips_saved=1,
)


def course(config, given: RetrainAdvice, trained: Trained | None = None) -> RunOutcome:
    snapshot = take_snapshot(config, NOW - timedelta(minutes=3))
    return RunOutcome(snapshot, given, n_photos=6, n_waiting=2, run="run-1", trained=trained)


def ended(config, given=None, trained=None, now=NOW) -> Attempt:
    """An attempt that is in the journal."""
    return conclude_run(course(config, given or advice(), trained), config, now)


def ended_weakened(config, decision="retrain", trained=None) -> Attempt:
    """An attempt in the journal, with the guards that its run found to be weaker than before."""
    result = course(config, advice(decision), trained)
    snapshot = replace(result.snapshot, weakened=weakened_since_last(config))
    return conclude_run(replace(result, snapshot=snapshot), config, NOW)


def weakened_since_last(config) -> dict[str, str]:
    return find_weakened(config) if journal.last_judged(*journal_of(config)) else {}


def journal_of(config) -> tuple[str, str]:
    return config.retrain.journal_url, NAME


def seen(config) -> str:
    return take_snapshot(config, NOW).fingerprint


def past(config) -> list[Attempt]:
    return journal.read_attempts(config.retrain.journal_url, NAME)


class FailingRunner:
    """A runner whose pipeline runs end with an error."""

    def __init__(self, error: BaseException):
        self.error = error

    def run(self, *arguments, **options):
        raise self.error


NO_RUN = FailingRunner(AssertionError("a pipeline run started"))


def attempt(config, state, runner=NO_RUN) -> Attempt:
    return run_attempt(config, state, runner).attempt


def last_config(photos, state, file=None, overrides=(), name=NAME):
    return retrain_config(RetrainRequest(str(photos), file, overrides, name), state)


# whether anything has changed


def test_the_second_time_nothing_runs_at_all(config, state):
    first = ended(config)
    second, third = attempt(config, state), attempt(config, state)
    for one in (second, third):
        assert (one.outcome, one.advice, one.run, one.version) == ("skip", None, "", None)
        assert (one.n_photos, one.fingerprint) == (first.n_photos, first.fingerprint)
        assert first.ended[:16] in one.reason
    assert past(config) == [first, second, third]


def test_after_a_training_nothing_has_changed_either(config):
    trained = ended(config, advice("retrain", 5), TRAINED)
    assert find_unchanged_attempt(config, seen(config)) == trained
    same = repeat_attempt(trained, take_snapshot(config, NOW), config, NOW)
    assert (same.outcome, same.version) == ("skip", None)
    assert trained.ended[:16] in same.reason


@pytest.mark.parametrize("setting", ["tune.seed=5", "evaluate.n_gallery=1"])
def test_another_configuration_is_no_skip_without_a_thought(config, setting):
    last = ended(config)
    assert find_unchanged_attempt(config, seen(config)) == last
    changed = apply_overrides(config, (setting,))
    assert find_unchanged_attempt(changed, seen(changed)) is None


def test_settings_that_decide_nothing_about_a_model_change_nothing(config):
    last = ended(config)
    changed = apply_overrides(config, ("batch.shard_photos=7",))
    assert find_unchanged_attempt(changed, seen(changed)) == last


def test_another_photo_is_something_new(config, photos):
    ended(config)
    (photos / "cat" / "new.png").write_bytes(photo_file(9))
    assert find_unchanged_attempt(config, seen(config)) is None


@pytest.mark.parametrize(
    "aliases", [{"champion": 2, "challenger": 2}, {"champion": 1}, {"champion": 1, "previous": 1}]
)
def test_what_somebody_did_to_the_registry_is_not_skipped(config, state, aliases):
    last = ended(config)
    assert last.aliases == "challenger 1, champion 1"
    set_aliases(state, **aliases)
    assert find_unchanged_attempt(config, seen(config)) is None
    ended(config)
    assert find_unchanged_attempt(config, seen(config)) is not None


def test_a_registry_that_cannot_be_asked_is_looked_at_the_long_way(config, state):
    ended(config)
    state.mlflow_database.write_bytes(b"no database")
    assert read_aliases(config.tracking) is None
    assert find_unchanged_attempt(config, seen(config)) is None
    state.mlflow_database.unlink()
    assert read_aliases(config.tracking) is None
    server = config.tracking.model_copy(update={"uri": "https://mlflow.example"})
    assert read_aliases(server) is None


@pytest.mark.parametrize("outcome", ["failed", "killed", "postpone"])
def test_what_came_to_no_end_is_tried_again(config, outcome):
    conclude(
        attempt_without_training(config, take_snapshot(config, NOW), outcome, "not now", NOW),
        config,
    )
    assert find_unchanged_attempt(config, seen(config)) is None


def test_a_champion_that_won_without_the_names_asked_for_is_revised_next(config, state):
    lines = (Reason("photos", "new", "for"), Reason("revision", "cat is called kitty", "info"))
    trained = replace(TRAINED, outcome="keep", version=2, champion=1)
    asked = replace(advice("retrain", 5), reasons=lines)
    assert ended(config, asked, trained).awaits_revision
    assert find_unchanged_attempt(config, seen(config)) is None
    won = replace(TRAINED, outcome="promote", verdict="another")
    assert not ended(config, asked, won).awaits_revision
    assert not ended(config, replace(asked, decision="revise"), trained).awaits_revision
    assert find_unchanged_attempt(config, seen(config)) is not None


def test_too_few_new_photos_wait_until_the_champion_is_old(config):
    """The clock alone may change the decision, so with an age limit the advice is made anew."""
    last = ended(config, advice("skip", n_added=1))
    assert find_unchanged_attempt(config, seen(config)) == last
    aging = apply_overrides(config, ("retrain.max_age_days=30",))
    ended(aging, advice("skip", n_added=1))
    assert find_unchanged_attempt(aging, seen(aging)) is None
    ended(aging, advice("skip"))
    assert find_unchanged_attempt(aging, seen(aging)) is not None


# how an attempt ends


@pytest.mark.parametrize(
    ("decision", "outcome"), [("skip", "skip"), ("postpone", "postpone"), ("retrain", "keep")]
)
def test_an_attempt_ends_as_was_advised(config, decision, outcome):
    trained = replace(TRAINED, outcome="keep", champion=1) if decision == "retrain" else None
    one = ended(config, advice(decision, 3), trained)
    assert past(config) == [one]
    assert (one.outcome, one.advice) == (outcome, advice(decision, 3))
    assert (one.n_photos, one.n_waiting, one.run, one.seconds) == (6, 2, "run-1", 180.0)
    assert one.reason == (trained.reason if trained else one.advice.reason)
    if trained:
        assert [getattr(one, name) for name in FIELDS] == [getattr(trained, n) for n in FIELDS]


@pytest.mark.parametrize(
    ("status", "outcome", "champion"),
    [
        ("promote", "promote", 2),
        ("serving", "promote", 2),
        ("keep", "keep", 1),
        ("hold", "hold", 1),
        ("pending", "pending", 1),
    ],
)
def test_a_training_is_summed_up_by_its_verdict(status, outcome, champion):
    is_serving = status in ("promote", "serving")
    verdict = SimpleNamespace(
        status=status,
        is_serving=is_serving,
        reason="why",
        challenger=2,
        champion=1,
        id="verdict-2",
        flips=(1, 2, 3),
    )
    report = SimpleNamespace(accuracy=SimpleNamespace(value=0.9, low=0.8, high=0.95), n=40)
    summed = sum_up(verdict, report, "warm", SimpleNamespace(reason="0.5", flips_saved=1))
    expected = replace(TRAINED, outcome=outcome, champion=champion, reason="why")
    assert summed == replace(expected, was_serving=status == "serving")


def test_a_training_that_only_repeats_a_promotion_is_a_skip(config):
    first = ended(config, advice("retrain", 3), TRAINED)
    same = ended(config, advice("retrain", 3), TRAINED)
    assert (first.outcome, first.version) == ("promote", 2)
    assert (same.outcome, same.version, same.verdict) == ("skip", None, "")
    assert re_version(same.reason) == 2
    other = ended(config, advice("retrain", 3), replace(TRAINED, verdict="verdict-3"))
    assert other.outcome == "promote"


def re_version(reason: str) -> int:
    """The only number in a sentence."""
    (number,) = [word for word in reason.split() if word.isdecimal()]
    return int(number)


def target_of(config, command: str, event: str):
    target = f'notify.targets=[{{kind: command, to: "{command}", of: [{event}]}}]'
    return apply_overrides(config, (target,))


def test_a_revision_that_is_the_champion_as_it_serves_changes_nothing(config):
    served = replace(TRAINED, reason="version 2 is already the champion", was_serving=True)
    found = ended(config, advice("revise"), served)
    assert (found.outcome, found.version, found.champion) == ("keep", 2, 2)
    assert found.reason.endswith("version 2 as it serves: nothing changes")


def test_what_is_told_goes_to_the_configured_target(config, tmp_path):
    one = ended(target_of(config, f"tee {tmp_path}/told", "skip"))
    message = json.loads((tmp_path / "told").read_text(encoding="utf-8"))
    assert (message["event"], message["model"]) == ("skip", NAME)
    assert message["text"] == one.reason


def test_drift_is_told_beside_the_outcome(config, tmp_path):
    telling = target_of(config, f"tee {tmp_path}/told", "drift")
    ended(telling, advice("retrain", 3), TRAINED)
    assert not (tmp_path / "told").exists()
    ended(telling, advice("retrain", 3, has_drifted=True), replace(TRAINED, verdict="verdict-3"))
    message = json.loads((tmp_path / "told").read_text(encoding="utf-8"))
    assert (message["event"], message["text"]) == ("drift", "p = 0.002")


def test_a_target_that_fails_fails_nothing(config):
    one = ended(target_of(config, "false", "skip"))
    assert past(config) == [one]
    assert one.outcome == "skip"


# attempts that fail, or are killed


def test_a_retraining_that_fails_is_written_down_and_tried_again(config, state, photos):
    ended(config)
    hidden = photos.rename(photos.with_name("away"))
    with pytest.raises(NoPhotos):
        attempt(config, state)
    hidden.rename(photos)
    failed = past(config)[-1]
    assert (failed.outcome, failed.version, failed.fingerprint) == ("failed", None, "")
    assert failed.reason.startswith("NoPhotos: ")
    assert str(photos) in failed.reason
    assert find_unchanged_attempt(config, seen(config)) is None


def test_whatever_ends_an_attempt_is_written_down(config, state):
    for number, error in enumerate((KeyboardInterrupt(), OSError("disk 7"))):
        with pytest.raises(type(error)):
            attempt(config, state, FailingRunner(error))
        assert [one.outcome for one in past(config)] == ["failed"] * (number + 1)
    assert past(config)[-1].reason == "OSError: disk 7"


def test_one_retraining_at_a_time(config, state):
    who = rf"retrain {NAME} .*\b{os.getpid()}\b"
    here = exclusive_lock(state, f"retrain {NAME}", datetime.now(UTC))
    with here, pytest.raises(AlreadyRunning, match=who):
        attempt(config, state)
    assert past(config) == []  # a refused process writes no attempt


@pytest.fixture
def memory(monkeypatch):
    """A registry in which nothing was ever registered."""
    return use_memory_registry(monkeypatch)


def left_by_a_kill(state, started: datetime):
    """The marker of a retraining of process 1, which was killed."""
    marker = make_marker(f"retrain {NAME}", 1, started)
    path = state.locks / f"retrain {NAME}.json"
    path.write_text(json.dumps(vars(marker)), encoding="utf-8")
    return path


def test_a_killed_retraining_is_found_and_named(config, state, photos, memory):
    left = left_by_a_kill(state, NOW)
    shutil.rmtree(photos)
    with pytest.raises(NoPhotos):
        attempt(config, state)
    killed, failed = past(config)
    assert (killed.outcome, failed.outcome) == ("killed", "failed")
    assert killed.started == NOW.isoformat()
    assert "process 1 on " in killed.reason
    assert not left.exists()


def test_one_that_was_killed_after_its_end_is_told_once(config, state):
    last = ended(config)
    left_by_a_kill(state, datetime.fromisoformat(last.started))
    attempt(config, state)
    assert [one.outcome for one in past(config)] == ["skip", "skip"]


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ("", "keep"),
        ("another process judged it", "killed"),
        ("it was never judged", "killed"),
        ("it was judged before", "killed"),
        ("its files are gone", "killed"),
        ("nothing was registered", "killed"),
    ],
)
def test_a_verdict_that_nobody_wrote_down_is_told_by_the_next(
    config, memory, monkeypatch, change, outcome
):
    """Killed after the verdict was carried out, and before the journal was written."""
    from regraft.operations.retrain.interrupted import recover_attempt
    from regraft.promotion.stored_verdict import StoredVerdict
    from regraft.promotion.verdict import Verdict
    from regraft.registry import DecisionRecord, record_decision

    marker = make_marker(f"retrain {NAME}", os.getpid(), NOW)
    judge = "1@elsewhere" if change == "another process judged it" else current_process()
    tags = {"content_hash": "1", "verdict": "keep", "judged_by": judge}
    if change == "it was never judged":
        del tags["verdict"]
    judged = NOW + timedelta(minutes=-5 if change == "it was judged before" else 5)
    if change != "nothing was registered":
        memory.create_registered_model(NAME)
        memory.create_model_version(NAME, "nowhere", tags=tags)
        memory.set_registered_model_alias(NAME, "challenger", "1")
        record_decision(
            config.tracking,
            NAME,
            DecisionRecord("keep", "verdict-1", "a tie", "ada@engine"),
            judged,
        )
    flips = (SimpleNamespace(path="a.png"),) * 3
    verdict = Verdict("verdict-1", "keep", "a tie", NAME, 1, 7, (), {}, flips)

    def load(version, tracking):
        if change == "its files are gone":
            raise ModelNotFound("gone")
        return StoredVerdict(verdict, None, apply_overrides(config, ("tune.epochs=3",)))

    monkeypatch.setattr("regraft.operations.retrain.interrupted.load_stored_verdict", load)
    one = recover_attempt(config, marker, NOW + timedelta(hours=1))
    assert one.outcome == outcome
    assert (one.started, f"process {os.getpid()} " in one.reason) == (NOW.isoformat(), True)
    if outcome == "killed":
        assert (one.verdict, one.version, one.ended) == (
            "",
            None,
            (NOW + timedelta(hours=1)).isoformat(),
        )
        return
    assert (one.verdict, one.version, one.champion, one.flips) == ("verdict-1", 1, 7, 3)
    assert (one.ended, one.settings["tune.epochs"]) == (judged.isoformat(), "3")
    assert one.reason.startswith("a tie")


# which settings the next one has


def test_remote_places_are_remembered_and_local_ones_are_not(config, state, photos, tmp_path):
    places = ("embed.store_url=s3://b/e", f"tune.checkpoint_url={tmp_path}/c")
    remembered = changed_settings(apply_overrides(config, places))
    assert remembered == {"embed.store_url": "s3://b/e"}
    ended(apply_overrides(config, places[1:]), trained=TRAINED)
    then = last_config(photos, state)
    assert then.embed.store_url == str(state.embeddings)
    assert then.tune.checkpoint_url == str(state.checkpoints)


def test_whom_to_tell_is_not_written_into_the_journal(config):
    telling = target_of(config, "tee", "skip")
    assert ended(telling).settings == {}


def test_a_retraining_is_made_as_the_last_one_was(config, state, photos, tmp_path):
    ended(apply_overrides(config, ("tune.epochs=3", "tune.seed=4")), trained=TRAINED)
    then = last_config(photos, state, None, ("tune.seed=5",))
    assert (then.tune.epochs, then.tune.seed) == (3, 5)
    file = tmp_path / "file.yaml"
    file.write_text("tune: {epochs: 6}\n")
    obeyed = last_config(photos, state, file)
    assert (obeyed.tune.epochs, obeyed.tune.seed) == (6, 0)


def test_the_photos_that_are_named_are_the_ones_that_are_read(config, state, tmp_path):
    ended(config, trained=TRAINED)
    for name in ("", NAME):
        then = last_config(tmp_path / "other" / NAME, state, name=name)
        assert then.ingest.photos == str(tmp_path / "other" / NAME)
        assert then.tracking.name == NAME


def test_settings_of_a_failed_attempt_are_not_remembered(config, state, photos, tmp_path):
    ended(apply_overrides(config, ("tune.epochs=3",)), trained=TRAINED)
    typo = apply_overrides(config, (f"ingest.inbox={tmp_path}/typo",))
    with pytest.raises(NoPhotos):
        attempt(typo, state)
    assert "ingest.inbox" in past(config)[-1].settings
    then = last_config(photos, state)
    assert (then.ingest.inbox, then.tune.epochs) == ("", 3)


@pytest.mark.parametrize("decision", ["skip", "postpone"])
def test_an_attempt_that_did_nothing_leaves_no_guard_behind(config, state, photos, decision):
    asking = apply_overrides(config, ("promote.approval=human",))
    ended(asking, trained=TRAINED)
    nothing = ended_weakened(apply_overrides(asking, ("promote.approval=automatic",)), decision)
    assert nothing.outcome == decision
    assert "promote.approval=automatic (was human), which is not passed on" in nothing.reason
    assert last_config(photos, state).promote.approval == "human"


def test_a_guard_that_was_made_weaker_is_named_until_it_is_as_strong_again(config, state, photos):
    asking = apply_overrides(config, ("promote.approval=human", "promote.level=0.01"))
    assert ended_weakened(asking, trained=TRAINED).weakened == {}
    weak = apply_overrides(asking, ("promote.approval=automatic",))
    given = ended_weakened(weak, trained=replace(TRAINED, verdict="second"))
    assert given.weakened == {"promote.approval": "human"}
    assert given.reason.endswith("; weaker than before: promote.approval=automatic (was human)")
    inherited = last_config(photos, state)
    assert inherited.promote.approval == "automatic"
    again = ended_weakened(inherited, trained=replace(TRAINED, verdict="third"))
    assert again.weakened == given.weakened
    restored = apply_overrides(inherited, ("promote.approval=human",))
    assert find_weakened(restored) == {}


def test_an_attempt_says_what_it_found(config):
    found = take_snapshot(config, NOW)
    assert found == RunSnapshot(NOW.isoformat(), found.fingerprint, found.photos)
    assert len(found.fingerprint) == len(found.photos) == 64
    assert found.fingerprint != found.photos
