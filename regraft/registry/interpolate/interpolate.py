"""Choose a blend of champion and challenger by its results on the validation photos."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from regraft.core.config import Config, EmbedConfig
from regraft.data.split import Splits
from regraft.evaluation.evaluate import class_codes
from regraft.model.classifier import ImageClassifier, contract_of, tensors_hash
from regraft.model.embed import (
    NO_STORE,
    Rows,
    embed,
    head_scores,
    judging_compute,
    logits,
    spec_for,
)
from regraft.model.embed.store import SHARD_PHOTOS, EmbeddingPartition, Shard
from regraft.model.pixels import Photo, photos_of
from regraft.registry.blend_record import training_start
from regraft.registry.interpolate.blend import align_champion, blend_models
from regraft.training.tune import Challenger


@dataclass(frozen=True)
class Trial:
    """The result of a blend on the validation photos.

    alpha: the weight of the challenger; 1 is the challenger itself.
    accuracy: in [0, 1], on all validation photos.
    n_flips: negative flips: photos that the champion predicts correctly and the blend does not.
    """

    alpha: float
    accuracy: float
    n_flips: int


@dataclass(frozen=True)
class Interpolation:
    """The blends that were tried and the blend that was chosen.

    alpha: of the chosen model, in (0, 1]; 1 is the challenger as trained.
    reason: one sentence.
    n, n_shared: validation photos, and those of classes that both models know. Only these can flip.
    trials: the challenger itself first; empty if no blend was tried.
    champion, trained: content hash of the champion ("" if there is none) and of the challenger as
        trained.
    """

    alpha: float
    reason: str
    n: int
    n_shared: int
    trials: tuple[Trial, ...]
    champion: str
    trained: str

    @property
    def is_blend(self) -> bool:
        """Whether a blend was chosen instead of the challenger as trained."""
        return self.alpha < 1

    @property
    def flips_saved(self) -> int:
        """Negative flips of the challenger minus those of the chosen model, on validation."""
        flips = {trial.alpha: trial.n_flips for trial in self.trials}
        return flips[1.0] - flips[self.alpha] if flips else 0

    def __str__(self) -> str:
        return f"interpolate: {self.reason}"


@dataclass(frozen=True)
class InterpolationResult:
    """The challenger with the chosen weights, and how they were chosen."""

    challenger: Challenger
    interpolation: Interpolation


@dataclass(frozen=True)
class _ValidationPhotos:
    """The validation photos with their classes and the champion's results.

    codes: (N,) positions in the challenger's classes.
    was_right: (N,), whether the champion is correct; False for a new class.
    shared: embeddings of the backbone if both models have the same, otherwise None.
    """

    photos: list[Photo]
    codes: Tensor
    was_right: Tensor
    n_shared: int
    shared: Rows | None


@dataclass(frozen=True)
class _Candidate:
    trial: Trial
    classifier: ImageClassifier
    rows: Rows


def interpolate(
    challenger: Challenger, champion: ImageClassifier | None, splits: Splits, config: Config
) -> InterpolationResult:
    """Return the challenger, or the blend with the champion that is best on the validation photos.

    The candidates are the challenger itself and the blends of config.retrain.interpolations. Among
    the candidates whose share of negative flips is at most promote.max_negative_flips, the order
    is: higher accuracy, fewer flips, larger alpha. If no candidate is within the limit, the one
    with the fewest flips is chosen. If both models have the same backbone, only the heads are
    blended, and the known embeddings are reused. Otherwise each blend costs one pass over the
    validation photos.

    The numbers are slightly optimistic. The validation photos have selected the challenger's head
    and its best epoch. As photos stay in their split, they have also selected the champion's. So
    the champion looks better than it is, flips are overcounted, and blends near the champion look
    too accurate. If photos have changed their split (the split memory was lost), the champion may
    have been trained on them, and the effect grows. The verdict is not affected, because it uses
    test photos.

    The result keeps the plan, the audit and the history of the challenger, which describe the
    training. A blend differs from the weights at the end of training, also in frozen tensors if the
    champion's differ. Its card names the champion as parent, because the champion's training photos
    have influenced its weights.

    Args:
        champion: the serving model, None if there is none.
        config: the sections retrain, promote, embed and classes are used.

    Raises:
        ConfigError: classes.renamed is invalid.
        UnusablePhoto: a validation photo can no longer be read.

    Source: Wortsman et al. 2022 (the blend); Yan et al. 2021 (negative flips). Neyshabur et al.
    2020: models tuned from the same weights lie in one basin, and so does the line between them.
    """
    trained = challenger.classifier
    if champion is None:
        return unblended(challenger, "", "there is no champion yet")
    if reason := _obstacle(trained, champion, splits, config):
        return unblended(challenger, champion.content_hash, reason)
    aligned = align_champion(champion, trained, config.classes.renamed)
    if tensors_hash(aligned.weights) == tensors_hash(trained.weights):
        reason = "the champion has the same weights"
        return unblended(challenger, champion.content_hash, reason)
    photos = _validation_photos(champion, trained, splits, config)
    best, trials = _best(aligned, trained, photos, config)
    if best.trial.alpha < 1:
        _store_embeddings(best, photos.photos, config.embed)
    interpolation = Interpolation(
        alpha=best.trial.alpha,
        reason=_reason(best.trial, trials, photos, config.promote.max_negative_flips),
        n=len(photos.photos),
        n_shared=photos.n_shared,
        trials=trials,
        champion=champion.content_hash,
        trained=trained.content_hash,
    )
    return InterpolationResult(replace(challenger, classifier=best.classifier), interpolation)


def unblended(challenger: Challenger, champion: str, reason: str) -> InterpolationResult:
    """Return the challenger itself, and why no blend was tried.

    Args:
        champion: its content hash, "" if there is none.
    """
    interpolation = Interpolation(
        alpha=1.0,
        reason=f"no blend, {reason}",
        n=0,
        n_shared=0,
        trials=(),
        champion=champion,
        trained=challenger.classifier.content_hash,
    )
    return InterpolationResult(challenger, interpolation)


def _obstacle(
    trained: ImageClassifier, champion: ImageClassifier, splits: Splits, config: Config
) -> str:
    """Return why no blend can be made or chosen, "" if there is no obstacle."""
    new, old = trained.card, champion.card
    contract = contract_of(old.classes, new.classes, config.classes.renamed)
    # The blend gets the champion's ancestry, which must include the start of the challenger.
    known_starts = ("", champion.content_hash, old.parent, training_start(old))
    obstacles = {
        "retrain.interpolations is empty": not config.retrain.interpolations,
        "there is no validation photo to choose on": splits.validation.empty,
        f"the champion has another architecture ({old.backbone.architecture})": (
            old.backbone.architecture != new.backbone.architecture
        ),
        "the champion preprocesses photos differently": (
            old.backbone.preprocessing != new.backbone.preprocessing
        ),
        f"the champion started from other pretrained weights ({old.backbone.source})": (
            old.backbone.sha256 != new.backbone.sha256
        ),
        "the challenger's training started from a model that is no ancestor of the champion": (
            new.parent not in known_starts
        ),
        "the champion and the challenger have no class in common": not contract.retained,
    }
    return next((reason for reason, applies in obstacles.items() if applies), "")


def _validation_photos(
    champion: ImageClassifier, trained: ImageClassifier, splits: Splits, config: Config
) -> _ValidationPhotos:
    validation, classes = splits.validation, trained.card.classes
    photos = photos_of(validation)
    contract = contract_of(champion.card.classes, classes, config.classes.renamed)
    new_names = {old: new for new, old in contract.old_names.items()}
    names = np.array([new_names.get(name, name) for name in champion.card.classes], dtype=object)
    predicted = names[logits(champion, photos, config.embed).argmax(dim=1).numpy()]  # (N,)
    labels = validation.label.to_numpy(dtype=object)
    is_same_backbone = _backbone_hash(champion) == _backbone_hash(trained)
    shared = embed(trained, photos, judging_compute(), config.embed) if is_same_backbone else None
    return _ValidationPhotos(
        photos=photos,
        codes=torch.from_numpy(class_codes(validation.label, classes)),
        was_right=torch.from_numpy(predicted == labels),
        n_shared=int(validation.label.isin(contract.retained).sum()),
        shared=shared,
    )


def _backbone_hash(classifier: ImageClassifier) -> str:
    return spec_for(classifier, judging_compute()).cache_key.weights


def _best(
    aligned: ImageClassifier, trained: ImageClassifier, photos: _ValidationPhotos, config: Config
) -> tuple[_Candidate, tuple[Trial, ...]]:
    """Return the best candidate and all trials.

    Only the embeddings of the present candidate and of the best one are in memory.
    """
    limit = config.promote.max_negative_flips
    candidates = _candidates(aligned, trained, photos, config)
    best = next(candidates)
    trials = [best.trial]
    for candidate in candidates:
        trials.append(candidate.trial)
        if _rank(candidate.trial, photos, limit) < _rank(best.trial, photos, limit):
            best = candidate
    return best, tuple(trials)


def _candidates(
    aligned: ImageClassifier, trained: ImageClassifier, photos: _ValidationPhotos, config: Config
) -> Iterator[_Candidate]:
    """Yield the challenger itself, then the blends, largest alpha first."""
    yield _evaluated(1.0, trained, photos, config.embed)
    for alpha in sorted(set(config.retrain.interpolations), reverse=True):
        yield _evaluated(alpha, blend_models(aligned, trained, alpha), photos, NO_STORE)


def _evaluated(
    alpha: float, classifier: ImageClassifier, photos: _ValidationPhotos, store: EmbedConfig
) -> _Candidate:
    rows = photos.shared
    if rows is None:
        rows = embed(classifier, photos.photos, judging_compute(), store)
    is_right = head_scores(classifier, rows).argmax(dim=1) == photos.codes  # (N,)
    accuracy = float(is_right.double().mean())
    n_flips = int((photos.was_right & ~is_right).sum())
    return _Candidate(Trial(alpha, accuracy, n_flips), classifier, rows)


def _is_within(trial: Trial, photos: _ValidationPhotos, limit: float) -> bool:
    return trial.n_flips / max(1, photos.n_shared) <= limit


def _rank(trial: Trial, photos: _ValidationPhotos, limit: float) -> tuple[float, ...]:
    """Return a sort key; the best trial has the smallest key."""
    if _is_within(trial, photos, limit):
        return (0, -trial.accuracy, trial.n_flips, -trial.alpha)
    return (1, trial.n_flips, -trial.accuracy, -trial.alpha)


def _store_embeddings(candidate: _Candidate, photos: list[Photo], store: EmbedConfig) -> None:
    """Write the embeddings into the store, where evaluate() reuses them."""
    key = spec_for(candidate.classifier, judging_compute()).cache_key
    partition = EmbeddingPartition(store.store_url, key)
    for start in range(0, len(photos), SHARD_PHOTOS):
        positions = np.arange(start, min(start + SHARD_PHOTOS, len(photos)))
        names = tuple(photos[position].sha256 for position in positions)
        partition.add(Shard(names, candidate.rows.take(positions)))
    partition.touch()


def _reason(best: Trial, trials: tuple[Trial, ...], photos: _ValidationPhotos, limit: float) -> str:
    challenger = trials[0]
    accuracy = f"{challenger.accuracy:.1%} of {len(photos.photos)} validation photos right"
    flips = f"{_flips(challenger)} of {photos.n_shared}, at most {limit:.1%}"
    if best.alpha == 1:
        return f"the challenger itself, no blend is better ({accuracy}, {flips})"
    rule = "" if _is_within(best, photos, limit) else "none is within the limit, fewest flips: "
    return (
        f"{rule}{best.alpha:.0%} challenger, {1 - best.alpha:.0%} champion: {best.accuracy:.1%} "
        f"right and {_flips(best)}; the challenger itself: {accuracy}, {flips}"
    )


def _flips(trial: Trial) -> str:
    plural = "" if trial.n_flips == 1 else "s"
    return f"{trial.n_flips} negative flip{plural}"
