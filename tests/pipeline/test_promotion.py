"""Promotions in a real MLflow store: paired evaluation, alias, ledger and page."""

import html
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from tiny_challenger import Trained, answering, put, trained
from tiny_server import served_here
from tiny_store import (
    HUMAN,
    NOW,
    RULE,
    WHO,
    Store,
    equal_model,
    judge,
    registered_pair,
    rules,
    weak_model,
)

from regraft import registry
from regraft.core.config import EvaluateConfig
from regraft.core.errors import ChampionMoved, ModelNotFound, NothingPendingApproval
from regraft.evaluation.evaluate import evaluate
from regraft.model.classifier import regraft as warm_start
from regraft.promotion import (
    approve_verdict,
    dry_run,
    explain,
    load_verdict,
    promote,
    reject_verdict,
    what_if,
)
from regraft.registry import parity, serving
from regraft.registry.tracking import start_run

pytestmark = [pytest.mark.pipeline, pytest.mark.usefixtures("calm")]

WEAK, RIGHT, EQUAL = 1, 2, 3  # versions of weak_model(), trained() and equal_model()
PROMOTE = sys.modules[promote.__module__]
# Appended to served.py: a served model that returns the predictions in another order.
SHUFFLED = """
class Shuffled(ServedClassifier):
    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, str] | None = None,
    ) -> pd.DataFrame:
        return super().predict(context, model_input, params)[::-1].reset_index(drop=True)

set_model(Shuffled())
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Versions WEAK, RIGHT and EQUAL are registered; none has a verdict."""
    store = Store(tmp_path_factory.mktemp("promotion"), registered_pair())
    put(equal_model(), store.tracking)
    store.save("registered")
    return store


# How each saved state of the store is made: (earlier state, judged version, its model, settings).
STATES = {
    "weak serves": ("registered", WEAK, weak_model, RULE),
    "right serves": ("registered", RIGHT, trained, RULE),
    "right won": ("weak serves", RIGHT, trained, RULE),
    "right waits": ("weak serves", RIGHT, trained, HUMAN),
}


def put_back(store: Store, name: str):
    """Restore the state; pages are in the folder "my reports"."""
    if name not in store:
        begin, number, made, rule = STATES[name]
        put_back(store, begin)
        with_pages = rule.model_copy(update={"reports_url": str(store.root / "my reports")})
        judge(store.tracking, number, made(), with_pages)
        store.save(name)
    store.restore(name)
    return store.tracking


@pytest.fixture
def tracking(store):
    return put_back(store, "registered")


@pytest.fixture
def weak_serves(store):
    """WEAK became the first champion."""
    return put_back(store, "weak serves")


@pytest.fixture
def right_serves(store):
    """RIGHT became the first champion."""
    return put_back(store, "right serves")


@pytest.fixture
def right_won(store):
    """RIGHT replaced WEAK."""
    return put_back(store, "right won")


@pytest.fixture
def right_waits(store):
    """RIGHT won against WEAK and waits for approval."""
    return put_back(store, "right waits")


def version_of(tracking, number: int) -> registry.RegisteredVersion:
    return registry.find(tracking, "tiny", str(number))


def verdict_of(tracking, number: int):
    return load_verdict(tracking, version_of(tracking, number))


def dry_run_of(tracking, number: int, made: Trained, rule=RULE):
    return dry_run(version_of(tracking, number), made.splits, rules(rule, tracking))


def trained_on(tracking, number: int, rows: pd.DataFrame):
    """Add these photos to the version's manifest."""
    place = Path(version_of(tracking, number).bundle_url) / registry.versions.MANIFEST_FILE
    manifest = pd.read_parquet(place)
    pd.concat([manifest, rows[list(manifest.columns)]]).to_parquet(place, index=False)


def remember_evaluations(monkeypatch):
    """Evaluate each pair of versions once, for tests of what follows from the evaluation."""
    measure, try_golden = PROMOTE.evaluate_pair, PROMOTE.golden_parity
    evaluations, answers = {}, {}

    def evaluate_once(version, champion, splits, config):
        pair = version.version, champion.version if champion else None
        if pair not in evaluations:
            evaluations[pair] = measure(version, champion, splits, config)
        return evaluations[pair]

    def try_once(version, *arguments):
        if version.version not in answers:
            answers[version.version] = try_golden(version, *arguments)
        return answers[version.version]

    monkeypatch.setattr(PROMOTE, "evaluate_pair", evaluate_once)
    monkeypatch.setattr(PROMOTE, "golden_parity", try_once)


