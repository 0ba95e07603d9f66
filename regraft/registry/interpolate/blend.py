"""Blend two models, and record in the card how the blend was made."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from regraft.model.classifier import NO_NAMES, ImageClassifier, regraft
from regraft.registry.blend_record import RECORD, Blend

HEAD = ("head.weight", "head.bias")


def align_champion(
    champion: ImageClassifier, challenger: ImageClassifier, renamed: Mapping[str, str] = NO_NAMES
) -> ImageClassifier:
    """Return the champion with the challenger's classes, ready to be blended.

    Shared classes are matched by name. For a class that only the challenger knows, the result has
    the challenger's row of the head, so the blend keeps that row. A row of zeros would shrink the
    logits of the class.

    If there is a new class, one vector is added to every row of the champion, so that the mean of
    the shared rows equals the challenger's mean. This changes no prediction of the champion,
    because softmax ignores a constant. In the blend, the logit of a new class relative to the mean
    of the shared classes is then the challenger's for every alpha, and only the differences among
    the shared classes are blended.

    Args:
        champion, challenger: of the same architecture, with at least one class in common.
        renamed: {old name: new name} of the champion's classes.

    Raises:
        ConfigError: as contract_of().
    """
    aligned = regraft(champion, challenger.card.classes, renamed)
    contract = aligned.card.contract
    if not contract.added:
        return aligned
    shared = torch.tensor([name in contract.retained for name in challenger.card.classes])  # (K,)
    head = {
        name: _head_rows(aligned.weights[name], challenger.weights[name], shared) for name in HEAD
    }
    return replace(aligned, weights=aligned.weights | head)


def _head_rows(old: Tensor, new: Tensor, shared: Tensor) -> Tensor:
    """Return the new rows; the shared rows are the old ones, shifted to the mean of the new ones.

    Args:
        old, new: (K, D) for the weight, (K,) for the bias. shared: (K,) booleans.
    """
    shift = (new[shared].double() - old[shared].double()).mean(0)  # (D,), or () for the bias
    rows = new.clone()
    rows[shared] = (old[shared].double() + shift).to(old.dtype)
    return rows


def blend_models(
    aligned: ImageClassifier, challenger: ImageClassifier, alpha: float
) -> ImageClassifier:
    """Return (1 - alpha) * champion + alpha * challenger, for parameters and norm statistics.

    Integer tensors (the step counters of norms) are the challenger's. Values that are equal in both
    models stay equal bit for bit.

    Args:
        aligned: the champion, from align_champion().
        alpha: in (0, 1).

    Source: Wortsman et al. 2022 (WiSE-FT), section 2: weight-space ensembling.
    """
    weights = {
        name: torch.lerp(aligned.weights[name], new, alpha) if new.is_floating_point() else new
        for name, new in challenger.weights.items()
    }
    blend = Blend(alpha=alpha, champion=aligned.card.parent, start=challenger.card.parent)
    return replace(challenger, weights=weights).with_card(
        parent=aligned.card.parent,
        contract=aligned.card.contract,
        config=challenger.card.config | {RECORD: blend.model_dump_json()},
    )
