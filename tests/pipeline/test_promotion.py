"""What a promotion promises, in a real MLflow store: the duel, the alias, the ledger, the page."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from tiny_challenger import Trained, answering, put, tracking_in, train_tiny, trained

from regraft import promote as room
from regraft import registry
from regraft.classifier import regraft as warm_start
from regraft.config import BehaviourConfig, Config, EvaluateConfig, PromoteConfig
from regraft.errors import ChampionMoved, ModelNotFound, NothingWaits
from regraft.evaluate import evaluate
from regraft.promote import carry_out, explain, load_verdict, promote, refuse, rehearse, what_if
from regraft.registry import parity
from regraft.tracking import start_run

pytestmark = [pytest.mark.pipeline, pytest.mark.usefixtures("calm")]

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
WHO = "ada@engine"
# Twelve test photos are too few to show anything at 5 %; a server is tried in one test.
RULE = PromoteConfig(min_photos=1, level=0.1, max_negative_flips=0.5, smoke_test=False)


@pytest.fixture
def tracking(tmp_path):
    return tracking_in(tmp_path)


def rules(rule, tracking):
    return Config(promote=rule, tracking=tracking, behaviour=BehaviourConfig(n_photos=0))


def on_stage(new: Trained, tracking, rule=RULE, now=NOW):
    """Registers and judges."""
    version = put(new, tracking)
    return promote(version, new.splits, rules(rule, tracking), WHO, now, new.report)


def improved(seed: int) -> Trained:
    """Other weights, the same answers: its content differs, its accuracy does not."""
    made = trained()
    weights = dict(made.challenger.classifier.weights)
    weights["head.bias"] = weights["head.bias"] + seed  # the same for every class
    classifier = replace(made.challenger.classifier, weights=weights)
    return replace(made, challenger=replace(made.challenger, classifier=classifier))


def weak_champion() -> Trained:
    """Never says the first class: better than the largest class alone, worse than trained()."""
    right = trained().challenger.classifier
    bias = right.weights["head.bias"].clone()
    bias[0] = -1e4
    classifier = replace(right, weights=right.weights | {"head.bias": bias})
    challenger = replace(trained().challenger, classifier=classifier)
    same = trained().report.transfer  # of the backbone, which is the same
    report = evaluate(challenger, same, trained().splits, EvaluateConfig())
    return Trained(challenger, report, trained().splits)


def with_manifest(made: Trained, rows: pd.DataFrame) -> Trained:
    """The same, said to be trained on these photos too."""
    manifest = made.challenger.manifest
    more = pd.concat([manifest, rows[list(manifest.columns)]])
    return replace(made, challenger=replace(made.challenger, manifest=more))


def ledger(tracking):
    assert registry.faults(tracking, "tiny") == ()
    return [(e.action, e.before, e.after) for e in registry.entries(tracking, "tiny")]


def champion(tracking):
    return registry.aliases(tracking, "tiny").get("champion")


def test_first_model_becomes_champion_and_its_page_says_so(tracking, tmp_path):
    rule = RULE.model_copy(update={"reports_url": str(tmp_path / "my reports")})
    verdict = on_stage(trained(), tracking, rule)
    assert verdict.moves
    assert registry.aliases(tracking, "tiny") == {"challenger": 1, "champion": 1}
    assert verdict.reason in (tmp_path / "my reports" / "tiny-v1.html").read_text()
    assert registry.list_versions(tracking).why.tolist() == [verdict.reason]
    [entry] = registry.entries(tracking, "tiny")
    assert (entry.action, entry.before, entry.after) == ("promote", None, 1)
    assert (entry.who, entry.verdict, entry.reason) == (WHO, verdict.id, verdict.reason)


def test_real_server_answers_before_the_alias_moves(tracking, monkeypatch):
    moved = []
    real = MlflowClient.set_registered_model_alias

    def spied(self, name, alias, version):
        moved.append((alias, list(asked)))
        real(self, name, alias, version)

    asked = []
    ask = parity.ask

    def noted(url, images):
        asked.append(url)
        return ask(url, images)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", spied)
    monkeypatch.setattr(parity, "ask", noted)
    served = RULE.model_copy(update={"smoke_test": True})
    verdict = on_stage(trained(), tracking, served)
    ways = {line.name: line for line in verdict.guards if line.name.startswith("serving")}
    assert list(ways) == ["serving: pyfunc", "serving: predict", "serving: server"]
    assert all(line.outcome == "passed" and line.measured < 1e-4 for line in ways.values())
    assert champion(tracking) == 1
    [(_, before)] = [one for one in moved if one[0] == "champion"]
    assert len(before) == 1
    assert before[0].startswith("http://127.0.0.1:")


def test_model_that_is_served_otherwise_is_not_promoted(tracking):
    """What serves it is changed in the store after its registration; its weights are not."""
    version = put(trained(), tracking)
    [code] = Path(version.bundle_url).parents[1].glob("served.py")
    text = code.read_text()
    assert text.count("answers(torch.cat(list(scores)), self.card)") == 1
    code.write_text(text.replace("torch.cat(list(scores)), self", "-torch.cat(list(scores)), self"))
    verdict = promote(version, trained().splits, rules(RULE, tracking), WHO, NOW)
    assert verdict.decision == "keep"
    failed = [line.name for line in verdict.guards if line.outcome == "failed"]
    assert failed == ["serving: pyfunc"]
    assert champion(tracking) is None


def test_verdict_of_another_regraft_says_so(tracking):
    on_stage(trained(), tracking)
    version = registry.find(tracking, "tiny", "1")
    [kept] = Path(tracking.artifacts_url).rglob("promotion/*/duel.json")
    kept.write_text('{"name": "tiny"}')
    with pytest.raises(ModelNotFound, match=r"found another form: .* regraft promote tiny/1"):
        load_verdict(tracking, version)
    assert what_if(tracking, "tiny", lambda then: then).empty


def test_vacant_throne_is_no_way_around_the_duel(tracking):
    on_stage(weak_champion(), tracking)
    MlflowClient(tracking_uri=tracking.uri).delete_registered_model_alias("tiny", "champion")
    verdict = on_stage(trained(), tracking)
    assert verdict.decision == "hold"
    assert "no version serves, though version 1 did" in verdict.reason
    registry.roll_back(tracking, "tiny", WHO, "back", NOW)
    assert champion(tracking) == 1


def test_answer_to_an_earlier_question_does_not_count_for_a_later_verdict(tracking):
    on_stage(weak_champion(), tracking)
    human = RULE.model_copy(update={"approval": "human"})
    assert on_stage(trained(), tracking, human).waits
    strict = human.model_copy(update={"min_gain": 0.9})
    assert on_stage(trained(), tracking, strict).decision == "keep"
    version = registry.find(tracking, "tiny", "2")
    with pytest.raises(NothingWaits, match="but: none was asked for"):
        carry_out(load_verdict(tracking, version), tracking, "bob@desk", NOW)
    registry.set_tags(tracking, version, {"approval": "waiting"})  # as a kill might leave it
    with pytest.raises(NothingWaits):
        carry_out(load_verdict(tracking, version), tracking, "bob@desk", NOW)
    assert champion(tracking) == 1


def test_losing_challenger_is_told_no_everywhere(tracking, tmp_path, caplog):
    on_stage(trained(), tracking)
    rule = RULE.model_copy(update={"reports_url": str(tmp_path / "reports")})
    run = start_run(tracking, "loser")
    loser = answering(trained(), "blue")
    loser = replace(loser, challenger=replace(loser.challenger, run_id=run.run_id))
    verdict = on_stage(loser, tracking, rule)
    assert verdict.decision == "keep"
    assert str(verdict).startswith("promote: not promoted, below the floor")
    assert registry.aliases(tracking, "tiny") == {"challenger": 2, "champion": 1}
    tags = run.client.get_model_version("tiny", "2").tags
    assert (tags["verdict"], tags["why"]) == ("keep", verdict.reason)
    assert ledger(tracking) == [("promote", None, 1), ("keep", 1, 1)]
    page = (tmp_path / "reports" / "tiny-v2.html").read_text()
    attached = Path(tracking.artifacts_url, run.run_id, "artifacts", "report.html").read_text()
    assert "below the floor" in page
    assert "Not promoted" in page
    assert attached == page


def test_tie_keeps_the_champion(tracking):
    on_stage(trained(), tracking)
    verdict = on_stage(improved(1), tracking)
    assert verdict.decision == "keep"
    assert verdict.reason.startswith("a tie keeps the champion: 100.0%")
    assert verdict.champion == 1
    assert champion(tracking) == 1


def test_better_challenger_replaces_the_champion_which_is_remembered(tracking):
    assert on_stage(weak_champion(), tracking).moves
    verdict = on_stage(trained(), tracking)
    assert verdict.moves
    assert verdict.evidence["only_challenger"] == 4
    assert registry.aliases(tracking, "tiny") == {"challenger": 2, "champion": 2, "previous": 1}
    assert ledger(tracking) == [("promote", None, 1), ("promote", 1, 2)]


def test_killed_between_any_two_registry_calls_exactly_one_champion_remains(tracking, monkeypatch):
    on_stage(weak_champion(), tracking)
    version = put(trained(), tracking)
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

    config = rules(RULE, tracking)
    for stop_at in range(1, 60):  # noqa: B007 - read by the calls
        done = 0
        with monkeypatch.context() as patched:
            for name in names:
                patched.setattr(MlflowClient, name, interrupted(name))
            try:
                promote(version, trained().splits, config, WHO, NOW)
                break
            except KeyboardInterrupt:
                pass
        assert champion(tracking) in (1, 2)
        assert registry.faults(tracking, "tiny") == ()
    assert stop_at >= 8
    aliases = registry.aliases(tracking, "tiny")
    assert (aliases["champion"], aliases["previous"]) == (2, 1)


def test_champion_that_is_judged_again_keeps_its_own_reason(tracking):
    first = on_stage(trained(), tracking)
    verdict = on_stage(trained(), tracking)
    assert verdict.decision == "keep"
    assert verdict.reason == "version 1 is already the champion"
    assert registry.list_versions(tracking).why.tolist() == [first.reason]
    assert registry.aliases(tracking, "tiny") == {"challenger": 1, "champion": 1}
    assert ledger(tracking) == [("promote", None, 1)]
    version = registry.find(tracking, "tiny", "1")
    assert load_verdict(tracking, version).told("") == first.told("")


def test_duel_leaves_out_what_the_champion_was_trained_on_and_near_copies_of_it(tracking):
    """An older split let the champion see three of today's test photos."""
    test = trained().splits.test
    by_bytes = test.iloc[:1].assign(phash="f" * 16, side="train")
    by_sight = test.iloc[1:2].assign(sha256="0" * 64, side="train")
    grey = bytes(min(255, level + 1) for level in test.thumbnail.iloc[2])
    nearly = f"{int(test.phash.iloc[2], 16) ^ 0b101:016x}"  # two bits of 64 apart
    by_likeness = test.iloc[2:3].assign(
        sha256="1" * 64, phash=nearly, thumbnail=[grey], side="train"
    )
    on_stage(with_manifest(weak_champion(), pd.concat([by_bytes, by_sight, by_likeness])), tracking)
    verdict = on_stage(trained(), tracking)
    assert verdict.evidence["n_seen"] == 3
    assert verdict.evidence["n"] == len(test) - 3