def ledger(tracking):
    assert registry.list_faults(tracking, "tiny") == ()
    return [(e.action, e.before, e.after) for e in registry.list_entries(tracking, "tiny")]


def champion(tracking):
    return registry.get_aliases(tracking, "tiny").get("champion")


def test_first_model_becomes_champion_and_its_page_has_the_reason(right_serves, store):
    verdict = verdict_of(right_serves, RIGHT)
    assert verdict.moves_champion
    assert registry.get_aliases(right_serves, "tiny") == {"challenger": RIGHT, "champion": RIGHT}
    assert verdict.reason in (store.root / "my reports" / "tiny-v2.html").read_text()
    assert registry.get_tags(right_serves, version_of(right_serves, RIGHT))["why"] == verdict.reason
    [entry] = registry.list_entries(right_serves, "tiny")
    assert (entry.action, entry.before, entry.after) == ("promote", None, RIGHT)
    assert (entry.who, entry.verdict, entry.reason) == (WHO, verdict.id, verdict.reason)


@pytest.mark.parametrize(
    "serve", [served_here, pytest.param(serving.start_server, marks=pytest.mark.slow)]
)
def test_real_server_answers_before_the_alias_moves(tracking, monkeypatch, serve):
    moved, asked = [], []
    move, ask = MlflowClient.set_registered_model_alias, parity.request_predictions

    def noted_move(self, name, alias, version):
        moved.append((alias, list(asked)))
        move(self, name, alias, version)

    def noted_ask(url, images):
        asked.append(url)
        return ask(url, images)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", noted_move)
    monkeypatch.setattr(parity, "request_predictions", noted_ask)
    started, evaluated = [], []
    evaluate_pair = PROMOTE.evaluate_pair

    def noted_start(model):
        started.append(model)
        return serve(model)

    def noted_evaluation(*arguments):
        evaluated.append(len(started))
        return evaluate_pair(*arguments)

    monkeypatch.setattr(parity, "start_server", noted_start)
    monkeypatch.setattr(PROMOTE, "evaluate_pair", noted_evaluation)
    verdict = judge(tracking, RIGHT, trained(), RULE.model_copy(update={"smoke_test": True}))
    ways = {line.name: line for line in verdict.guards if line.name.startswith("serving")}
    assert list(ways) == ["serving: pyfunc", "serving: predict", "serving: server"]
    assert all(line.outcome == "passed" and line.measured < 1e-4 for line in ways.values())
    assert champion(tracking) == RIGHT
    [(_, before)] = [one for one in moved if one[0] == "champion"]
    assert len(before) == 1
    assert before[0].startswith("http://127.0.0.1:")
    assert evaluated == [1]  # its start takes seconds, in which the models are evaluated


def test_model_that_is_served_otherwise_is_not_promoted(tracking):
    """Its serving code is changed in the store after its registration; its weights are not."""
    [code] = Path(version_of(tracking, RIGHT).bundle_url).parents[1].glob("served.py")
    code.write_text(code.read_text() + SHUFFLED)
    verdict = judge(tracking, RIGHT, trained())
    assert verdict.decision == "keep"
    failed = [line.name for line in verdict.guards if line.outcome == "failed"]
    assert failed == ["serving: pyfunc"]
    assert champion(tracking) is None


def test_verdict_in_another_format_is_an_error_that_names_the_command(right_serves):
    [kept] = Path(right_serves.artifacts_url).rglob("promotion/*/pair.json")
    kept.write_text('{"name": "tiny"}')
    with pytest.raises(ModelNotFound, match=r"tiny/2 .*regraft promote tiny/2"):
        verdict_of(right_serves, RIGHT)
    assert what_if(right_serves, "tiny", lambda then: then).empty


def test_removed_champion_alias_does_not_replace_the_comparison(weak_serves):
    MlflowClient(tracking_uri=weak_serves.uri).delete_registered_model_alias("tiny", "champion")
    verdict = dry_run_of(weak_serves, RIGHT, trained())
    assert verdict.decision == "hold"
    assert "version 1 " in verdict.reason  # which served last
    registry.roll_back(weak_serves, "tiny", WHO, "back", NOW)
    assert champion(weak_serves) == WEAK


