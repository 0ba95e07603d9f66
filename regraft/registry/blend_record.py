"""The record of a blend in the card of the blended model."""

from pydantic import BaseModel, ConfigDict

from regraft.model.card import Card

RECORD = "retrain.interpolated"  # key in Card.config; no field of the configuration has this name


class Blend(BaseModel):
    """The parents of a blended model, as needed to repeat its training.

    alpha: the weight of the challenger, in (0, 1). champion: content hash of the champion.
    start: content hash of the model that the challenger's training started from, "" if it started
        from the weights of a source task. The parent in the card is the champion in both cases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    alpha: float
    champion: str
    start: str


def read_blend(card: Card) -> Blend | None:
    """Return the record of the blend, None if the model is not a blend."""
    record = card.config.get(RECORD)
    return Blend.model_validate_json(record) if record else None


def training_start(card: Card) -> str:
    """Return the content hash of the model that the training started from.

    "" if it started from the weights of a source task.
    """
    blend = read_blend(card)
    return blend.start if blend else card.parent