def test_duel_on_training_data_is_held(tracking):
    test = trained().splits.test.assign(side="train")
    weak = with_manifest(weak_champion(), test)
    assert on_stage(weak, tracking).decision == "hold"  # nor does it become the first champion
    move = registry.Move("promote", 1, "", "by hand", "eve@elsewhere")
    registry.move_champion(tracking, "tiny", move, None, NOW)
    verdict = on_stage(trained(), tracking)
    assert verdict.decision == "hold"
    assert "all 12 test photos were trained or chosen on" in verdict.reason
    assert champion(tracking) == 1
    assert ledger(tracking)[-1] == ("hold", 1, 1)


def test_other_test_set_is_judged_anew(tracking, tmp_path):
    """The champion's stored accuracy is on photos that no longer count."""
    on_stage(weak_champion(), tracking)
    other = train_tiny(tmp_path, seed=1)  # draws the same photos, at another place
    test = other.splits.test
    keep = test[test.label != "amber"].path  # where the weak champion makes no mistake
    frame = other.splits.frame
    splits = replace(other.splits, frame=frame[(frame.side != "test") | frame.path.isin(keep)])
    loose = RULE.model_copy(update={"min_class_photos": 0})
    verdict = on_stage(Trained(other.challenger, other.report, splits), tracking, loose)
    assert verdict.evidence["champion_accuracy"] == 1.0
    assert verdict.decision == "keep"


