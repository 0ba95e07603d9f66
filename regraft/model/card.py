"""The card of a classifier: the metadata that must travel with the weights."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from regraft.core.errors import WeightsMismatch
from regraft.model.backbone.info import BackboneInfo

CARD_FILE = "card.json"
UNSURE = "unsure"  # the prediction if the confidence is too low


class ClassContract(BaseModel):
    """The relation of the classes to those of an earlier model: see contract_of().

    retained: in both models, by their new names, renamed classes included. added, removed: in one
        model only.
    renamed: (old, new) pairs. reordered: whether the order of the retained classes differs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    retained: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    reordered: bool = False

    @property
    def old_names(self) -> dict[str, str]:
        """Return {new name: old name} of the retained classes."""
        return {name: name for name in self.retained} | {new: old for old, new in self.renamed}

    def __str__(self) -> str:
        renamed = [f"{old} -> {new}" for old, new in self.renamed]
        changes = (("added", self.added), ("removed", self.removed), ("renamed", renamed))
        parts = [f"{change} {', '.join(names)}" for change, names in changes if names]
        if self.reordered:
            parts.append("in another order")
        return "; ".join(parts) or "the same classes"


class Card(BaseModel):
    """The metadata that must travel with the weights.

    temperature: divides the logits, > 0.
    abstain_below: with a lower confidence the prediction is UNSURE, in [0, 1]; 0 = never.
    parent: content hash of the model that training started from; "" = a source task's weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[2] = 2
    classes: tuple[str, ...]
    backbone: BackboneInfo
    contract: ClassContract
    temperature: float = 1.0
    abstain_below: float = 0.0
    parent: str = ""
    dataset_digest: str = ""
    config: dict[str, str] = {}
    versions: dict[str, str] = {}


def read_card(path: Path) -> Card:
    """Return the card in the file.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsMismatch: it is not a valid card.
    """
    try:
        return Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        advice = "Download the bundle again."
        if where == "format":
            advice = "Another version of Regraft wrote this file. Train the model again."
        raise WeightsMismatch(
            f"{path} is not a valid card: {where}: {first['msg']}. {advice}"
        ) from None
