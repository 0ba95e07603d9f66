"""All hypothesis tests of new photos against a reference, corrected together."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft.core.config import DriftConfig
from regraft.core.outcomes import DriftOutcome
from regraft.drift.distance import USUAL
from regraft.drift.reference import LARGEST_HALF, Reference
from regraft.drift.shares import shares_p_value
from regraft.drift.two_sample import (
    Floats,
    Permutations,
    kernel,
    ks,
    mmd,
    p_values,
    threads,
    whiten,
)
from regraft.stats import holm


@dataclass(frozen=True)
class DriftTest:
    """The result of a test.

    name: content, brightness, sharpness, size, class shares, or NAME=VALUE of a slice.
    p_value: before the correction; None if the outcome is inconclusive.
    corrected: p_value, corrected for all tests together; None if the outcome is inconclusive.
    effect: what changed, in words.
    """

    name: str
    p_value: float | None
    corrected: float | None
    outcome: DriftOutcome
    effect: str


@dataclass(frozen=True)
class NewPhotos:
    """The photos that are compared with a reference.

    embeddings: (M, D). photos: M rows: brightness, sharpness, width, height, "slice:NAME",
        is_far (see measure_distances()).
    shares: from shares_table(), of these photos or of more of them.
    """

    embeddings: Floats
    photos: pd.DataFrame
    shares: pd.DataFrame


@dataclass(frozen=True)
class _UncorrectedTest:
    """A p-value before the correction, None if there is nothing to test, and the effect."""

    name: str
    p_value: float | None
    effect: str


@dataclass(frozen=True)
class _Measure:
    """A number of each photo: its function and unit, and the words for less and for more."""

    name: str
    of: Callable[[pd.DataFrame], Floats]
    unit: str
    less: str
    more: str


def _megapixels(photos: pd.DataFrame) -> Floats:
    return np.asarray(photos.width * photos.height / 1e6, dtype=np.float64)


def _brightness(photos: pd.DataFrame) -> Floats:
    return photos.brightness.to_numpy(np.float64)


def _sharpness(photos: pd.DataFrame) -> Floats:
    return photos.sharpness.to_numpy(np.float64)


_MEASURES = (
    _Measure("brightness", _brightness, "", "darker", "brighter"),
    _Measure("sharpness", _sharpness, "", "less sharp", "sharper"),
    _Measure("size", _megapixels, " megapixels", "smaller", "larger"),
)


def run_drift_tests(
    reference: Reference, new: NewPhotos, config: DriftConfig, seed: int
) -> tuple[DriftTest, ...]:
    """Return the result of every test.

    Without drift, the chance that any of them has the outcome "drifted" is at most config.level.

    Args:
        new: at least one photo.
        seed: of the permutations.
    """
    slices = [part for part in _slices(reference, new) if part.n_new >= config.min_photos]
    n_tests = len(_MEASURES) + 2 + sum(part.n_reference >= config.min_photos for part in slices)
    # Holm's correction compares the smallest p-value with level / n_tests: it must be reachable.
    enough = math.ceil(2 * n_tests / config.level)
    config = config.model_copy(update={"n_permutations": max(config.n_permutations, enough)})
    # Two threads beside busy processes took twenty times as long as one (measured). A single
    # thread also sums in the same order on every machine.
    with threads().limit(limits=1):
        tests = [
            *_test_all_photos(reference, new, config, seed),
            _test_shares(reference, new, config, seed),
            *[_test_slice(part, reference, new, config, seed) for part in slices],
        ]
    p_values_or_nan = [math.nan if test.p_value is None else test.p_value for test in tests]
    corrected = holm(p_values_or_nan)
    return tuple(
        _result(test, value, config.level) for test, value in zip(tests, corrected, strict=True)
    )


def _result(test: _UncorrectedTest, corrected: float, level: float) -> DriftTest:
    if test.p_value is None:
        return DriftTest(test.name, None, None, "inconclusive", test.effect)
    outcome: DriftOutcome = "drifted" if corrected <= level else "stable"
    return DriftTest(test.name, test.p_value, corrected, outcome, test.effect)


def _test_all_photos(
    reference: Reference, new: NewPhotos, config: DriftConfig, seed: int
) -> Iterator[_UncorrectedTest]:
    scaled = _whiten_together(reference.embeddings.numpy(), new.embeddings)
    pairs = [(measure.of(reference.photos), measure.of(new.photos)) for measure in _MEASURES]
    statistics = [mmd(kernel(scaled)), *[ks(np.concatenate(pair)) for pair in pairs]]
    permutations = Permutations(len(reference), len(new.photos), config.n_permutations, seed)
    content, *measured = p_values(statistics, permutations)
    yield _UncorrectedTest("content", content, _distance_effect(new.photos.is_far))
    for measure, pair, p_value in zip(_MEASURES, pairs, measured, strict=True):
        yield _UncorrectedTest(measure.name, p_value, _measure_effect(measure, *pair))


def _whiten_together(stored: Floats, embeddings: Floats) -> Floats:
    """Return both whitened, (R + M, C); the new ones are rounded as the reference's were."""
    if stored.dtype == np.float16:  # a larger number would become infinite
        embeddings = embeddings.clip(-LARGEST_HALF, LARGEST_HALF)
    return whiten(stored.astype(np.float32), embeddings.astype(stored.dtype).astype(np.float32))


