"""The comparison of all backbones on the same photos and folds: a table and a choice."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from regraft.core.config import BackboneConfig, EmbedConfig, SplitConfig, TuneConfig
from regraft.core.errors import TrainingDiverged, WeightsError, WeightsNotFound
from regraft.core.intervals import wilson_interval
from regraft.data.split import Splits, unit_numbers
from regraft.evaluation.compare.candidate import parse_candidate
from regraft.evaluation.compare.choice import Bools, Choice, Floats, Speed, choose, pareto_front
from regraft.evaluation.compare.folds import make_folds
from regraft.evaluation.compare.measure import BackboneScores, ComparisonTask, measure
from regraft.model.embed import NO_STORE
from regraft.stats import paired_interval

CONFIDENCE = 0.95
# 4000 photos give an accuracy to within 1.5 points; more photos only take longer.
MAX_PHOTOS = 4000
UNAVAILABLE = (WeightsError, TrainingDiverged)

logger = logging.getLogger("regraft.compare")


@dataclass(frozen=True)
class Comparison:
    """The scores of each backbone and the chosen backbone.

    Attributes:
        table: a row a backbone, the most accurate first, unavailable backbones last: source,
            embedding_dim, million_parameters, knn (accuracy in [0, 1]), probe (accuracy) with its
            95 % interval probe_low and probe_high, ms (a photo) with its quartiles ms_low and
            ms_high, weights_mb, memory_mb, p_value (of equal accuracy with the best), on_front,
            is_chosen (bools), sha256 (of the weights), error ("" = none).
        chosen: the source of the chosen backbone, as it was given.
        reason: why it was chosen, in one sentence.
        n_photos: number of photos that each backbone was judged on.
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
    """Return the configuration of the backbone; for the source "auto", of the best candidate.

    For any other source, config is returned and nothing is computed.

    Raises:
        As compare().
    """
    if config.source != "auto":
        return config
    comparison = compare(splits, config.candidates, split, tune, store)
    logger.info("%s", comparison)
    return parse_candidate(comparison.chosen)


def compare(
    splits: Splits,
    candidates: Sequence[str],
    split: SplitConfig,
    tune: TuneConfig,
    store: EmbedConfig = NO_STORE,
) -> Comparison:
    """Return the comparison of the backbones on the photos of train and validation.

    The test photos are not used. Each photo is judged by heads that were not solved or chosen on
    it, on a copy of it, or on its group. Of more than MAX_PHOTOS photos a part is used, the same
    for each backbone.

    Args:
        splits: from split().
        candidates: at least one, as parse_candidate() reads them; repeated ones count once.
        split: configuration of the splits; its near_duplicate_bits are used.
        tune: precision, device, seed of the folds, and the configuration of the head.
        store: of embeddings; a training on the same photos reuses them.

    Raises:
        ConfigError: a candidate of an unknown form.
        WeightsNotFound: no candidate is available.
        DataError: the photos cannot be divided into folds.
    """
    configs = {candidate: parse_candidate(candidate) for candidate in candidates}
    task = _task(splits, split, tune)
    scores: dict[str, BackboneScores] = {}
    errors: dict[str, str] = {}
    for number, (candidate, config) in enumerate(configs.items(), start=1):
        logger.info("compare: %d of %d, %s", number, len(configs), candidate)
        try:
            scores[candidate] = measure(config, task, tune, store)
        except UNAVAILABLE as error:
            logger.warning("compare: %s is not available: %s", candidate, error)
            errors[candidate] = str(error)
    if not scores:
        raise WeightsNotFound(_none_available(errors))
    return _comparison(scores, errors)


def _task(splits: Splits, split: SplitConfig, tune: TuneConfig) -> ComparisonTask:
    photos = _sample(pd.concat([splits.train, splits.validation], ignore_index=True))
    y = pd.Index(splits.classes).get_indexer(pd.Index(photos["label"])).astype(np.int64)
    units = unit_numbers(photos, split.near_duplicate_bits, by_group=True)
    return ComparisonTask(photos, y, splits.classes, make_folds(y, units, tune.seed))


def _sample(photos: pd.DataFrame) -> pd.DataFrame:
    """Return about MAX_PHOTOS photos at most: of each class the same share, by lowest sha256."""
    ranks = photos.sort_values("sha256").groupby("label").cumcount()
    sizes = photos.groupby("label")["label"].transform("size")
    share = min(1.0, MAX_PHOTOS / len(photos))
    sample = photos[ranks.reindex(photos.index) < np.ceil(share * sizes)]
    return pd.DataFrame(sample).reset_index(drop=True)


def _none_available(errors: dict[str, str]) -> str:
    causes = " ".join(f"{candidate}: {error}" for candidate, error in errors.items())
    return f"Expected at least one available backbone, got none of {len(errors)}. {causes}"


def _comparison(scores: dict[str, BackboneScores], errors: dict[str, str]) -> Comparison:
    hits = np.array([backbone.probe for backbone in scores.values()])  # (M, N)
    costs = [backbone.cost for backbone in scores.values()]
    speed = Speed(*np.array([(cost.ms, cost.ms_low, cost.ms_high) for cost in costs]).T)
    choice, sources, ms = choose(hits, speed), list(scores), speed.ms
    table = pd.DataFrame([_row(*item) for item in scores.items()]).assign(
        p_value=choice.p_values,
        on_front=pareto_front(hits.mean(axis=1), ms),
        is_chosen=np.arange(len(ms)) == choice.chosen,
        sha256=[backbone.sha256 for backbone in scores.values()],
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


def _row(source: str, backbone: BackboneScores) -> dict[str, object]:
    interval = wilson_interval(int(backbone.probe.sum()), len(backbone.probe), CONFIDENCE)
    cost = asdict(backbone.cost)
    return {
        "source": source,
        "embedding_dim": backbone.embedding_dim,
        "million_parameters": cost.pop("million_parameters"),
        "knn": float(backbone.knn.mean()),
        "probe": interval.value,
        "probe_low": interval.low,
        "probe_high": interval.high,
        **cost,
    }


def _reason(choice: Choice, sources: list[str], hits: Bools, ms: Floats) -> str:
    accuracy, n = hits.mean(axis=1), hits.shape[1]
    at, best = choice.chosen, choice.best
    scores = f"{accuracy[at]:.1%} of {n} photos correct at {ms[at]:.3g} ms a photo"
    if len(sources) == 1:
        return f"the only available backbone: {scores}"
    if at == best:
        return f"the most accurate; every clearly faster backbone is shown to be worse: {scores}"
    only_chosen, only_best = (hits[at] & ~hits[best]).sum(), (hits[best] & ~hits[at]).sum()
    low, high = paired_interval(n, int(only_chosen), int(only_best))
    return (
        f"the fastest that is not shown to be worse: {scores}, against {accuracy[best]:.1%} at "
        f"{ms[best]:.3g} ms of {sources[best]} (p = {choice.p_values[at]:.2g}; 95 % interval of "
        f"the difference {low:+.1%} to {high:+.1%})"
    )
