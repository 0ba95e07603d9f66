"""Blends: weighted means, correct handling of new classes, and the rule of choice."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CLASSES, keep_the_tuned_phase, tuned

from regraft.core.config import Config, EmbedConfig, PromoteConfig, RetrainConfig
from regraft.core.errors import ConfigError
from regraft.model.classifier import ImageClassifier, load_classifier
from regraft.model.embed import logits
from regraft.model.pixels import photos_of
from regraft.registry.blend_record import read_blend, training_start
from regraft.registry.interpolate import Trial, align_champion, blend_models, interpolate

pytestmark = pytest.mark.usefixtures("prepared_once")
HALVES = Config(retrain=RetrainConfig(interpolations=(0.5,)))


def with_limit(limit: float, *alphas: float) -> Config:
    return Config(
        promote=PromoteConfig(max_negative_flips=limit),
        retrain=RetrainConfig(interpolations=alphas),
    )


@pytest.fixture(scope="module")
def challenger(start, splits):
    """The challenger; its last block was trained, so its backbone differs from the champion's."""
    with pytest.MonkeyPatch.context() as patch:
        keep_the_tuned_phase(patch)
        return tuned(start, splits)


@pytest.fixture(scope="module")
def probe(start, splits):
    """A classifier on the pretrained backbone that predicts nearly every photo correctly."""
    return tuned(start, splits, "probe").classifier


@pytest.fixture(scope="module")
def champion(start):
    """The champion: row k of its head is k + 1, on the pretrained backbone."""
    rows = torch.arange(1.0, 4.0)
    head = {"head.weight": rows[:, None].repeat(1, 256) * 1e-3, "head.bias": rows.clone()}
    return ImageClassifier(start.card, start.weights | head).with_card(temperature=1.5)


def predicting(classifier, label, logit=50.0):
    """Return the classifier with a head that always predicts this class."""
    bias = torch.zeros(len(classifier.card.classes))
    bias[classifier.card.classes.index(label)] = logit
    head = {"head.weight": torch.zeros_like(classifier.weights["head.weight"]), "head.bias": bias}
    return replace(classifier, weights=classifier.weights | head)


def interpolated(challenger, trained, champion, splits, config=HALVES):
    """Interpolate a challenger with this classifier."""
    return interpolate(replace(challenger, classifier=trained), champion, splits, config)


def test_a_blend_is_the_weighted_mean_of_parameters_and_norm_statistics(champion, challenger):
    new = challenger.classifier
    blend = blend_models(align_champion(champion, new), new, 0.25)
    assert blend.weights.keys() == new.weights.keys()
    moved = [n for n in new.weights if not torch.equal(new.weights[n], champion.weights[n])]
    assert any("running_mean" in name for name in moved)
    for name, tensor in blend.weights.items():
        old, trained = champion.weights[name], new.weights[name]
        assert tensor.dtype == trained.dtype
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.75 * old + 0.25 * trained)
        else:
            assert torch.equal(tensor, trained)


def test_what_is_equal_in_both_stays_bit_for_bit(champion, challenger):
    new = challenger.classifier
    blend = blend_models(align_champion(champion, new), new, 0.3)
    same = [n for n, t in new.weights.items() if torch.equal(t, champion.weights[n])]
    assert len(same) > 20
    assert all(torch.equal(blend.weights[name], champion.weights[name]) for name in same)


def test_a_blend_records_its_parents_in_the_card(champion, challenger, tmp_path):
    new = challenger.classifier.with_card(parent="started from")
    blend_models(align_champion(champion, new), new, 0.25).save(tmp_path)
    card = load_classifier(tmp_path).card
    assert (card.parent, card.contract.retained) == (champion.content_hash, CLASSES)
    found = read_blend(card)
    assert (found.alpha, found.champion, found.start) == (
        0.25,
        champion.content_hash,
        "started from",
    )
    assert training_start(card) == "started from"
    assert card.config["tune.epochs"] == "3"
    assert (read_blend(new.card), training_start(new.card)) == (None, "started from")


