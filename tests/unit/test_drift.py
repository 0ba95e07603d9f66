"""Drift tests: false alarms at the stated rate, alarms on a distribution shift."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom

from regraft.core.config import DriftConfig
from regraft.drift import NewPhotos, Reference, run_drift_tests
from regraft.drift.shares import SHARES, Errors, estimate_shares, shares_p_value, shares_table
from regraft.drift.two_sample import Permutations, kernel, ks, mmd, p_values, whiten

LEVEL = 0.05
N_DRAWS = 150  # with them, no alarm at all is as suspicious as too many
N_DRAWS_SLOW = 500
CLASSES = ("amber", "blue", "green")
SHARES_OF = np.array([0.5, 0.3, 0.2])
ANSWERS = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8]])
# So few permutations show nothing at the default level; here they are enough for five tests.
CONFIG = DriftConfig(level=LEVEL, n_permutations=200, min_photos=10)


def _population(n: int = 6000) -> tuple[np.ndarray, pd.DataFrame]:
    """Embeddings (n, 32) in clumps as photos of classes are, and how the photos look."""
    generator = np.random.default_rng(7)
    label = np.arange(n) % 3
    said = (generator.random(n)[:, None] > ANSWERS[label].cumsum(axis=1)).sum(axis=1)
    centres = generator.normal(size=(4, 32)) * 2
    embeddings = centres[label] + generator.standard_t(5, size=(n, 32))
    photos = pd.DataFrame(
        {
            "label": label,
            "predicted": said,
            "brightness": generator.beta(4, 5, n),
            "sharpness": generator.normal(3, 0.5, n),
            "width": generator.choice([400, 640], n),
            "height": 480,
            "is_far": False,
            "slice:camera": np.where(generator.random(n) < 0.5, "old", "").astype(object),
        }
    )
    return embeddings.astype(np.float32), photos


EMBEDDINGS, PHOTOS = _population()


def drawn(n: int, generator: np.random.Generator, shares=SHARES_OF) -> np.ndarray:
    """Positions of n photos, with these shares of the classes."""
    weights = shares[PHOTOS.label.to_numpy()]
    return generator.choice(len(PHOTOS), n, p=weights / weights.sum())


def reference_of(training: np.ndarray, validation: np.ndarray) -> Reference:
    label, said = PHOTOS.label.to_numpy(), PHOTOS.predicted.to_numpy()
    confusion = np.zeros((3, 3), np.int64)
    np.add.at(confusion, (label[validation], said[validation]), 1)
    counts = np.bincount(label[training], minlength=3)
    errors = Errors(confusion, counts, counts / counts.sum())
    embeddings = torch.from_numpy(EMBEDDINGS[training]).half()
    return Reference(embeddings, PHOTOS.iloc[training], errors, "train", "float32 on cpu")


def looked_at(seed: int, shares=SHARES_OF, config: DriftConfig = CONFIG, change=lambda *new: new):
    """The tests of sixty photos drawn as the hundred of a reference were, or changed."""
    generator = np.random.default_rng(seed)
    reference = reference_of(drawn(100, generator), drawn(120, generator))
    chosen = drawn(60, generator, shares)
    embeddings, photos = change(EMBEDDINGS[chosen], PHOTOS.iloc[chosen])
    said = np.bincount(photos.predicted, minlength=3)
    training = reference.errors.training_shares
    table = zip(CLASSES, training, training, training, training, said, strict=True)
    new = NewPhotos(embeddings, photos, pd.DataFrame(table, columns=list(SHARES)))
    return run_drift_tests(reference, new, config, seed)


def names(found) -> set[str]:
    return {one.name for one in found if one.outcome == "drifted"}


def bounds(n: int, level: float) -> tuple[float, float]:
    """How many of n may be alarms, but for one time in a thousand on each side."""
    return binom.ppf(0.001, n, level), binom.ppf(0.999, n, level)


@pytest.fixture(
    scope="module", params=[N_DRAWS, pytest.param(N_DRAWS_SLOW, marks=pytest.mark.slow)]
)
def looks(request):
    return [looked_at(seed) for seed in range(request.param)]


def test_a_whole_look_at_photos_alike_is_silent_at_the_stated_rate(looks):
    n_alarms = sum(bool(names(found)) for found in looks)
    low, high = bounds(len(looks), LEVEL)
    assert low > 0
    assert low <= n_alarms <= high


def test_each_test_alone_is_silent_at_its_rate_too(looks):
    low, high = bounds(len(looks), LEVEL)
    for at, one in enumerate(looks[0]):
        n_small = sum(found[at].p_value <= LEVEL for found in looks)
        # The test of class shares is Bayesian: it alarms at most at its level, sometimes less.
        least = 0 if one.name in ("class shares", "size") else low
        assert least <= n_small <= high, one.name


def moved(embeddings, photos):
    return embeddings + 0.8, photos


def mixed(embeddings, photos):
    """A class that nobody knew, of every third photo."""
    strange = (np.arange(len(embeddings)) % 3 == 0)[:, None]
    return embeddings * ~strange + (embeddings * 0.5 + 4) * strange, photos


def huge(embeddings, photos):
    return np.where(np.arange(len(embeddings))[:, None] < 3, 1e6, embeddings), photos


def test_numbers_too_large_for_the_references_precision_are_no_crash():
    (content,) = [one for one in looked_at(0, change=huge) if one.name == "content"]
    assert 0 < content.p_value <= 1


def darker(embeddings, photos):
    return embeddings, photos.assign(brightness=photos.brightness * 0.6)


def blurred(embeddings, photos):
    return embeddings, photos.assign(sharpness=photos.sharpness - 1)


def smaller(embeddings, photos):
    return embeddings, photos.assign(width=320)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (moved, "content"),
        (mixed, "content"),
        (darker, "brightness"),
        (blurred, "sharpness"),
        (smaller, "size"),
    ],
)
def test_what_changed_is_found_and_named(change, name):
    for seed in range(5):
        assert name in names(looked_at(seed, change=change))


def test_the_effect_is_said_in_plain_words():
    said = {one.name: one.effect for one in looked_at(0, change=darker)}
    halves = r"\([^()]*: {low} to {high} -> {now} to {now}\)"
    number, low = r"0\.\d+", r"0\.32\d*"
    told = rf"\bdarker: 0\.461 -> 0\.289 {halves.format(low=low, high=number, now=number)}"
    assert re.search(told, said["brightness"])
    told = rf": ({number}) -> \1 megapixels {halves.format(low=number, high=number, now=number)}"
    assert re.search(told, said["size"])  # the median is the same
    assert re.search(r"\b(amber|blue|green): \d+% -> \d+%", said["class shares"])
    assert re.findall(r"\d+%", said["content"]) == ["0%", "5%"]  # far, and what would be usual


def test_other_class_shares_are_found():
    for seed in range(5):
        assert "class shares" in names(looked_at(seed, shares=np.array([0.1, 0.2, 0.7])))


def test_a_drift_within_a_slice_is_found_there():
    def one_camera(embeddings, photos):
        old = (photos["slice:camera"] == "old").to_numpy()[:, None]
        return embeddings + 1.5 * old, photos

    found = {one.name: one for one in looked_at(1, change=one_camera)}
    assert found["camera=old"].outcome == "drifted"


def test_a_slice_that_the_reference_lacks_is_told_and_not_tested():
    def new_camera(embeddings, photos):
        return embeddings, photos.assign(**{"slice:camera": "newest"})

    (one,) = [one for one in looked_at(0, change=new_camera) if one.name == "camera=newest"]
    assert (one.p_value, one.corrected, one.outcome) == (None, None, "inconclusive")
    assert re.findall(r"\d+", one.effect) == ["60", "0"]  # new photos, and of the reference


def test_the_same_seed_finds_the_same():
    assert looked_at(3) == looked_at(3)


def test_so_many_permutations_are_made_that_the_corrected_level_can_be_reached():
    few = DriftConfig(level=0.1, n_permutations=100, min_photos=5)

    def many_slices(embeddings, photos):
        return embeddings + 3, photos.assign(**{"slice:camera": "old", "brightness": 0.0})

    found = looked_at(0, config=few, change=many_slices)
    assert {"content", "brightness", "camera=old"} <= names(found)
    assert min(one.p_value for one in found) < 1 / 101


def test_every_permutation_has_as_many_new_photos():
    blocks = list(Permutations(7, 5, 300, 0).blocks())
    assert [len(block) for block in blocks] == [256, 44]
    assert (np.concatenate(blocks).sum(axis=1) == 5).all()
    assert Permutations(2, 1, 1, 0).observed.tolist() == [[0, 0, 1]]


def test_mmd_is_that_of_the_paper():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(6, 3)), generator.normal(1, 1, size=(4, 3))
    pooled = np.concatenate([x, y])
    apart = ((pooled[:, None] - pooled) ** 2).sum(axis=2)
    alike = np.exp(-apart / (2 * np.median(apart[np.triu_indices(10, 1)])))
    expected = alike[:6, :6].mean() + alike[6:, 6:].mean() - 2 * alike[:6, 6:].mean()
    ours = mmd(kernel(pooled))(Permutations(6, 4, 1, 0).observed)[0] * (1 / 6 + 1 / 4) ** 2
    assert ours == pytest.approx(expected)


def test_kolmogorov_smirnov_counts_ties_together():
    statistic = ks(np.array([1.0, 1.0, 1.0, 2.0]))
    # Of the new one at 2 all lie above the reference; of any at 1 a third of the others do not.
    observed = statistic(np.array([[0, 0, 0, 1], [1, 0, 0, 0]], dtype=np.float32))
    assert observed == pytest.approx([0.75, 0.25])
    permutations = Permutations(3, 1, 4000, 0)
    assert p_values([statistic], permutations)[0] == pytest.approx(0.25, abs=0.03)
    assert p_values([ks(np.ones(4))], permutations) == [1.0]


@pytest.mark.parametrize("n", [9, 99, 999])
def test_the_smallest_p_value_is_one_in_all_permutations_and_what_was_seen(n):
    """What was seen counts as one of the permutations: no p-value is 0, nor too small by one."""
    apart = ks(np.repeat([0.0, 1.0], 50))
    assert p_values([apart], Permutations(50, 50, n, 0)) == [1 / (1 + n)]
    errors = Errors(np.diag([50, 50, 50]), np.array([50, 30, 20]), SHARES_OF)
    assert shares_p_value(np.array([0, 0, 500]), errors, n, 0) == 1 / (1 + n)


def test_photos_that_are_all_the_same_are_no_crash_and_no_alarm():
    flat = whiten(np.ones((6, 4)), np.ones((5, 4)))
    assert flat.shape == (11, 0)
    assert p_values([mmd(kernel(flat))], Permutations(6, 5, 100, 0)) == [1.0]


@pytest.mark.parametrize("n_numbers", [5, 40])
def test_whitened_components_are_even_and_independent(n_numbers):
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(n_numbers, n_numbers))
    components = whiten(*(generator.normal(size=(10, n_numbers)) @ mixing for _ in range(2)))
    spread = np.eye(components.shape[1])
    assert np.allclose(components.T @ components / 20, spread, atol=1e-3)


def test_estimated_shares_of_sure_answers_are_those_of_the_answers():
    probs = np.eye(3)[[0, 0, 1, 2]]
    assert estimate_shares(probs, np.full(3, 1 / 3), np.ones((1, 4)))[0] == pytest.approx(
        [0.5, 0.25, 0.25]
    )


def test_estimated_shares_see_through_the_usual_mistakes():
    # Each photo is known with 80 %: of 60 % in the first class, the plain mean would say 56 %.
    said = np.repeat([0, 1], [560, 440])
    probs = np.where(np.eye(2)[said] == 1, 0.8, 0.2)
    assert estimate_shares(probs, np.full(2, 0.5), np.ones((1, 1000)))[0][0] == pytest.approx(0.6)


def test_the_table_of_shares_has_intervals_around_its_estimates():
    errors = Errors(np.diag([10, 10, 10]), np.array([50, 30, 20]), SHARES_OF)
    probs = np.random.default_rng(0).dirichlet((5, 3, 2), size=200)
    table = shares_table(probs, errors, CLASSES, 0)
    assert list(table.columns) == list(SHARES)
    assert table.training.tolist() == [0.5, 0.3, 0.2]
    assert table.estimated.sum() == pytest.approx(1)
    assert ((table.low <= table.estimated) & (table.estimated <= table.high)).all()
    assert table.n_predicted.sum() == 200


def test_a_class_without_a_training_photo_breaks_nothing():
    errors = Errors(np.diag([3, 3, 0]), np.array([9, 9, 0]), np.array([0.5, 0.5, 0.0]))
    assert 0 < shares_p_value(np.array([5, 4, 1]), errors, 100, 0) <= 1
    assert shares_table(np.full((4, 3), 1 / 3), errors, CLASSES, 0).estimated.notna().all()


def test_few_validation_photos_alarm_nobody():
    """Two of each class, of a classifier that takes every fourth blue photo for an amber one."""
    answers = np.array([[0.95, 0.03, 0.02], [0.25, 0.7, 0.05], [0.05, 0.05, 0.9]])
    n_alarms = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        confusion = np.array([generator.multinomial(2, row) for row in answers])
        errors = Errors(confusion, np.array([10, 10, 10]), np.full(3, 1 / 3))
        shown = generator.multinomial(300, [1 / 3] * 3)
        said = np.sum(
            [generator.multinomial(*pair) for pair in zip(shown, answers, strict=True)], 0
        )
        n_alarms += shares_p_value(said, errors, 200, seed) <= LEVEL
    assert n_alarms <= bounds(300, LEVEL)[1]
