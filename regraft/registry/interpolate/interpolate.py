"""Which blend of champion and challenger goes on: tried on the validation photos, by a rule."""

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
    passage,
)
from regraft.model.embed.store import SHARD_PHOTOS, Shard, Shelf
from regraft.model.pixels import Photo, photos_of
from regraft.registry.interpolate.blend import aligned, blended, start_of
from regraft.training.tune import Challenger


@dataclass(frozen=True)
class Trial:
    """One blend on the validation photos.

    alpha: the challenger's weight; 1 is the challenger itself. accuracy: in [0, 1], on all of them.
    n_flips: photos that the champion has right and the blend has wrong.
    """

    alpha: float
    accuracy: float
    n_flips: int


@dataclass(frozen=True)
class Interpolation:
    """What was tried between champion and challenger, and what came of it.

    alpha: of the model that goes on, in (0, 1]; 1 is the challenger as it was trained.
    reason: one sentence.
    n, n_shared: validation photos, and those of classes that both know: only they can flip.
    trials: the challenger itself first; none if nothing was tried.
    champion, trained: content hashes, of the champion ("" if there is none) and of the challenger
        as it was trained.
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
        """Whether another model goes on than the one that was trained."""
        return self.alpha < 1

    @property
    def flips_saved(self) -> int:
        """By how many the negative flips on validation are fewer than the challenger's own."""
        flips = {trial.alpha: trial.n_flips for trial in self.trials}
        return flips[1.0] - flips[self.alpha] if flips else 0

    def __str__(self) -> str:
        return f"interpolate: {self.reason}"


@dataclass(frozen=True)
class Interpolated:
    """The challenger to go on with, and how it came about."""

    challenger: Challenger
    interpolation: Interpolation


@dataclass(frozen=True)
class _Photos:
    """The validation photos, each with its class, and whether the champion has it right.

    codes: (N,) positions in the challenger's classes. was_right: (N,), False for a new class.
    shared: the rows under a backbone that both have, None if the backbones differ.
    """

    photos: list[Photo]
    codes: Tensor
    was_right: Tensor
    n_shared: int
    shared: Rows | None


@dataclass(frozen=True)
class _Tried:
    trial: Trial
    classifier: ImageClassifier
    rows: Rows


def interpolate(
    challenger: Challenger, champion: ImageClassifier | None, splits: Splits, config: Config
) -> Interpolated:
    """The challenger, or the blend of it and the champion that does best on validation.

    Tried are the challenger itself and config.retrain.interpolations. Of those whose share of
    negative flips is within promote.max_negative_flips the most accurate is taken, then the one
    with fewer flips, then the one nearer to the challenger; where none is within the limit, the one
    with the fewest flips. Where both have one backbone only the heads are blended, on embeddings
    that are known; else each blend costs a pass of the validation photos.

    The validation photos have chosen the challenger's head and its best epoch, and, as photos keep
    their side, the champion's too. So all numbers here are a little too good, and as the champion
    looks better than it is, flips are counted a little too many and blends near it look a little
    too accurate. Where photos have changed sides (a lost split memory) the champion may have been
    trained on them, and this grows. The verdict is not touched: it is made on test photos.

    What comes out has the challenger's plan, audit and history, which tell of the training; a blend
    has moved since, frozen tensors too, if the champion's differ. Its card names the champion as
    parent, since what that was trained on is in it.

    Args:
        champion: who serves, None if nobody does.
        config: its retrain, promote, embed and classes are used.

    Raises:
        ConfigError: classes.renamed that cannot be meant.
        UnusablePhoto: a validation photo cannot be read any more.

    Source: Wortsman et al. 2022 (the blend); Yan et al. 2021 (negative flips). Neyshabur et al.
    2020: models tuned from the same weights lie in one basin, where a line between them stays.
    """
    trained = challenger.classifier
    if champion is None:
        return _untouched(challenger, "", "no model serves yet")
    if why := _not_to_be_blended(trained, champion, splits, config):
        return _untouched(challenger, champion.content_hash, why)
    known = aligned(champion, trained, config.classes.renamed)
    if tensors_hash(known.weights) == tensors_hash(trained.weights):
        why = "the champion has the same weights"
        return _untouched(challenger, champion.content_hash, why)
    photos = _validation(champion, trained, splits, config)
    best, trials = _best(known, trained, photos, config)
    if best.trial.alpha < 1:
        _keep(best, photos.photos, config.embed)
    interpolation = Interpolation(
        alpha=best.trial.alpha,
        reason=_reason(best.trial, trials, photos, config.promote.max_negative_flips),
        n=len(photos.photos),
        n_shared=photos.n_shared,
        trials=trials,
        champion=champion.content_hash,
        trained=trained.content_hash,
    )
    return Interpolated(replace(challenger, classifier=best.classifier), interpolation)


def _untouched(challenger: Challenger, champion: str, why: str) -> Interpolated:
    trained = challenger.classifier.content_hash
    reason = f"nothing to blend, {why}"
    return Interpolated(challenger, Interpolation(1.0, reason, 0, 0, (), champion, trained))


