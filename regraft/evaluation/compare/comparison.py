"""The bake-off: every backbone on the same photos and folds, a table, a front and a choice."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from regraft.core.config import BackboneConfig, EmbedConfig, SplitConfig, TuneConfig
from regraft.core.errors import TrainingDiverged, WeightsError, WeightsNotFound
from regraft.data.split import Splits
from regraft.evaluation.compare.candidate import config_of
from regraft.evaluation.compare.choice import Bools, Choice, Floats, Speed, choose, pareto_front
from regraft.evaluation.compare.folds import folds_of, units_of
from regraft.evaluation.compare.measure import Measured, Task, measure
from regraft.evaluation.evaluate import wilson
from regraft.model.embed import NO_STORE
from regraft.stats import paired_interval

CONFIDENCE = 0.95
# An accuracy of 4000 photos is known to +- 1.5 points or better; more would only take longer.
MAX_PHOTOS = 4000
CANNOT_BE_HAD = (WeightsError, TrainingDiverged)

logger = logging.getLogger("regraft.compare")


@dataclass(frozen=True)
class Comparison:
    """What each backbone can do with these photos, and which one is worth its milliseconds.

    Attributes:
        table: one row a backbone, the most accurate first, those that cannot be had last: source,
            embedding_dim, million_parameters, knn (accuracy in [0, 1]), probe (accuracy) with its
            95 % interval probe_low and probe_high, logme, ms (a photo) with its quartiles ms_low
            and ms_high, weights_mb, memory_mb, p_value (of being as good as the best), on_front,
            is_chosen (bools), sha256 (of the weights), error ("" = none).
        chosen: its source, as it was given.
        reason: one sentence.
        n_photos: that each of them was judged on.
    """

    table: pd.DataFrame
    chosen: str
    reason: str
    n_photos: int

    def __str__(self) -> str:
        return f"compare: {self.chosen}, {self.reason}"


def choose_backbone(
    config: BackboneConfig,
    splits: Splits,
    split: SplitConfig,
    tune: TuneConfig,
    store: EmbedConfig,
) -> BackboneConfig:
    """The backbone that config means; for the source "auto", the choice among its candidates.

    Any other source is answered with the same config, and nothing is computed.

    Raises:
        As compare().
    """
    if config.source != "auto":
        return config
    comparison = compare(splits, config.candidates, split, tune, store)
    logger.info("%s", comparison)
    return config_of(comparison.chosen)


def compare(
    splits: Splits,
    candidates: Sequence[str],
    split: SplitConfig,
    tune: TuneConfig,
    store: EmbedConfig = NO_STORE,
) -> Comparison:
    """The backbones judged on the photos of train and validation; the test photos stay unseen.

    Every photo is answered by heads that were neither solved nor chosen on it, a copy of it or its
    group. Of more than MAX_PHOTOS photos a part is used, the same for each backbone.

    Args:
        splits: what split() made.
        candidates: at least one, as config_of() reads them; repeated ones count once.
        split: what the sides were made with; its near_duplicate_bits are used.
        tune: precision, device, seed of the folds, and how heads are solved.
        store: where embeddings are kept; a training of the same photos finds them there.

    Raises:
        ConfigError: a candidate that cannot be meant.
        WeightsNotFound: not one of them can be had.
        DataError: the photos cannot be cut into folds.
    """
    configs = {candidate: config_of(candidate) for candidate in candidates}
    task = _task(splits, split, tune)
    measured: dict[str, Measured] = {}
    errors: dict[str, str] = {}
    for number, (candidate, config) in enumerate(configs.items(), start=1):
        logger.info("compare: %d of %d, %s", number, len(configs), candidate)
        try:
            measured[candidate] = measure(config, task, tune, store)
        except CANNOT_BE_HAD as error:
            logger.warning("compare: %s cannot be had: %s", candidate, error)
            errors[candidate] = str(error)
    if not measured:
        raise WeightsNotFound(_none_left(errors))
    return _comparison(measured, errors)


def _task(splits: Splits, split: SplitConfig, tune: TuneConfig) -> Task:
    photos = _drawn(pd.concat([splits.train, splits.validation], ignore_index=True))
    y = pd.Index(splits.classes).get_indexer(pd.Index(photos["label"])).astype(np.int64)
    units = units_of(photos, split.near_duplicate_bits)
    return Task(photos, y, splits.classes, folds_of(y, units, tune.seed))


def _drawn(photos: pd.DataFrame) -> pd.DataFrame:
    """At most about MAX_PHOTOS of the photos, of each class its share: the lowest hashes."""
    ranks = photos.sort_values("sha256").groupby("label").cumcount()
    sizes = photos.groupby("label")["label"].transform("size")
    share = min(1.0, MAX_PHOTOS / len(photos))
    drawn = photos[ranks.reindex(photos.index) < np.ceil(share * sizes)]
    return pd.DataFrame(drawn).reset_index(drop=True)


def _none_left(errors: dict[str, str]) -> str:
    told = " ".join(f"{candidate}: {error}" for candidate, error in errors.items())
    return f"Expected at least one backbone that can be had, got none of {len(errors)}. {told}"


def _comparison(measured: dict[str, Measured], errors: dict[str, str]) -> Comparison:
    hits = np.array([one.probe for one in measured.values()])  # (M, N)
    costs = [(one.cost.ms, one.cost.ms_low, one.cost.ms_high) for one in measured.values()]
    speed = Speed(*np.array(costs).T)
    choice, sources, ms = choose(hits, speed), list(measured), speed.ms
    table = pd.DataFrame([_row(*item) for item in measured.items()]).assign(
        p_value=choice.p_values,
        on_front=pareto_front(hits.mean(axis=1), ms),
        is_chosen=np.arange(len(ms)) == choice.chosen,
        sha256=[one.sha256 for one in measured.values()],
        error="",
    )
    table = table.sort_values(["probe", "ms"], ascending=[False, True], kind="stable")
    failed = pd.DataFrame(
        [
            {"source": source, "on_front": False, "is_chosen": False, "sha256": "", "error": error}
            for source, error in errors.items()
        ]
    )
    whole = pd.concat([table, failed], ignore_index=True) if errors else table
    reason = _reason(choice, sources, hits, ms)
    return Comparison(whole.reset_index(drop=True), sources[choice.chosen], reason, hits.shape[1])


def _row(source: str, one: Measured) -> dict[str, object]:
    interval = wilson(int(one.probe.sum()), len(one.probe), CONFIDENCE)
    cost = asdict(one.cost)
    return {
        "source": source,
        "embedding_dim": one.embedding_dim,
        "million_parameters": cost.pop("million_parameters"),
        "knn": float(one.knn.mean()),
        "probe": interval.value,
        "probe_low": interval.low,
        "probe_high": interval.high,
        "logme": one.logme,
        **cost,
    }


def _reason(choice: Choice, sources: list[str], hits: Bools, ms: Floats) -> str:
    accuracy, n = hits.mean(axis=1), hits.shape[1]
    at, best = choice.chosen, choice.best
    told = f"{accuracy[at]:.1%} of {n} photos right at {ms[at]:.3g} ms a photo"
    if len(sources) == 1:
        return f"the only one that can be had: {told}"
    if at == best:
        return f"the most accurate, and what is clearly faster is shown to be worse: {told}"
    only_one, only_best = (hits[at] & ~hits[best]).sum(), (hits[best] & ~hits[at]).sum()
    low, high = paired_interval(n, int(only_one), int(only_best))
    return (
        f"the fastest that is not shown to be worse: {told}, against {accuracy[best]:.1%} at "
        f"{ms[best]:.3g} ms of {sources[best]} (p = {choice.p_values[at]:.2g}; 95 % interval of "
        f"the difference {low:+.1%} to {high:+.1%})"
    )
