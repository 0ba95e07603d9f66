"""Fine-tuning: frozen tensors stay, the same seed gives the same weights, training learns."""

import hashlib
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import (
    CLASSES,
    COLOURS,
    N_COUNTED,
    POLICIES,
    SETTINGS,
    keep_the_tuned_phase,
    photo,
    splits_of,
    tuned,
)

from regraft.core.config import EmbedConfig, FreezeConfig, TuneConfig
from regraft.core.errors import EmptySplit, FreezeDrift, TrainingDiverged
from regraft.model.classifier import ImageClassifier, regraft, tensor_bytes
from regraft.model.embed import NO_STORE, choose_compute, logits
from regraft.model.freeze import freeze
from regraft.model.pixels import photos_of
from regraft.training.tune import fine_tune, loop
from regraft.training.tune.batch_source import TrainContext, TrainData
from regraft.training.tune.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("prepared_once")

STILL_NORMS = FreezeConfig(
    policy="rules", rules=(("head.*", 1), ("backbone.blocks.4.*conv*", 1), ("*", 0))
)


def settings(**changes):
    return SETTINGS.model_copy(update=changes)


@pytest.fixture
def tuned_is_kept(monkeypatch):
    keep_the_tuned_phase(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Like tuned(), with a store for all tests of the file, to compute embeddings once."""
    store = EmbedConfig(store_url=str(tmp_path_factory.mktemp("store")))

    def train(start, splits, policy="last_block", config=SETTINGS, log=lambda record: None):
        return fine_tune(start, freeze(start, POLICIES[policy]), splits, config, log, store)

    return train


@pytest.fixture(scope="module")
def probe(start, splits, trained):
    """A probe, and the states before the steps of its optimizer; shared, read-only."""
    with pytest.MonkeyPatch.context() as patch:
        steps = spied_steps(patch)
        return SimpleNamespace(challenger=trained(start, splits, "probe"), steps=steps)


@pytest.fixture(scope="module")
def two_epochs(start, splits, trained):
    """A training of two epochs without a warm-up, its log and its steps; shared, read-only."""
    log = []
    with pytest.MonkeyPatch.context() as patch:
        steps = spied_steps(patch)
        config = settings(epochs=2, warmup_fraction=0.0)
        challenger = trained(start, splits, config=config, log=log.append)
    return SimpleNamespace(challenger=challenger, steps=steps, log=log)


@pytest.fixture(scope="module")
def kept_tuning(start, splits, trained):
    """A training whose tuned phase is selected, with a patience of 1; shared, read-only."""
    with pytest.MonkeyPatch.context() as patch:
        keep_the_tuned_phase(patch)
        return trained(start, splits, config=settings(epochs=2, patience=1, ema_decay=0.95))


@pytest.fixture
def steps(monkeypatch):
    return spied_steps(monkeypatch)


def spied_steps(monkeypatch):
    """The states of the network before every step of the optimizer."""
    seen = []
    original = loop._step

    def spied(progress, loss, config, where):
        backbone = progress.network.backbone
        original(progress, loss, config, where)
        seen.append(
            {
                "where": where,
                "frozen_norm_trains": backbone.bn1.training,
                "thawed_norm_trains": backbone.blocks[4][0].bn1.training,
                "thawed_gradient": float(backbone.blocks[4][0].conv_pw.weight.grad.abs().sum()),
                "frozen_gradient": backbone.conv_stem.weight.grad,
            }
        )

    monkeypatch.setattr(loop, "_step", spied)
    return seen


def both_sides(splits, start):
    return TrainData(
        photos_of(splits.train),
        torch.tensor([CLASSES.index(label) for label in splits.train.label]),
        photos_of(splits.validation),
        torch.tensor([CLASSES.index(label) for label in splits.validation.label]),
        start.card.backbone.preprocessing,
        start.card.backbone.architecture,
        len(CLASSES),
    )


def loop_settings(start, config):
    plan = freeze(start, FreezeConfig(policy="last_block"))
    return TrainContext(plan, config, choose_compute(config), Checkpoint("", ""), print, NO_STORE)


def test_a_probe_beats_chance_and_a_shuffled_label_run_does_not(start, trained, tmp_path):
    rows = []
    for number in range(60):
        label = CLASSES[number % 3]
        path = tmp_path / f"{number}.png"
        photo(1000 + number, colour=COLOURS[label]).save(path)
        side = "train" if number < 30 else "validation"
        rows.append(
            {
                "path": str(path),
                "label": label,
                "split": side,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "phash": "",
                "thumbnail": bytes(256),
            }
        )
    frame = pd.DataFrame(rows)
    shuffled = frame.assign(label=np.random.default_rng(0).permutation(frame.label))
    accuracies = [
        trained(start, splits_of(one), "probe").history.validation_accuracy.max()
        for one in (frame, shuffled)
    ]
    assert accuracies[0] > 0.9
    assert accuracies[1] < 0.55


def test_a_probe_trains_nothing_but_the_head(start, probe):
    challenger = probe.challenger
    assert probe.steps == []
    assert set(challenger.history.phase) == {"head"}
    for name, tensor in challenger.classifier.weights.items():
        assert name.startswith("head.") or torch.equal(tensor, start.weights[name])


def test_frozen_tensors_and_counters_are_bit_identical_under_averaging(start, kept_tuning):
    challenger = kept_tuning
    assert challenger.selected_phase == "tune"
    weights, frozen = challenger.classifier.weights, challenger.plan.frozen
    assert int(weights["backbone.bn1.num_batches_tracked"]) == N_COUNTED
    for name in frozen:
        assert tensor_bytes(weights[name]) == tensor_bytes(start.weights[name])
    moved = [n for n in weights if not torch.equal(weights[n], start.weights[n])]
    assert "backbone.blocks.4.0.conv_pw.weight" in moved
    assert challenger.audit.n_drifted == 0


def test_a_drift_fails_the_run_whichever_phase_is_kept(start, splits, trained, monkeypatch):
    original = loop._train_epoch

    def drifting(progress, *given):
        with torch.no_grad():
            progress.network.backbone.bn1.running_mean[0] += 1
        return original(progress, *given)

    monkeypatch.setattr(loop, "_train_epoch", drifting)
    with pytest.raises(FreezeDrift, match=r"backbone\.bn1\.running_mean"):
        trained(start, splits, config=settings(epochs=1))


def test_validation_does_not_disturb_the_modes_of_training(two_epochs):
    steps = two_epochs.steps
    assert len(steps) == 6
    assert not any(step["frozen_norm_trains"] for step in steps)
    assert all(step["thawed_norm_trains"] for step in steps)
    assert all(step["thawed_gradient"] > 0 for step in steps)
    assert all(step["frozen_gradient"] is None for step in steps)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain", marks=pytest.mark.slow),
        pytest.param({"mixup_alpha": 0.4}, id="mixup", marks=pytest.mark.slow),
        pytest.param({"cutmix_alpha": 1.0}, id="cutmix", marks=pytest.mark.slow),
        pytest.param({"mixup_alpha": 0.4, "cutmix_alpha": 1.0}, id="both"),
    ],
)
def test_the_same_seed_gives_the_same_weights(start, splits, tuned_is_kept, changes):
    config = settings(epochs=1, class_weights="balanced", **changes)
    hashes = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)  # any state of the global generator
        challenger = tuned(start, splits, config=config)
        hashes.append(challenger.classifier.content_hash)
    assert challenger.selected_phase == "tune"
    assert hashes[0] == hashes[1]


def test_another_seed_gives_other_weights(start, splits, trained, tuned_is_kept):
    hashes = {
        trained(start, splits, "all", settings(epochs=1, seed=seed)).classifier.content_hash
        for seed in (0, 1)
    }
    assert len(hashes) == 2


def test_training_does_not_change_the_global_generator(start, splits):
    photos, given = both_sides(splits, start), loop_settings(start, settings(mixup_alpha=0.4))
    progress, source = loop._start(start.build(), photos, given, None)
    progress.epoch = 1
    before = torch.get_rng_state()
    loop._train_epoch(progress, source, photos, given)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"batch_size": 64},
        {"augment": "none", "clip_norm": 0.0, "ema_decay": 0.0, "label_smoothing": 0.0},
    ],
    ids=["bf16", "fewer photos than a batch", "everything off"],
)
def test_other_settings_run_too(start, splits, trained, tuned_is_kept, changes):
    challenger = trained(start, splits, config=settings(epochs=1, **changes))
    assert challenger.selected_phase == "tune"
    assert all(t.dtype != torch.bfloat16 for t in challenger.classifier.weights.values())
    assert challenger.stopped == "all 1 epochs done"


def test_no_epochs_leave_the_solved_head(start, splits, trained, steps):
    challenger = trained(start, splits, "all", settings(epochs=0))
    assert (steps, challenger.selected_phase) == ([], "head")
    assert challenger.stopped == "the head is solved"


def test_on_a_tie_the_solved_head_is_kept(start, splits):
    plan, config = freeze(start, STILL_NORMS), settings(epochs=1, lr=1e-6)
    challenger = fine_tune(start, plan, splits, config, lambda record: None)
    best = challenger.history.groupby("phase").validation_accuracy.max()
    assert best["head"] == best["tune"]
    assert challenger.selected_phase == "head"
    for name in ("backbone.blocks.4.0.conv_pw.weight", "backbone.blocks.4.0.bn1.running_mean"):
        assert torch.equal(challenger.classifier.weights[name], start.weights[name])


def test_every_epoch_is_logged_in_order_and_is_in_the_history(two_epochs):
    challenger, log = two_epochs.challenger, two_epochs.log
    assert [(r.phase, r.epoch) for r in log] == [
        ("head", 1),
        ("head", 2),
        ("tune", 1),
        ("tune", 2),
    ]
    assert challenger.history.to_dict("records") == [vars(record) for record in log]
    assert re.search(r"\b100\.0%.*\bhead\b", str(challenger))


def test_the_challenger_has_the_manifest_of_its_training(splits, probe):
    challenger = probe.challenger
    assert len(challenger.manifest) == len(splits.train) + len(splits.validation)
    assert not set(challenger.manifest.sha256) & set(splits.test.sha256)
    card = challenger.classifier.card
    assert (card.dataset_digest, card.classes) == (splits.digest, CLASSES)
    assert card.config["tune.epochs"] == "3"
    assert "torch" in card.versions


def test_a_class_missing_from_validation_shifts_no_label(start, splits):
    frame = splits.frame
    lacking = splits_of(frame[(frame.split != "validation") | (frame.label != "blue")])
    challenger = tuned(start, lacking, "probe")
    scores = logits(challenger.classifier, photos_of(lacking.validation), NO_STORE)
    named = [CLASSES[at] for at in scores.argmax(1)]
    assert np.mean(np.array(named) == lacking.validation.label) == 1.0
    assert challenger.history.validation_accuracy.max() == 1.0


def test_an_empty_validation_split_is_refused(start, splits):
    only_train = splits_of(splits.frame[splits.frame.split == "train"])
    with pytest.raises(EmptySplit, match=r"split\.validation_fraction"):
        tuned(start, only_train)


def test_a_loss_that_is_no_number_names_epoch_and_step(start, splits, trained):
    with pytest.raises(TrainingDiverged, match=r"epoch \d, step \d\b.*tune\.lr .*1e\+30"):
        trained(start, splits, "all", settings(lr=1e30, warmup_fraction=0.0))


def test_a_validation_loss_that_is_no_number_names_the_epoch(start, splits):
    photos, given = both_sides(splits, start), loop_settings(start, SETTINGS)
    progress, source = loop._start(start.build(), photos, given, None)
    progress.epoch = 2
    with torch.no_grad():
        progress.average.module.head.bias[0] = torch.nan
    with pytest.raises(TrainingDiverged, match=r"validation.*\bnan\b.*\bepoch 2\b"):
        loop._validate(progress, source, photos)


def test_weights_that_are_no_numbers_are_refused_before_training(start, splits):
    name = "backbone.conv_stem.weight"
    broken = ImageClassifier(start.card, start.weights | {name: start.weights[name] * torch.nan})
    with pytest.raises(TrainingDiverged, match=r"embeddings.*tune\.precision=fp32"):
        tuned(broken, splits, "probe")


def test_patience_ends_a_phase_that_gains_nothing(start, splits):
    config = settings(epochs=9, patience=2, lr=1e-30, augment="none")
    challenger = fine_tune(start, freeze(start, STILL_NORMS), splits, config, lambda record: None)
    assert challenger.stopped.endswith(" 2 epochs")
    assert (challenger.history.phase == "tune").sum() == 3


def test_the_tuned_phase_is_measured_against_its_own_best(kept_tuning):
    """The head's record has an unbeatable loss; with patience 1 it would end the phase at once."""
    assert kept_tuning.history.validation_loss.iloc[0] == 0
    assert (kept_tuning.history.phase == "tune").sum() > 1


def test_the_best_epoch_is_kept_not_the_last():
    progress = loop.Progress(*(torch.nn.Linear(1, 1),) * 2, *(None,) * 4)
    progress.average = torch.optim.swa_utils.AveragedModel(progress.network)
    for epoch, loss in enumerate((3.0, 1.0, 2.0), start=1):
        with torch.no_grad():
            progress.average.module.weight.fill_(epoch)
        record = loop.EpochRecord("tune", epoch, 0.0, 0.0, loss, 0.0, 0.0, 0.0, 1.5)
        loop._record_epoch(progress, record)
    assert progress.best.epoch == 2
    assert float(progress.best_weights["weight"]) == 2
    assert progress.spent_s == 4.5


def test_the_time_budget_ends_training_after_the_epoch_that_passes_it(start, splits, trained):
    challenger = trained(start, splits, config=settings(time_budget_s=1e-6))
    assert " 1e-06 s " in challenger.stopped
    assert (challenger.history.phase == "tune").sum() == 1


def test_the_learning_rate_rises_then_falls_to_nothing(two_epochs):
    scales = [loop.lr_scale(step, 10, 0.4) for step in range(11)]
    assert scales[:4] == [0.25, 0.5, 0.75, 1.0]
    assert scales[4:] == pytest.approx([1.0, 0.933, 0.75, 0.5, 0.25, 0.067, 0.0], abs=1e-3)
    assert loop.lr_scale(0, 10, 0.0) == 1.0
    tune = two_epochs.challenger.history.query("phase == 'tune'")
    assert tune.lr.tolist() == pytest.approx([0.005, 0.0])


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_no_batch_ever_holds_one_photo_and_every_photo_comes_once(batch_size):
    config = TuneConfig(batch_size=batch_size)
    for n_photos in range(2, 40):
        batches = loop._order(n_photos, config, epoch=1)
        assert min(map(len, batches)) > 1
        assert sorted(at for batch in batches for at in batch) == list(range(n_photos))
    assert loop._order(20, config, 1) != loop._order(20, config, 2)


def test_class_weights_are_inverse_frequencies(start, splits):
    photos = replace(
        both_sides(splits, start), train_targets=torch.tensor([0, 0, 0, 1]), n_classes=2
    )
    weights = loop._class_weights(photos, settings(class_weights="balanced"), torch.device("cpu"))
    assert weights.tolist() == pytest.approx([4 / 6, 2])
    assert loop._class_weights(photos, SETTINGS, torch.device("cpu")) is None


def test_averages_follow_floats_and_copy_counters():
    averages = [torch.tensor([0.0, 0.1]), torch.tensor(123_457)]
    loop._update_averages(0.75, averages, [torch.tensor([1.0, 0.1]), torch.tensor(123_458)], None)
    assert averages[0].tolist() == torch.tensor([0.25, 0.1]).tolist()
    assert int(averages[1]) == 123_458


def test_a_warm_start_trains_on_with_its_classes_in_another_order(splits, probe, trained):
    champion = regraft(probe.challenger.classifier, ("green", "blue", "amber"))
    challenger = trained(champion, splits, config=settings(epochs=2))
    scores = logits(challenger.classifier, photos_of(splits.test), NO_STORE)
    named = [challenger.classifier.card.classes[at] for at in scores.argmax(1)]
    assert named == splits.test.label.tolist()
    assert challenger.classifier.card.contract.retained == ("green", "blue", "amber")
