"""New class names and thresholds reach service as a revision: the champion's weights, judged."""

import pytest
from tiny_train import NAME, last_run, output, stages

from regraft import registry
from regraft.registry.tracking import connect

pytestmark = pytest.mark.pipeline

RENAME = "classes.renamed={amber: apricot}"
UNSURE = "predict.abstain_below=0.35"


def rename_folder(world):
    (world.photos / "amber").rename(world.photos / "apricot")


def served(world, number: int):
    return registry.load(world.tracking, version_of(world, number))


def version_of(world, number: int):
    return registry.find(world.tracking, NAME, str(number))


def test_retrain_carries_out_a_rename_and_a_threshold_without_a_training(world):
    rename_folder(world)
    attempt = world.retrain(RENAME, UNSURE)
    assert (attempt.advice.decision, attempt.outcome, attempt.champion) == ("revise", "promote", 2)
    assert "amber is called apricot" in attempt.reason
    assert {"fine_tune", "interpolate"}.isdisjoint(stages(last_run()))
    old, new = served(world, 1), served(world, 2)
    assert new.card.classes == ("apricot", "blue", "green")
    assert (new.card.abstain_below, new.card.config["tune.epochs"]) == (0.35, "2")
    assert all(new.weights[name].equal(old.weights[name]) for name in old.weights)
    # What reads the champion follows: its photos, its reference, the comparison with it.
    assert "apricot" in set(registry.load_manifest(world.tracking, version_of(world, 2)).label)
    reference = registry.load_reference(world.tracking, version_of(world, 2))
    assert {*reference.photos.label, *reference.photos.predicted} <= set(new.card.classes)
    assert version_of(world, 2).run_id != version_of(world, 1).run_id
    verdict = output(last_run(), "promote")
    assert [line.outcome for line in verdict.guards if line.name == "weights"] == ["passed"]


@pytest.mark.slow
def test_after_a_rename_nothing_has_changed(world):
    rename_folder(world)
    world.retrain(RENAME)
    again = world.retrain(RENAME, "tune.epochs=2")
    assert again.outcome == "skip"
    assert "nothing has changed" in again.reason
    assert world.retrain(RENAME, "promote.level=0.1").advice.delta.n_changed == 0


@pytest.mark.slow
def test_train_carries_out_a_rename_and_then_a_threshold_with_the_same_weights(world):
    rename_folder(world)
    run = world.train(RENAME)
    assert "fine_tune" not in stages(run)
    assert output(run, "promote").moves_champion
    assert served(world, 2).card.classes == ("apricot", "blue", "green")
    run = world.train(RENAME, UNSURE)  # the photos' labels are new to the cache: it trains
    assert output(run, "register").version == 3


@pytest.mark.slow
def test_train_with_another_threshold_takes_the_weights_from_the_cache(world):
    run = world.train(UNSURE)
    assert stages(run)["fine_tune"] == "cached"
    verdict = output(run, "promote")
    assert (verdict.challenger, verdict.decision) == (2, "promote")
    client = connect(world.tracking)
    runs = [client.get_run(version_of(world, number).run_id) for number in (1, 2)]
    assert [run.data.params["predict.abstain_below"] for run in runs] == ["0.0", "0.35"]