def with_another_class(classifier: ImageClassifier) -> ImageClassifier:
    """Return a challenger with another class order, with "violet" and without "amber"."""
    generator = torch.Generator().manual_seed(3)
    head = {
        "head.weight": torch.randn(3, 256, generator=generator),
        "head.bias": torch.randn(3, generator=generator),
    }
    card = classifier.card.model_copy(update={"classes": ("violet", "green", "blue")})
    return ImageClassifier(card, classifier.weights | head)


def test_a_new_class_keeps_the_row_of_the_challenger(champion, start):
    new = with_another_class(start)
    for alpha in (0.1, 0.9):
        blend = blend_models(align_champion(champion, new), new, alpha)
        for name in ("head.weight", "head.bias"):
            assert torch.equal(blend.weights[name][0], new.weights[name][0])


def test_the_mean_lead_of_a_new_class_is_that_of_the_challenger(champion, start):
    new = with_another_class(start)
    embedding = torch.randn(256, generator=torch.Generator().manual_seed(4)).double()

    def lead(classifier):
        weight, bias = (classifier.weights[name].double() for name in ("head.weight", "head.bias"))
        scores = weight @ embedding + bias
        return scores[0] - scores[1:].mean(), scores[1] - scores[2]

    blend = blend_models(align_champion(champion, new), new, 0.25)
    torch.testing.assert_close(lead(blend)[0], lead(new)[0], atol=1e-4, rtol=0)
    old = champion.weights["head.weight"].double() @ embedding + champion.weights["head.bias"]
    expected = 0.75 * (old[2] - old[1]) + 0.25 * lead(new)[1]  # of green over blue
    torch.testing.assert_close(lead(blend)[1], expected, atol=1e-4, rtol=0)


def test_alignment_changes_no_prediction_of_the_champion_among_its_classes(champion, start):
    known = align_champion(champion, with_another_class(start))
    for name in ("head.weight", "head.bias"):
        old, rows = champion.weights[name], known.weights[name]
        torch.testing.assert_close(rows[1] - rows[2], old[2] - old[1])


def test_a_renamed_class_is_matched(champion, start):
    classes = ("blue", "green", "gold")
    new = predicting(start.with_card(classes=classes), "gold")
    known = align_champion(champion, new, {"amber": "gold"})
    assert known.weights["head.bias"].tolist() == [2, 3, 1]
    assert known.card.contract.renamed == (("amber", "gold"),)


def test_without_a_champion_the_challenger_is_unchanged(challenger, splits):
    found = interpolate(challenger, None, splits, HALVES)
    assert found.challenger is challenger
    assert (found.interpolation.alpha, found.interpolation.trials) == (1.0, ())
    assert (found.interpolation.flips_saved, found.interpolation.is_blend) == (0, False)
    assert (found.interpolation.champion, found.interpolation.n) == ("", 0)
    assert str(found.interpolation) == f"interpolate: {found.interpolation.reason}"


def other_network(classifier):
    info = classifier.card.backbone.model_copy(update={"architecture": "timm:another"})
    return classifier.with_card(backbone=info)


def other_pixels(classifier):
    info = classifier.card.backbone
    seen = info.preprocessing.model_copy(update={"size": 48})
    return classifier.with_card(backbone=info.model_copy(update={"preprocessing": seen}))


def other_weights(classifier):
    info = classifier.card.backbone.model_copy(update={"sha256": "0" * 64})
    return classifier.with_card(backbone=info)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other_network, r"\(timm:another\)"),
        (other_pixels, r"\bphotos\b"),
        (other_weights, r"\bweights\b.*\(file:.*tiny\.safetensors\)"),
        (lambda c: c.with_card(classes=("a", "b", "c")), r"\bclass\b"),
    ],
)
def test_incompatible_models_are_not_blended(champion, challenger, splits, change, why):
    found = interpolate(challenger, change(champion), splits, HALVES)
    assert found.challenger is challenger
    assert re.search(why, found.interpolation.reason)
    assert (found.interpolation.alpha, found.interpolation.trials) == (1.0, ())
    assert found.interpolation.champion == change(champion).content_hash


def test_no_blend_if_the_start_is_no_ancestor_of_the_champion(champion, challenger, splits, start):
    serving = champion.with_card(parent="grandparent")

    def told(parent):
        trained = predicting(start, "blue").with_card(parent=parent)
        return interpolated(challenger, trained, serving, splits).interpolation

    assert (told("a stranger").trials, told("a stranger").alpha) == ((), 1.0)
    for parent in ("", "grandparent", serving.content_hash):
        assert len(told(parent).trials) == 2