def test_answer_to_an_earlier_question_does_not_count_for_a_later_verdict(right_waits):
    assert verdict_of(right_waits, RIGHT).is_pending
    strict = HUMAN.model_copy(update={"min_gain": 0.9})
    verdict = judge(right_waits, RIGHT, trained(), strict)
    assert verdict.decision == "keep"
    version = version_of(right_waits, RIGHT)
    with pytest.raises(NothingPendingApproval, match=rf"{verdict.id} .*tiny/2"):
        approve_verdict(verdict_of(right_waits, RIGHT), right_waits, "bob@desk", NOW)
    registry.set_tags(right_waits, version, {"approval": "pending"})  # as a kill might leave it
    with pytest.raises(NothingPendingApproval):
        approve_verdict(verdict_of(right_waits, RIGHT), right_waits, "bob@desk", NOW)
    assert champion(right_waits) == WEAK


def test_rejected_challenger_has_its_reason_in_tags_ledger_and_page(right_serves, tmp_path):
    rule = RULE.model_copy(update={"reports_url": str(tmp_path / "reports")})
    run = start_run(right_serves, "loser")
    loser = answering(trained(), "blue")
    loser = replace(loser, challenger=replace(loser.challenger, run_id=run.run_id))
    number = put(loser, right_serves).version
    verdict = judge(right_serves, number, loser, rule)
    assert verdict.decision == "keep"
    assert "floor" in [line.name for line in verdict.guards if line.outcome == "failed"]
    assert registry.get_aliases(right_serves, "tiny") == {"challenger": number, "champion": RIGHT}
    tags = run.client.get_model_version("tiny", str(number)).tags
    assert (tags["verdict"], tags["why"]) == ("keep", verdict.reason)
    assert ledger(right_serves) == [("promote", None, RIGHT), ("keep", RIGHT, RIGHT)]
    page = (tmp_path / "reports" / f"tiny-v{number}.html").read_text()
    attached = Path(right_serves.artifacts_url, run.run_id, "artifacts", "report.html").read_text()
    assert html.escape(verdict.reason) in page
    assert attached == page


def test_tie_keeps_the_champion(right_serves):
    verdict = judge(right_serves, EQUAL, equal_model())
    assert verdict.decision == "keep"
    assert (verdict.evidence["gain"], verdict.evidence["challenger_accuracy"]) == (0, 1)
    assert "100.0%" in verdict.reason
    assert verdict.champion == RIGHT
    assert champion(right_serves) == RIGHT


def test_better_challenger_replaces_the_champion_which_is_remembered(right_won):
    verdict = verdict_of(right_won, RIGHT)
    assert verdict.moves_champion
    assert verdict.evidence["only_challenger"] == 4
    aliases = {"challenger": RIGHT, "champion": RIGHT, "previous": WEAK}
    assert registry.get_aliases(right_won, "tiny") == aliases
    assert ledger(right_won) == [("promote", None, WEAK), ("promote", WEAK, RIGHT)]


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_between_any_two_registry_calls_exactly_one_champion_remains(
    weak_serves, monkeypatch, stride
):
    if stride > 1:
        remember_evaluations(monkeypatch)
    version = version_of(weak_serves, RIGHT)
    names = [
        *("set_registered_model_alias", "delete_registered_model_alias", "create_model_version"),
        *("set_model_version_tag", "set_registered_model_tag", "create_registered_model"),
        *("log_artifacts", "search_model_versions", "get_model_version_by_alias"),
    ]
    stop_at, done = 0, 0

    def interrupted(name):
        real = getattr(MlflowClient, name)

        def call(self, *arguments, **named):
            nonlocal done
            done += 1
            if done == stop_at:
                raise KeyboardInterrupt
            return real(self, *arguments, **named)

        return call

    config = rules(RULE, weak_serves)
    for stop_at in range(1, 60, stride):  # noqa: B007 - read by the calls
        done = 0
        with monkeypatch.context() as patched:
            for name in names:
                patched.setattr(MlflowClient, name, interrupted(name))
            try:
                promote(version, trained().splits, config, WHO, NOW)
                break
            except KeyboardInterrupt:
                pass
        assert champion(weak_serves) in (WEAK, RIGHT)
        assert registry.list_faults(weak_serves, "tiny") == ()
    assert stop_at >= 8
    aliases = registry.get_aliases(weak_serves, "tiny")
    assert (aliases["champion"], aliases["previous"]) == (RIGHT, WEAK)