def _not_to_be_blended(
    trained: ImageClassifier, champion: ImageClassifier, splits: Splits, config: Config
) -> str:
    """Why a blend would mean nothing, or nobody could choose one; "" if nothing speaks against."""
    new, old = trained.card, champion.card
    contract = contract_of(old.classes, new.classes, config.classes.renamed)
    # The blend gets the champion's ancestry, which must hold what the challenger started from.
    known_starts = ("", champion.content_hash, old.parent, start_of(old))
    obstacles = {
        "retrain.interpolations is empty": not config.retrain.interpolations,
        "there is no validation photo to choose on": splits.validation.empty,
        f"the champion is another network ({old.backbone.architecture})": (
            old.backbone.architecture != new.backbone.architecture
        ),
        "the champion prepares photos otherwise": (
            old.backbone.preprocessing != new.backbone.preprocessing
        ),
        f"the champion began with other weights ({old.backbone.source})": (
            old.backbone.sha256 != new.backbone.sha256
        ),
        "the challenger's training started from a model that the champion does not descend from": (
            new.parent not in known_starts
        ),
        "the champion shares no class with it": not contract.kept,
    }
    return next((why for why, stands in obstacles.items() if stands), "")


def _validation(
    champion: ImageClassifier, trained: ImageClassifier, splits: Splits, config: Config
) -> _Photos:
    validation, classes = splits.validation, trained.card.classes
    photos = photos_of(validation)
    contract = contract_of(champion.card.classes, classes, config.classes.renamed)
    today = {old: new for new, old in contract.old_names.items()}
    names = np.array([today.get(name, name) for name in champion.card.classes], dtype=object)
    said = names[logits(champion, photos, config.embed).argmax(dim=1).numpy()]  # (N,)
    labels = validation.label.to_numpy(dtype=object)
    is_one = _backbone_hash(champion) == _backbone_hash(trained)
    return _Photos(
        photos=photos,
        codes=torch.from_numpy(class_codes(validation.label, classes)),
        was_right=torch.from_numpy(said == labels),
        n_shared=int(validation.label.isin(contract.kept).sum()),
        shared=embed(trained, photos, judging_compute(), config.embed) if is_one else None,
    )


def _backbone_hash(classifier: ImageClassifier) -> str:
    return passage(classifier, judging_compute()).recipe.weights


def _best(
    known: ImageClassifier, trained: ImageClassifier, photos: _Photos, config: Config
) -> tuple[_Tried, tuple[Trial, ...]]:
    """The best by the rule; the embeddings of the others are let go as soon as they have lost."""
    limit = config.promote.max_negative_flips
    tried = _tried(known, trained, photos, config)
    best = next(tried)
    trials = [best.trial]
    for other in tried:
        trials.append(other.trial)
        if _rank(other.trial, photos, limit) < _rank(best.trial, photos, limit):
            best = other
    return best, tuple(trials)


def _tried(
    known: ImageClassifier, trained: ImageClassifier, photos: _Photos, config: Config
) -> Iterator[_Tried]:
    """The challenger itself, then the blends, the nearest to it first."""
    yield _answered(1.0, trained, photos, config.embed)
    for alpha in sorted(set(config.retrain.interpolations), reverse=True):
        yield _answered(alpha, blended(known, trained, alpha), photos, NO_STORE)


def _answered(
    alpha: float, classifier: ImageClassifier, photos: _Photos, store: EmbedConfig
) -> _Tried:
    rows = photos.shared
    if rows is None:
        rows = embed(classifier, photos.photos, judging_compute(), store)
    is_right = head_scores(classifier, rows).argmax(dim=1) == photos.codes  # (N,)
    accuracy = float(is_right.double().mean())
    n_flips = int((photos.was_right & ~is_right).sum())
    return _Tried(Trial(alpha, accuracy, n_flips), classifier, rows)


def _is_within(trial: Trial, photos: _Photos, limit: float) -> bool:
    return trial.n_flips / max(1, photos.n_shared) <= limit


def _rank(trial: Trial, photos: _Photos, limit: float) -> tuple[float, ...]:
    """The smaller, the better."""
    if _is_within(trial, photos, limit):
        return (0, -trial.accuracy, trial.n_flips, -trial.alpha)
    return (1, trial.n_flips, -trial.accuracy, -trial.alpha)


def _keep(tried: _Tried, photos: list[Photo], store: EmbedConfig) -> None:
    """Puts the embeddings into the store, where evaluate() finds them."""
    shelf = Shelf(store.store_url, passage(tried.classifier, judging_compute()).recipe)
    for at in range(0, len(photos), SHARD_PHOTOS):
        positions = np.arange(at, min(at + SHARD_PHOTOS, len(photos)))
        names = tuple(photos[position].sha256 for position in positions)
        shelf.add(Shard(names, tried.rows.take(positions)))
    shelf.touch()


def _reason(best: Trial, trials: tuple[Trial, ...], photos: _Photos, limit: float) -> str:
    alone = trials[0]
    told = f"{alone.accuracy:.1%} of {len(photos.photos)} validation photos right"
    flips = f"{_flips(alone)} of {photos.n_shared}, at most {limit:.1%}"
    if best.alpha == 1:
        return f"the challenger as it is, no blend does better ({told}, {flips})"
    rule = "" if _is_within(best, photos, limit) else "none keeps the limit, the fewest flips: "
    return (
        f"{rule}{best.alpha:.0%} challenger, {1 - best.alpha:.0%} champion: {best.accuracy:.1%} "
        f"right and {_flips(best)}, the challenger itself {told}, {flips}"
    )


def _flips(trial: Trial) -> str:
    return f"{trial.n_flips} negative flip{'s' * (trial.n_flips != 1)}"
