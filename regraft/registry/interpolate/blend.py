"""The arithmetic of a blend, and what its card says of where it comes from."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from regraft.model.classifier import NO_NAMES, Card, ImageClassifier, regraft

RECORD = "retrain.interpolated"  # in Card.config; no field of the configuration has this name
HEAD = ("head.weight", "head.bias")


class Blend(BaseModel):
    """What a model was blended of; what its training needs to be done again.

    alpha: the challenger's weight, in (0, 1). champion: the other's content hash.
    start: content hash of the model that the challenger's training started from, "" if it was a
        source task's weights. The card's parent is the champion, whatever the start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    alpha: float
    champion: str
    start: str


def aligned(
    champion: ImageClassifier, challenger: ImageClassifier, renamed: Mapping[str, str] = NO_NAMES
) -> ImageClassifier:
    """The champion under the challenger's classes, ready to be blended with it.

    Kept classes are matched by name. Of a class that the champion does not know it has no opinion,
    so the challenger's row stands there and blending leaves it whole: zeros would shrink its
    logits. Where there is such a class, the same is added to each of the champion's rows, so that
    the mean of the kept rows is the challenger's. That changes no answer of the champion (softmax
    does not see it), and of the blend it makes this: how a new class stands against the kept ones
    on average is as the challenger learned it at every alpha, and only what sets the kept ones
    apart is blended.

    Args:
        champion, challenger: of one architecture, with at least one class in common.
        renamed: {old name: new name} of the champion's classes.

    Raises:
        ConfigError: as contract_of().
    """
    known = regraft(champion, challenger.card.classes, renamed)
    contract = known.card.contract
    if not contract.added:
        return known
    kept = torch.tensor([name in contract.kept for name in challenger.card.classes])  # (K,)
    head = {name: _rows(known.weights[name], challenger.weights[name], kept) for name in HEAD}
    return replace(known, weights=known.weights | head)


def _rows(old: Tensor, new: Tensor, kept: Tensor) -> Tensor:
    """The new rows, but for the kept ones, which are the old ones with the mean of the new ones."""
    shift = (new[kept].double() - old[kept].double()).mean(0)  # (D,), or () of the bias
    rows = new.clone()
    rows[kept] = (old[kept].double() + shift).to(old.dtype)
    return rows


def blended(known: ImageClassifier, challenger: ImageClassifier, alpha: float) -> ImageClassifier:
    """(1 - alpha) * champion + alpha * challenger, parameters and norm statistics alike.

    Whole numbers (the step counters of norms) are the challenger's. What is equal in both stays as
    it is, bit for bit.

    Args:
        known: the champion as aligned() made it.
        alpha: in (0, 1).

    Source: Wortsman et al. 2022 (WiSE-FT), section 2: weight-space ensembling.
    """
    weights = {
        name: torch.lerp(known.weights[name], new, alpha) if new.is_floating_point() else new
        for name, new in challenger.weights.items()
    }
    blend = Blend(alpha=alpha, champion=known.card.parent, start=challenger.card.parent)
    return replace(challenger, weights=weights).with_card(
        parent=known.card.parent,
        contract=known.card.contract,
        config=challenger.card.config | {RECORD: blend.model_dump_json()},
    )


def blend_of(card: Card) -> Blend | None:
    """What the model was blended of, None if it is as it was trained."""
    record = card.config.get(RECORD)
    return Blend.model_validate_json(record) if record else None


def start_of(card: Card) -> str:
    """Content hash of the model that its training started from, "" if it was a source task's."""
    blend = blend_of(card)
    return blend.start if blend else card.parent