def test_the_start_of_a_blended_champion_counts_as_its_ancestor(
    champion, challenger, splits, start
):
    trained = predicting(start, "blue").with_card(parent="the first")
    serving = blend_models(align_champion(champion, trained), trained, 0.5)
    assert len(interpolated(challenger, trained, serving, splits).interpolation.trials) == 2


def test_the_reason_says_why_no_blend_was_tried(champion, challenger, splits):
    none = interpolate(challenger, champion, splits, with_limit(0.1))
    assert none.interpolation.trials == ()
    assert "retrain.interpolations" in none.interpolation.reason
    unjudged = replace(splits, frame=splits.frame[splits.frame.split != "validation"])
    found = interpolate(challenger, champion, unjudged, HALVES).interpolation
    assert found.trials == ()
    assert "validation" in found.reason


def test_identical_weights_are_not_blended(challenger, splits):
    serving = challenger.classifier.with_card(temperature=2.0, abstain_below=0.5)
    found = interpolate(challenger, serving, splits, HALVES)
    assert found.challenger is challenger
    assert found.interpolation.trials == ()
    assert "weights" in found.interpolation.reason


def test_a_rename_that_would_merge_two_classes_is_refused(champion, challenger, splits):
    config = HALVES.model_copy(
        update={"classes": HALVES.classes.model_copy(update={"renamed": {"amber": "blue"}})}
    )
    with pytest.raises(ConfigError, match=r"\bamber\b.*\bblue\b"):
        interpolate(challenger, champion, splits, config)


def test_trials_are_the_results_of_the_blends(champion, challenger, splits):
    config = with_limit(1.0, 0.25, 0.75, 0.25)
    found = interpolate(challenger, champion, splits, config)
    labels = splits.validation.label.to_numpy()
    photos = photos_of(splits.validation)

    def right(classifier):
        said = logits(classifier, photos, config.embed).argmax(1).numpy()
        return np.array(CLASSES)[said] == labels

    old, new = right(champion), challenger.classifier
    known = align_champion(champion, new)
    assert [trial.alpha for trial in found.interpolation.trials] == [1.0, 0.75, 0.25]
    for trial in found.interpolation.trials:
        is_right = right(blend_models(known, new, trial.alpha) if trial.alpha < 1 else new)
        assert trial == Trial(trial.alpha, is_right.mean(), int((old & ~is_right).sum()))
    assert (found.interpolation.n, found.interpolation.n_shared) == (9, 9)
    assert found.interpolation.trained == new.content_hash


def test_fewer_flips_win_at_equal_accuracy(start, splits, challenger):
    serving, trained = predicting(start, "amber"), predicting(start, "blue", 25.0)
    found = interpolated(challenger, trained, serving, splits)
    told = found.interpolation
    assert told.trials == (Trial(1.0, 1 / 3, 3), Trial(0.5, 1 / 3, 0))
    assert (told.alpha, told.flips_saved, told.is_blend) == (0.5, 3, True)
    assert found.challenger.classifier.weights["head.bias"].tolist() == [25, 12.5, 0]
    numbers = re.findall(r"\d+(?:\.\d+)?%?", told.reason)
    blend, itself = ["50%", "50%", "33.3%", "0"], ["33.3%", "9", "3", "9"]
    assert numbers == [*blend, *itself, "10.0%"]  # the last: the limit


def test_on_a_complete_tie_the_challenger_itself_is_chosen(start, splits, challenger):
    trained = predicting(start, "amber", 25.0)
    found = interpolated(challenger, trained, predicting(start, "amber"), splits)
    assert found.challenger.classifier is trained
    numbers = re.findall(r"\d+(?:\.\d+)?%?", found.interpolation.reason)
    assert numbers == ["33.3%", "9", "0", "9", "10.0%"]


def test_on_a_tie_of_blends_the_larger_alpha_is_chosen(start, splits, challenger):
    serving, trained = predicting(start, "amber"), predicting(start, "blue", 25.0)
    config = with_limit(0.0, 0.1, 0.6, 0.4)
    assert interpolated(challenger, trained, serving, splits, config).interpolation.alpha == 0.6


