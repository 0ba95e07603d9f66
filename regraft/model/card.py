"""The card of a classifier: the metadata that must travel with the weights."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from regraft.core.errors import WeightsMismatch
from regraft.model.backbone.info import BackboneInfo, Name

CARD_FILE = "card.json"
UNSURE = "unsure"  # the prediction if the confidence is too low
MAX_CARD_BYTES = 2**26  # 67 MB: half a million class names of 100 letters. Guess


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


def _refuse_repeated(classes: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({name for name, n in Counter(classes).items() if n > 1})
    if repeated:
        raise ValueError(f"each class must be listed once, {repeated[0]!r} is repeated")
    return classes


class Card(BaseModel):
    """The metadata that must travel with the weights.

    classes: in the order of the head's rows, each once; at least one.
    temperature: divides the logits, finite and > 0.
    abstain_below: with a lower confidence the prediction is UNSURE, in [0, 1]; 0 = never.
    notes: decisions about the training that the user did not make, a sentence each.
    parent: content hash of the model that training started from; "" = a source task's weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[2] = 2
    classes: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_refuse_repeated)]
    backbone: BackboneInfo
    contract: ClassContract
    temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    abstain_below: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    parent: str = ""
    dataset_digest: str = ""
    config: dict[str, str] = {}
    versions: dict[str, str] = {}
    notes: tuple[str, ...] = ()


def read_card(path: Path) -> Card:
    """Return the card in the file.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsMismatch: it is not a valid card; the message names the file and the field.
    """
    if (n_bytes := path.stat().st_size) > MAX_CARD_BYTES:
        raise WeightsMismatch(
            f"{path} is not a valid card: expected at most {MAX_CARD_BYTES} bytes, got {n_bytes}. "
            "Download the bundle again."
        )
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