def _distance_effect(is_far: "pd.Series[bool]") -> str:
    share = f"{is_far.mean():.0%} of the photos are far from the reference"
    return f"{share} ({1 - USUAL:.0%} would be usual)"


def _measure_effect(measure: _Measure, before: Floats, now: Floats) -> str:
    """Return the medians, and the middle halves in case only the spread changed."""
    (low, middle, high), (low_now, middle_now, high_now) = (
        [f"{value:.3g}" for value in np.quantile(values, (0.25, 0.5, 0.75))]
        for values in (before, now)
    )
    change = f"photos are {measure.less if np.median(now) < np.median(before) else measure.more}"
    if middle == middle_now:
        change = "the median is equal"
    halves = f"{low} to {high} -> {low_now} to {high_now}"
    return f"{change}: {middle} -> {middle_now}{measure.unit} (middle half: {halves})"


def _test_shares(
    reference: Reference, new: NewPhotos, config: DriftConfig, seed: int
) -> _UncorrectedTest:
    n_predicted = new.shares.n_predicted.to_numpy()
    p_value = shares_p_value(n_predicted, reference.errors, config.n_permutations, seed)
    change = (new.shares.estimated - new.shares.training).abs().to_numpy()
    largest = new.shares.iloc[int(change.argmax())]
    word = "more" if largest.estimated > largest.training else "less"
    return _UncorrectedTest(
        "class shares",
        p_value,
        f"{word} {largest.label}: {largest.training:.0%} -> {largest.estimated:.0%} "
        f"({largest.low:.0%} to {largest.high:.0%})",
    )


@dataclass(frozen=True)
class _Slice:
    """Photos with the same value in a manifest's column.

    in_reference: (R,) of the reference's photos. in_new: (M,) of the new photos.
    """

    name: str
    in_reference: NDArray[np.bool_]
    in_new: NDArray[np.bool_]

    @property
    def n_reference(self) -> int:
        return int(self.in_reference.sum())

    @property
    def n_new(self) -> int:
        return int(self.in_new.sum())


def _slices(reference: Reference, new: NewPhotos) -> Iterator[_Slice]:
    """Yield every value of the new photos in a column that the reference has too."""
    for column in sorted(set(reference.photos.columns) & set(new.photos.columns)):
        if column.startswith("slice:"):
            for value in sorted(set(new.photos[column]) - {""}):
                in_reference, in_new = (
                    photos[column].to_numpy() == value for photos in (reference.photos, new.photos)
                )
                yield _Slice(f"{column.removeprefix('slice:')}={value}", in_reference, in_new)


def _test_slice(
    part: _Slice, reference: Reference, new: NewPhotos, config: DriftConfig, seed: int
) -> _UncorrectedTest:
    if part.n_reference < config.min_photos:
        reason = f"{part.n_new} photos, but only {part.n_reference} of the reference to compare"
        return _UncorrectedTest(part.name, None, reason)
    stored = reference.embeddings.numpy()[part.in_reference]
    scaled = _whiten_together(stored, new.embeddings[part.in_new])
    permutations = Permutations(part.n_reference, part.n_new, config.n_permutations, seed)
    (p_value,) = p_values([mmd(kernel(scaled))], permutations)
    return _UncorrectedTest(part.name, p_value, _distance_effect(new.photos.is_far[part.in_new]))