def test_champion_crowned_while_the_duel_was_held_is_the_one_that_counts(tracking, monkeypatch):
    on_stage(weak_champion(), tracking)
    rival = put(improved(1), tracking)
    version = put(trained(), tracking)
    real, held = room.promote.__globals__["hold_duel"], []

    def slowly(*arguments):
        duel = real(*arguments)
        if not held:  # meanwhile, in another process
            move = registry.Move("promote", rival.version, "", "by hand", "eve@elsewhere")
            registry.move_champion(tracking, "tiny", move, 1, NOW)
        held.append(duel.contenders.champion)
        return duel

    monkeypatch.setitem(room.promote.__globals__, "hold_duel", slowly)
    verdict = promote(version, trained().splits, rules(RULE, tracking), WHO, NOW)
    assert held == [1, rival.version]
    assert verdict.champion == rival.version
    assert verdict.reason.startswith("a tie keeps the champion")
    assert champion(tracking) == rival.version


def test_model_that_a_twin_crowned_while_it_was_judged_serves(tracking, monkeypatch):
    """Two processes that came to the same weights; the slower one saw no champion at first."""
    version, crowned = put(trained(), tracking), []
    real = room.promote.__globals__["hold_duel"]

    def slowly(*arguments):
        if not crowned:
            crowned.append(None)  # the twin's own duel comes here too
            crowned.append(promote(version, trained().splits, rules(RULE, tracking), WHO, NOW))
        return real(*arguments)

    monkeypatch.setitem(room.promote.__globals__, "hold_duel", slowly)
    verdict = promote(version, trained().splits, rules(RULE, tracking), "eve@elsewhere", NOW)
    assert verdict.serves
    assert verdict.reason == "version 1 is already the champion"
    assert ledger(tracking) == [("promote", None, 1)]
    assert load_verdict(tracking, version).told("") == crowned[1].told("")
    assert registry.list_versions(tracking).why.tolist() == [crowned[1].reason]