def test_accuracy_ranks_before_flips_but_not_beyond_the_limit(start, splits, challenger, probe):
    """The challenger knows two classes but not the champion's only class: three flips of nine."""
    bias = probe.weights["head.bias"] - torch.tensor([1e3, 0, 0])
    trained = replace(probe, weights=probe.weights | {"head.bias": bias})
    serving = predicting(start, "amber", 1e5)
    kept = {
        limit: interpolated(
            challenger, trained, serving, splits, with_limit(limit, 0.5)
        ).interpolation
        for limit in (0.33, 0.34)
    }
    assert [trial.n_flips for trial in kept[0.33].trials] == [3, 0]
    assert kept[0.33].trials[0].accuracy > kept[0.33].trials[1].accuracy
    assert (kept[0.33].alpha, kept[0.33].flips_saved) == (0.5, 3)
    assert kept[0.34].alpha == 1.0


def test_if_no_candidate_is_within_the_limit_the_fewest_flips_win(start, splits, challenger, probe):
    """The challenger predicts blue; at alpha 0.5, half of the other photos flip."""
    scores = logits(probe, photos_of(splits.validation), HALVES.embed)
    labels = splits.validation.label
    others = scores[torch.tensor((labels != "blue").tolist())]
    lead = (others.amax(dim=1) - others[:, 1]).sort().values
    assert lead[0] > 0
    trained = predicting(start, "blue", float(lead[2:4].mean()))
    told = interpolated(challenger, trained, probe, splits, with_limit(0.0, 0.5)).interpolation
    assert [trial.n_flips for trial in told.trials] == [6, 3]
    assert (told.alpha, told.flips_saved) == (0.5, 3)
    assert "limit" in told.reason  # no other reason contains this word
    assert re.search(r"\b50% challenger\b", told.reason)


def test_photos_of_a_new_class_count_for_accuracy_but_not_as_flips(start, splits, challenger):
    serving = predicting(start, "amber").with_card(classes=("amber", "blue", "grey"))  # no green
    told = interpolated(challenger, predicting(start, "blue"), serving, splits).interpolation
    assert (told.n, told.n_shared) == (9, 6)
    assert told.trials[0] == Trial(1.0, 1 / 3, 3)


def test_a_shared_backbone_runs_once_and_not_at_all_with_stored_embeddings(
    start, splits, challenger, tmp_path, passed
):
    config = HALVES.model_copy(update={"embed": EmbedConfig(store_url=str(tmp_path))})
    for _ in range(2):
        interpolated(
            challenger, predicting(start, "blue"), predicting(start, "amber"), splits, config
        )
        assert sum(passed) == 9


def test_only_the_embeddings_of_the_chosen_blend_are_stored(
    champion, challenger, splits, tmp_path, passed
):
    config = with_limit(0.0, 0.1, 0.2)
    config = config.model_copy(update={"embed": EmbedConfig(store_url=str(tmp_path))})
    trained = predicting(challenger.classifier, "blue", 25.0)
    found = interpolated(challenger, trained, predicting(champion, "green"), splits, config)
    assert found.interpolation.alpha == 0.2
    assert sum(passed) == 9 * 4  # champion, challenger, two blends
    assert len(list(tmp_path.iterdir())) == 3
    scores = logits(found.challenger.classifier, photos_of(splits.validation), config.embed)
    assert sum(passed) == 9 * 4
    fresh = logits(found.challenger.classifier, photos_of(splits.validation), HALVES.embed)
    assert torch.equal(scores, fresh)


def test_a_blend_keeps_the_training_record_and_is_reproducible_bit_for_bit(
    champion, challenger, splits
):
    trained = predicting(challenger.classifier, "blue", 25.0)
    one, other = (
        interpolated(challenger, trained, predicting(champion, "green"), splits) for _ in range(2)
    )
    assert one.interpolation.is_blend
    assert one.challenger.classifier.content_hash == other.challenger.classifier.content_hash
    assert one.challenger.history is challenger.history
    assert (one.challenger.plan, one.challenger.audit) == (challenger.plan, challenger.audit)
    assert one.challenger.manifest is challenger.manifest
