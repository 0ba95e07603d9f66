"""Every test of new photos against a reference, all together corrected, each in plain words."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft.core.config import DriftConfig
from regraft.drift.distance import USUAL
from regraft.drift.reference import LARGEST_HALF, Reference
from regraft.drift.shares import shares_p_value
from regraft.drift.two_sample import (
    Floats,
    Shuffles,
    kernel,
    ks,
    mmd,
    p_values,
    threads,
    whitened,
)
from regraft.stats import holm

Outcome = Literal["drifted", "quiet", "untested"]


@dataclass(frozen=True)
class Finding:
    """One test. p_value, corrected: None if nothing could be tested; said: the effect, in words.

    name: content, brightness, sharpness, size, class shares, or NAME=VALUE of a slice.
    corrected: for all tests of the look together.
    """

    name: str
    p_value: float | None
    corrected: float | None
    outcome: Outcome
    said: str


@dataclass(frozen=True)
class NewPhotos:
    """What is compared with a reference.

    embeddings: (M, D). photos: M rows: brightness, sharpness, width, height, "slice:NAME",
        is_far (see distances()).
    shares: of shares_table(), of these photos or of more of them.
    """

    embeddings: Floats
    photos: pd.DataFrame
    shares: pd.DataFrame


@dataclass(frozen=True)
class _Test:
    """A p-value before the correction, None if there is nothing to test, and the effect."""

    name: str
    p_value: float | None
    said: str


@dataclass(frozen=True)
class _Measure:
    """A number that every photo has: how it is read, its unit, words for less and for more."""

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


def findings(
    reference: Reference, new: NewPhotos, config: DriftConfig, seed: int
) -> tuple[Finding, ...]:
    """Every test; the chance that any of them says "drifted" for nothing is config.level at most.

    Args:
        new: at least one photo.
    """
    slices = [one for one in _slices(reference, new) if one.n_seen >= config.min_photos]
    n_tests = len(_MEASURES) + 2 + sum(one.n_known >= config.min_photos for one in slices)
    # Holm's correction compares the smallest p-value with level / n_tests: it must be reachable.
    enough = math.ceil(2 * n_tests / config.level)
    config = config.model_copy(update={"n_permutations": max(config.n_permutations, enough)})
    # Two threads that other processes disturb took twenty times as long as one (measured), and one
    # makes the same sums everywhere.
    with threads().limit(limits=1):
        tests = [
            *_whole(reference, new, config, seed),
            _shares(reference, new, config, seed),
            *[_within(one, reference, new, config, seed) for one in slices],
        ]
    nothing = math.nan
    corrected = holm([nothing if test.p_value is None else test.p_value for test in tests])
    return tuple(
        _judged(test, value, config.level) for test, value in zip(tests, corrected, strict=True)
    )


def _judged(test: _Test, corrected: float, level: float) -> Finding:
    if test.p_value is None:
        return Finding(test.name, None, None, "untested", test.said)
    outcome: Outcome = "drifted" if corrected <= level else "quiet"
    return Finding(test.name, test.p_value, corrected, outcome, test.said)


def _whole(reference: Reference, new: NewPhotos, config: DriftConfig, seed: int) -> Iterator[_Test]:
    scaled = _on_one_scale(reference.embeddings.numpy(), new.embeddings)
    pairs = [(measure.of(reference.photos), measure.of(new.photos)) for measure in _MEASURES]
    statistics = [mmd(kernel(scaled)), *[ks(np.concatenate(pair)) for pair in pairs]]
    shuffles = Shuffles(len(reference), len(new.photos), config.n_permutations, seed)
    content, *measured = p_values(statistics, shuffles)
    yield _Test("content", content, _far_away(new.photos.is_far))
    for measure, pair, p_value in zip(_MEASURES, pairs, measured, strict=True):
        yield _Test(measure.name, p_value, _moved(measure, *pair))


def _on_one_scale(kept: Floats, embeddings: Floats) -> Floats:
    """(R + M, C) both; the new ones rounded as the reference's were."""
    if kept.dtype == np.float16:  # a larger number would become infinite
        embeddings = embeddings.clip(-LARGEST_HALF, LARGEST_HALF)
    return whitened(kept.astype(np.float32), embeddings.astype(kept.dtype).astype(np.float32))


def _far_away(is_far: "pd.Series[bool]") -> str:
    share = f"{is_far.mean():.0%} of the photos are far from those it learned from"
    return f"{share} ({1 - USUAL:.0%} would be usual)"


def _moved(measure: _Measure, before: Floats, now: Floats) -> str:
    """The medians, and the middle halves where it is the spread that changed."""
    (low, middle, high), (low_now, middle_now, high_now) = (
        [f"{value:.3g}" for value in np.quantile(values, (0.25, 0.5, 0.75))]
        for values in (before, now)
    )
    word = f"photos are {measure.less if np.median(now) < np.median(before) else measure.more}"
    if middle == middle_now:
        word = "the median stays"
    halves = f"{low} to {high} -> {low_now} to {high_now}"
    return f"{word}: {middle} -> {middle_now}{measure.unit} (middle half: {halves})"


def _shares(reference: Reference, new: NewPhotos, config: DriftConfig, seed: int) -> _Test:
    said = new.shares.n_said.to_numpy()
    p_value = shares_p_value(said, reference.errors, config.n_permutations, seed)
    moved = (new.shares.estimated - new.shares.training).abs().to_numpy()
    most = new.shares.iloc[int(moved.argmax())]
    word = "more" if most.estimated > most.training else "less"
    return _Test(
        "class shares",
        p_value,
        f"{word} {most.label}: {most.training:.0%} -> {most.estimated:.0%} "
        f"({most.low:.0%} to {most.high:.0%})",
    )


@dataclass(frozen=True)
class _Slice:
    """Photos with a value in a manifest's column: known of the reference, seen of the new ones."""

    name: str
    known: NDArray[np.bool_]
    seen: NDArray[np.bool_]

    @property
    def n_known(self) -> int:
        return int(self.known.sum())

    @property
    def n_seen(self) -> int:
        return int(self.seen.sum())


def _slices(reference: Reference, new: NewPhotos) -> Iterator[_Slice]:
    """Every value of the new photos in a column that the reference has too."""
    for column in sorted(set(reference.photos.columns) & set(new.photos.columns)):
        if column.startswith("slice:"):
            for value in sorted(set(new.photos[column]) - {""}):
                known, seen = (
                    one[column].to_numpy() == value for one in (reference.photos, new.photos)
                )
                yield _Slice(f"{column.removeprefix('slice:')}={value}", known, seen)


def _within(
    one: _Slice, reference: Reference, new: NewPhotos, config: DriftConfig, seed: int
) -> _Test:
    if one.n_known < config.min_photos:
        told = f"{one.n_seen} photos, but {one.n_known} of the reference to compare them with"
        return _Test(one.name, None, told)
    scaled = _on_one_scale(reference.embeddings.numpy()[one.known], new.embeddings[one.seen])
    shuffles = Shuffles(one.n_known, one.n_seen, config.n_permutations, seed)
    (p_value,) = p_values([mmd(kernel(scaled))], shuffles)
    return _Test(one.name, p_value, _far_away(new.photos.is_far[one.seen]))