def test_rehearsal_says_the_verdict_and_changes_nothing(tracking):
    on_stage(weak_champion(), tracking)
    version = put(trained(), tracking)
    before = (registry.aliases(tracking, "tiny"), registry.tags(tracking, version))
    rehearsed = rehearse(version, trained().splits, rules(RULE, tracking))
    assert rehearsed.decision == "promote"
    assert (registry.aliases(tracking, "tiny"), registry.tags(tracking, version)) == before
    assert ledger(tracking) == [("promote", None, 1)]
    assert promote(version, trained().splits, rules(RULE, tracking), WHO, NOW).id == rehearsed.id


def test_verdict_waits_for_a_human_and_is_carried_out_when_approved(tracking):
    on_stage(weak_champion(), tracking)
    verdict = on_stage(trained(), tracking, RULE.model_copy(update={"approval": "human"}))
    assert verdict.waits
    assert champion(tracking) == 1
    version = registry.find(tracking, "tiny", "2")
    assert registry.tags(tracking, version)["approval"] == "waiting"
    entry = carry_out(load_verdict(tracking, version), tracking, "bob@desk", NOW, "looks fine")
    assert (entry.who, entry.before, entry.after) == ("bob@desk", 1, 2)
    assert entry.reason.startswith("approved by bob@desk (looks fine); better: ")
    assert champion(tracking) == 2
    assert ledger(tracking) == [("promote", None, 1), ("hold", 1, 1), ("promote", 1, 2)]
    assert "approved by bob@desk (looks fine)" in explain(tracking, version)
    with pytest.raises(NothingWaits, match=r"about tiny/2 to wait for approval, but: approved\."):
        carry_out(verdict, tracking, "bob@desk", NOW)


def test_rejected_verdict_moves_nothing_and_is_written_down(tracking):
    on_stage(weak_champion(), tracking)
    verdict = on_stage(trained(), tracking, RULE.model_copy(update={"approval": "human"}))
    entry = refuse(verdict, tracking, "bob@desk", "the photos are old", NOW)
    assert (entry.action, entry.before, entry.after) == ("reject", 1, 1)
    assert entry.reason.startswith("version 2 rejected by bob@desk (the photos are old); better: ")
    assert champion(tracking) == 1
    with pytest.raises(NothingWaits, match="but: rejected"):
        carry_out(verdict, tracking, "bob@desk", NOW)