def test_champion_that_is_judged_again_keeps_its_own_reason(right_serves):
    first = verdict_of(right_serves, RIGHT)
    verdict = judge(right_serves, RIGHT, trained())
    assert verdict.decision == "keep"
    assert verdict.is_serving
    assert (verdict.champion, verdict.challenger) == (RIGHT, RIGHT)
    assert verdict.reason != first.reason
    tags = registry.get_tags(right_serves, version_of(right_serves, RIGHT))
    assert (tags["why"], tags["verdict"]) == (first.reason, "promote")
    assert registry.get_aliases(right_serves, "tiny") == {"challenger": RIGHT, "champion": RIGHT}
    assert ledger(right_serves) == [("promote", None, RIGHT)]
    assert verdict_of(right_serves, RIGHT).format_text("") == first.format_text("")


def test_training_photos_of_the_champion_and_their_near_copies_are_not_compared(weak_serves):
    """An older split let the champion see three of today's test photos."""
    test = trained().splits.test
    by_bytes = test.iloc[:1].assign(phash="f" * 16, split="train")
    by_sight = test.iloc[1:2].assign(sha256="0" * 64, split="train")
    grey = bytes(min(255, level + 1) for level in test.thumbnail.iloc[2])
    nearly = f"{int(test.phash.iloc[2], 16) ^ 0b101:016x}"  # two bits of 64 apart
    by_likeness = test.iloc[2:3].assign(
        sha256="1" * 64, phash=nearly, thumbnail=[grey], split="train"
    )
    trained_on(weak_serves, WEAK, pd.concat([by_bytes, by_sight, by_likeness]))
    verdict = dry_run_of(weak_serves, RIGHT, trained())
    assert verdict.evidence["n_seen"] == 3
    assert verdict.evidence["n"] == len(test) - 3


def test_comparison_on_training_data_is_not_decided(tracking):
    test = trained().splits.test.assign(split="train")
    trained_on(tracking, WEAK, test)
    assert dry_run_of(tracking, WEAK, weak_model()).decision == "hold"  # nor is it ever the first
    move = registry.ChampionChange("promote", WEAK, "", "by hand", "eve@elsewhere")
    registry.move_champion(tracking, "tiny", move, None, NOW)
    verdict = judge(tracking, RIGHT, trained())
    assert verdict.decision == "hold"
    assert verdict.evidence["n_seen"] == len(test) == 12
    assert " 12 " in verdict.reason
    assert champion(tracking) == WEAK
    assert ledger(tracking)[-1] == ("hold", WEAK, WEAK)


def test_other_test_set_is_judged_anew(weak_serves):
    """The champion's stored accuracy is on photos that no longer count."""
    stored = verdict_of(weak_serves, WEAK).evidence["test_accuracy"]
    frame = trained().splits.frame
    without_amber = frame[(frame.split != "test") | (frame.label != "amber")]
    splits = replace(trained().splits, frame=without_amber)  # where WEAK makes no mistake
    loose = RULE.model_copy(update={"min_class_photos": 0})
    verdict = dry_run_of(weak_serves, RIGHT, replace(trained(), splits=splits), loose)
    assert verdict.evidence["champion_accuracy"] == 1.0 > stored
    assert verdict.decision == "keep"


def test_champion_that_changed_during_the_evaluation_is_compared_with(weak_serves, monkeypatch):
    real, compared_with = PROMOTE.evaluate_pair, []

    def slowly(*arguments):
        evaluation = real(*arguments)
        if not compared_with:  # meanwhile, in another process
            move = registry.ChampionChange("promote", EQUAL, "", "by hand", "eve@elsewhere")
            registry.move_champion(weak_serves, "tiny", move, WEAK, NOW)
        compared_with.append(evaluation.pair.champion)
        return evaluation

    monkeypatch.setattr(PROMOTE, "evaluate_pair", slowly)
    verdict = judge(weak_serves, RIGHT, trained())
    assert compared_with == [WEAK, EQUAL]
    assert verdict.champion == EQUAL
    assert (verdict.decision, verdict.evidence["gain"]) == ("keep", 0)
    assert champion(weak_serves) == EQUAL


