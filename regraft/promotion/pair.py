"""Two versions of a model and their predictions on the same photos, as values."""

from dataclasses import dataclass

import pandas as pd

from regraft.evaluation.behaviour_result import Behaviour
from regraft.model.card import ClassContract
from regraft.registry.channel_parity import ChannelParity


@dataclass(frozen=True)
class ModelPair:
    """Two versions of the model "name", and facts about them other than their predictions.

    champion: None if there is none.
    contract: how the challenger's classes relate to the champion's.
    majority: the largest class of the training photos.
    last_champion: the previous champion where the registry has no champion now; None if there never
        was a champion.
    unknown_ancestor: a version of the pair whose parent model was deleted, so that its training
        photos are not fully known; None if all are known.
    abstain_below: the challenger answers "unsure" below this confidence; 0 = never.
    behaviour, ms, mb: of the challenger; ms of its network for a photo, on this machine; mb of its
        weights, 1e6 bytes.
    revises: what the challenger changes about the champion if it has the same weights, in words
        ("cat is called kitty"); "" if the two differ in more, or in nothing.
    parity: of the golden photos, for each serving channel; empty until they are tested.
    """

    name: str
    challenger: int
    champion: int | None
    contract: ClassContract
    majority: str
    behaviour: Behaviour
    ms: float
    mb: float
    last_champion: int | None = None
    unknown_ancestor: int | None = None
    abstain_below: float = 0.0
    revises: str = ""
    parity: tuple[ChannelParity, ...] = ()

    @property
    def is_same_model(self) -> bool:
        """Whether the challenger is the champion."""
        return self.champion == self.challenger


@dataclass(frozen=True)
class PairedEvaluation:
    """A pair of models, and their predictions on the same photos.

    photos: a row a test photo: path, sha256, label, all slice columns, seen (whether either model
        was trained or selected on the photo or on a copy of it), unit (the same number for copies
        and near copies of a photo), challenger and champion (the predicted classes; the champion's
        by today's names, "" if there is none), challenger_confidence and champion_confidence (in
        [0, 1], after temperature scaling; NaN if there is none).
    """

    pair: ModelPair
    photos: pd.DataFrame

    @property
    def unseen(self) -> pd.DataFrame:
        """The photos that neither model was trained or selected on."""
        return self.photos[~self.photos.seen]

    @property
    def majority_share(self) -> float:
        """The accuracy of the majority class on the unseen photos; NaN without photos."""
        return float((self.unseen.label == self.pair.majority).mean())

    @property
    def compared(self) -> pd.DataFrame:
        """The unseen photos of the shared classes, one photo for each unit.

        Copies of a photo are not independent, so they count once.
        """
        unseen = self.unseen
        is_shared = unseen.label.isin(self.pair.contract.retained)
        return unseen[is_shared].sort_values(["sha256", "path"]).drop_duplicates("unit")