@pytest.mark.parametrize("said", ["promote", "reject"])
def test_answer_that_was_killed_before_it_was_told_is_finished_by_the_next_one(
    tracking, monkeypatch, said
):
    on_stage(weak_champion(), tracking)
    verdict = on_stage(trained(), tracking, RULE.model_copy(update={"approval": "human"}))

    def answer():
        if said == "promote":
            return carry_out(verdict, tracking, "bob@desk", NOW)
        return refuse(verdict, tracking, "bob@desk", "", NOW)

    def killed(self, name, version, key, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_model_version_tag", killed)
        with pytest.raises(KeyboardInterrupt):
            answer()
    version = registry.find(tracking, "tiny", "2")
    assert registry.tags(tracking, version)["approval"] == "waiting"
    entry = answer()
    assert ledger(tracking)[2:] == [(said, 1, entry.after)]  # once, not twice
    assert champion(tracking) == entry.after
    assert registry.tags(tracking, version)["approval"] in ("approved", "rejected")


def test_approval_counts_only_against_the_champion_that_was_judged(tracking):
    on_stage(weak_champion(), tracking)
    verdict = on_stage(trained(), tracking, RULE.model_copy(update={"approval": "human"}))
    other = put(improved(1), tracking)
    move = registry.Move("promote", other.version, "", "by hand", "eve@elsewhere")
    registry.move_champion(tracking, "tiny", move, 1, NOW)
    with pytest.raises(ChampionMoved, match="tiny"):
        carry_out(verdict, tracking, "bob@desk", NOW)
    assert champion(tracking) == other.version


def test_past_verdicts_are_judged_by_another_rule_without_a_network(tracking, monkeypatch):
    on_stage(weak_champion(), tracking)
    on_stage(trained(), tracking)
    monkeypatch.setattr("torch.nn.Module.__call__", None)  # nothing is computed
    strict = what_if(
        tracking,
        "tiny",
        lambda then: then.model_copy(
            update={"promote": then.promote.model_copy(update={"min_gain": 0.4})}
        ),
    )
    assert strict.was.tolist() == ["promote", "promote"]
    assert strict.would_be.tolist() == ["promote", "keep"]
    assert strict.changed.tolist() == [False, True]
    assert strict.reason[1].startswith("not shown to be better by more than 40.0%")
    same = what_if(tracking, "tiny", lambda then: then)
    assert not same.changed.any()


def test_version_that_was_never_judged_says_so(tracking):
    version = put(trained(), tracking)
    with pytest.raises(ModelNotFound, match=r"verdict about tiny/1 .* found none\. Judge it"):
        load_verdict(tracking, version)


def test_renamed_and_reordered_classes_are_compared_by_what_they_mean(tracking, tmp_path):
    """The photos of amber lie in a folder "zinc" now, so the classes stand in another order."""
    on_stage(trained(), tracking)
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
    config = rules(RULE, tracking)
    mapped = config.model_copy(
        update={"classes": config.classes.model_copy(update={"renamed": renamed})}
    )
    version = put(Trained(challenger, report, today), tracking)
    without = rehearse(version, today, config)
    assert without.reason.startswith("the challenger lacks classes of the champion: amber")
    verdict = promote(version, today, mapped, WHO, NOW)
    assert verdict.reason.startswith("a tie keeps the champion: 100.0% against the champion's 100")
    [line] = [line for line in verdict.guards if line.name == "classes"]
    assert line.said == "renamed amber -> zinc; in another order"


def test_only_the_transaction_moves_the_champion():
    """No alias moves without a verdict: nothing else in the product writes it."""
    root = Path(room.__file__).parents[2]
    writers = {
        str(path.relative_to(root))
        for floor in ("regraft", "steps", "pipelines", "commands", "materializers")
        for path in (root / floor).rglob("*.py")
        if "set_alias(" in path.read_text() or "_model_alias(" in path.read_text()
    }
    assert writers == {
        "regraft/registry/champion.py",
        "regraft/registry/registration.py",  # the alias challenger
        "regraft/registry/versions.py",  # the call itself
    }


def test_verdict_is_logged_as_it_is(tracking, caplog):
    caplog.set_level(logging.INFO)
    verdict = on_stage(trained(), tracking)
    assert str(verdict) == "promote: promoted, the first model, and it clears the floor"