def test_model_that_a_twin_crowned_while_it_was_judged_serves(tracking, monkeypatch):
    """Two processes with the same weights; the slower process saw no champion at first."""
    remember_evaluations(monkeypatch)
    version, promoted = version_of(tracking, RIGHT), []
    real = PROMOTE.evaluate_pair

    def slowly(*arguments):
        if not promoted:
            promoted.append(None)  # the twin's own evaluation calls this too
            promoted.append(judge(tracking, RIGHT, trained()))
        return real(*arguments)

    monkeypatch.setattr(PROMOTE, "evaluate_pair", slowly)
    verdict = promote(version, trained().splits, rules(RULE, tracking), "eve@elsewhere", NOW)
    assert verdict.is_serving
    assert (verdict.champion, verdict.challenger) == (RIGHT, RIGHT)
    assert ledger(tracking) == [("promote", None, RIGHT)]
    assert verdict_of(tracking, RIGHT).format_text("") == promoted[1].format_text("")
    assert registry.get_tags(tracking, version)["why"] == promoted[1].reason


def test_dry_run_returns_the_verdict_and_changes_nothing(store):
    verdict = verdict_of(put_back(store, "right won"), RIGHT)
    weak_serves = put_back(store, "weak serves")
    version = version_of(weak_serves, RIGHT)
    before = (registry.get_aliases(weak_serves, "tiny"), registry.get_tags(weak_serves, version))
    rehearsed = dry_run(version, trained().splits, rules(RULE, weak_serves))
    assert rehearsed.decision == "promote"
    assert (
        registry.get_aliases(weak_serves, "tiny"),
        registry.get_tags(weak_serves, version),
    ) == before
    assert ledger(weak_serves) == [("promote", None, WEAK)]
    assert rehearsed.id == verdict.id


def test_verdict_waits_for_a_human_and_is_carried_out_when_approved(right_waits):
    verdict = verdict_of(right_waits, RIGHT)
    assert verdict.is_pending
    assert champion(right_waits) == WEAK
    version = version_of(right_waits, RIGHT)
    assert registry.get_tags(right_waits, version)["approval"] == "pending"
    entry = approve_verdict(verdict, right_waits, "bob@desk", NOW, "looks fine")
    assert (entry.who, entry.before, entry.after) == ("bob@desk", WEAK, RIGHT)
    for part in ("bob@desk", "(looks fine)", verdict.reason):
        assert part in entry.reason
    assert champion(right_waits) == RIGHT
    expected = [("promote", None, WEAK), ("hold", WEAK, WEAK), ("promote", WEAK, RIGHT)]
    assert ledger(right_waits) == expected
    assert entry.reason in explain(right_waits, version)
    with pytest.raises(NothingPendingApproval, match=rf"{verdict.id} .*tiny/2 .* approved\."):
        approve_verdict(verdict, right_waits, "bob@desk", NOW)


def test_rejected_verdict_moves_nothing_and_is_written_down(right_waits):
    verdict = verdict_of(right_waits, RIGHT)
    entry = reject_verdict(verdict, right_waits, "bob@desk", "the photos are old", NOW)
    assert (entry.action, entry.before, entry.after) == ("reject", WEAK, WEAK)
    for part in ("version 2", "bob@desk", "(the photos are old)", verdict.reason):
        assert part in entry.reason
    assert champion(right_waits) == WEAK
    with pytest.raises(NothingPendingApproval, match=rf"{verdict.id} .* rejected\."):
        approve_verdict(verdict, right_waits, "bob@desk", NOW)


@pytest.mark.parametrize("said", ["promote", "reject"])
def test_answer_that_was_killed_before_it_was_told_is_finished_by_the_next_one(
    right_waits, monkeypatch, said
):
    verdict = verdict_of(right_waits, RIGHT)

    def answer():
        if said == "promote":
            return approve_verdict(verdict, right_waits, "bob@desk", NOW)
        return reject_verdict(verdict, right_waits, "bob@desk", "", NOW)

    def killed(self, name, version, key, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_model_version_tag", killed)
        with pytest.raises(KeyboardInterrupt):
            answer()
    version = version_of(right_waits, RIGHT)
    assert registry.get_tags(right_waits, version)["approval"] == "pending"
    entry = answer()
    assert ledger(right_waits)[2:] == [(said, WEAK, entry.after)]  # once, not twice
    assert champion(right_waits) == entry.after
    assert registry.get_tags(right_waits, version)["approval"] in ("approved", "rejected")


def test_approval_counts_only_against_the_champion_that_was_judged(right_waits):
    move = registry.ChampionChange("promote", EQUAL, "", "by hand", "eve@elsewhere")
    registry.move_champion(right_waits, "tiny", move, WEAK, NOW)
    with pytest.raises(ChampionMoved, match="tiny"):
        approve_verdict(verdict_of(right_waits, RIGHT), right_waits, "bob@desk", NOW)
    assert champion(right_waits) == EQUAL


def test_past_verdicts_are_judged_by_another_rule_without_a_network(right_won, monkeypatch):
    monkeypatch.setattr("torch.nn.Module.__call__", None)  # nothing is computed
    strict = what_if(
        right_won,
        "tiny",
        lambda then: then.model_copy(
            update={"promote": then.promote.model_copy(update={"min_gain": 0.4})}
        ),
    )
    assert strict.was.tolist() == ["promote", "promote"]
    assert strict.would_be.tolist() == ["promote", "keep"]
    assert strict.changed.tolist() == [False, True]
    assert " 40.0%" in strict.reason[1]
    same = what_if(right_won, "tiny", lambda then: then)
    assert not same.changed.any()


def test_version_without_a_verdict_is_an_error_that_names_the_command(tracking):
    with pytest.raises(ModelNotFound, match=r"tiny/1 .*regraft promote tiny/1"):
        verdict_of(tracking, WEAK)


def test_renamed_and_reordered_classes_are_compared_by_what_they_mean(right_serves):
    """The photos of amber lie in a folder "zinc" now, so the classes stand in another order."""
    renamed = {"amber": "zinc"}
    splits = trained().splits
    frame = splits.frame.assign(label=splits.frame.label.replace(renamed))
    classes = ("blue", "green", "zinc")
    today = replace(splits, frame=frame, classes=classes)
    old = trained().challenger.classifier
    started = warm_start(old, classes, renamed)
    for new, then in (("zinc", "amber"), ("blue", "blue"), ("green", "green")):
        row = started.weights["head.weight"][classes.index(new)]
        assert torch.equal(row, old.weights["head.weight"][old.card.classes.index(then)])
    challenger = replace(trained().challenger, classifier=started)
    report = evaluate(challenger, trained().report.transfer, today, EvaluateConfig())
    config = rules(RULE, right_serves)
    mapped = config.model_copy(
        update={"classes": config.classes.model_copy(update={"renamed": renamed})}
    )
    version = put(Trained(challenger, report, today), right_serves)
    without = dry_run(version, today, config)
    assert (without.decision, "amber" in without.reason) == ("keep", True)
    verdict = dry_run(version, today, mapped)
    assert (verdict.decision, verdict.evidence["gain"]) == ("keep", 0)
    assert verdict.evidence["champion_accuracy"] == 1.0
    [line] = [line for line in verdict.guards if line.name == "classes"]
    assert "amber -> zinc" in line.message


def test_only_the_transaction_moves_the_champion():
    """No alias moves without a verdict: nothing else in the product writes it."""
    root = Path(registry.__file__).parents[2]
    writers = {
        str(path.relative_to(root))
        for floor in ("regraft", "steps", "pipelines", "materializers")
        for path in (root / floor).rglob("*.py")
        if "set_alias(" in path.read_text() or "_model_alias(" in path.read_text()
    }
    assert writers == {
        "regraft/registry/champion.py",
        "regraft/registry/registration.py",  # the alias challenger
        "regraft/registry/versions.py",  # the call itself
    }


def test_verdict_as_text_has_the_status_the_reason_and_every_guard(right_won):
    verdict = verdict_of(right_won, RIGHT)
    assert verdict.reason in str(verdict)
    assert verdict.status_text in str(verdict)
    whole = verdict.format_text("tiny/2")
    assert all(line.message in whole for line in verdict.guards)
    assert all(part in whole for part in ("tiny/2", "version 1", verdict.id, verdict.reason))
