"""What drift is measured against: a sketch of the photos that a model learned from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from regraft.core.config import Config
from regraft.core.errors import RegistryError
from regraft.data.split import Splits, connected, find_near_pairs
from regraft.drift.shares import Counts, Errors
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import (
    Compute,
    Found,
    find_rows,
    head_scores,
    judging_compute,
    passage,
)
from regraft.model.pixels import photos_of

FOLDER = "drift"  # of the bundle
TENSORS_FILE, PHOTOS_FILE = "reference.safetensors", "reference.parquet"
MEASURES = ("brightness", "sharpness", "width", "height")
FORMAT = "1"
LARGEST_HALF = 6e4  # what fp16 can hold, nearly

Side = Literal["train", "validation"]


@dataclass(frozen=True)
class Reference:
    """No photo and no path: only what a frozen network made of some photos, and how they look.

    embeddings: (R, D) fp16, or fp32 where a number is too large for that.
    photos: R rows: label, predicted, brightness, sharpness, width, height and "slice:NAME".
    errors: how the model answers the validation photos, and the photos that it was trained on.
    side: whose photos they are. compute: what the embeddings were computed with.
    """

    embeddings: Tensor
    photos: pd.DataFrame
    errors: Errors
    side: Side
    compute: str

    def __len__(self) -> int:
        return len(self.photos)

    def __str__(self) -> str:
        return f"{len(self)} photos of {self.side}"

    def save(self, folder: Path) -> None:
        """Writes it into the folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "embeddings": self.embeddings.contiguous(),
            "confusion": torch.from_numpy(np.array(self.errors.confusion, np.int64)),
            "training": torch.from_numpy(np.array(self.errors.training, np.int64)),
            "learned": torch.from_numpy(np.array(self.errors.learned, np.float64)),
        }
        said = {"format": FORMAT, "side": self.side, "compute": self.compute}
        safetensors.torch.save_file(tensors, folder / TENSORS_FILE, said)
        self.photos.to_parquet(folder / PHOTOS_FILE, index=False)


def load_reference(folder: Path) -> Reference:
    """The reference that was saved in the folder.

    Raises:
        RegistryError: it is damaged, or a newer Regraft wrote it.
    """
    try:
        with safe_open(folder / TENSORS_FILE, "pt") as file:
            said: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        photos = pd.read_parquet(folder / PHOTOS_FILE)
        side: Any = said["side"]
        errors = Errors(
            *(tensors[name].numpy() for name in ("confusion", "training", "learned")),
        )
        reference = Reference(tensors["embeddings"], photos, errors, side, said["compute"])
        if said["format"] != FORMAT or len(reference.embeddings) != len(photos):
            raise ValueError(f"format {said['format']}, {len(photos)} rows")
    except (SafetensorError, OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise RegistryError(
            f"Expected the reference for drift of a model in {folder}, got something else "
            f"({error}). Put the bundle back from a backup, or train again."
        ) from None
    return reference


def side_for(thaws_backbone: bool, learned_before: bool, training: Compute) -> Side:
    """Whose photos a model's new ones may be compared with; train's, which are more, if possible.

    A backbone that was trained knows its training photos, and makes other numbers of them than of
    new ones: then the photos that only chose have to do. So they have where training computed less
    precisely than judging does: 250 photos in bf16 against 550 in fp32 set off a test of 5 % in
    15 % of 60 draws, in fp32 in 2 % (clothes, lite0).

    Args:
        thaws_backbone: whether this training moved the backbone.
        learned_before: whether an earlier one on such photos did.
        training: what the training side was computed with.
    """
    is_precise = training.dtype == judging_compute().dtype
    return "train" if is_precise and not (thaws_backbone or learned_before) else "validation"


def make_reference(
    classifier: ImageClassifier, splits: Splits, config: Config, side: Side
) -> Reference:
    """The sketch of at most config.drift.n_reference photos of a side, those of lowest sha256.

    All that it takes is in the store after training and evaluation, if side_for() chose the side.

    Args:
        classifier: as it was trained on the splits.
    """
    n_bits = config.split.near_duplicate_bits
    chosen = distinct(splits.side(side), n_bits).head(config.drift.n_reference)
    photos, found = _embedded(classifier, chosen, config)
    slices = [name for name in photos.columns if name.startswith("slice:")]
    columns = photos[["label", *MEASURES, *slices]]
    columns.insert(1, "predicted", _answers(classifier, found))
    return Reference(
        embeddings=_small(found.rows.all()),
        photos=columns,
        errors=_errors(classifier, splits, config),
        side=side,
        compute=str(judging_compute()),
    )


def distinct(photos: pd.DataFrame, n_bits: int) -> pd.DataFrame:
    """One photo of each chain of near copies, in the order of sha256, which is no order at all.

    The tests take each photo for a draw of its own: pairs of near copies, each counted twice, set
    off false alarms in 51 of 60 draws. Photos of one group count once too.

    Args:
        photos: sha256. Without phash and thumbnail only copies count as such; without group
            ("" = none), only copies and near copies do.
        n_bits: split.near_duplicate_bits.
    """
    ordered = photos.drop_duplicates("sha256").sort_values("sha256", ignore_index=True)
    first, second = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if {"phash", "thumbnail"} <= set(ordered.columns):
        pairs = find_near_pairs(ordered, n_bits)
        first, second = pairs.first, pairs.second
    if "group" in ordered.columns:
        grouped = ordered.group[ordered.group != ""]
        for positions in grouped.groupby(grouped).indices.values():
            members = grouped.index.to_numpy()[positions]
            first = np.concatenate([first, np.full(len(members), members[0])])
            second = np.concatenate([second, members])
    unit = pd.Series(connected(len(ordered), first, second))
    return ordered[~unit.duplicated()].reset_index(drop=True)


def _errors(classifier: ImageClassifier, splits: Splits, config: Config) -> Errors:
    classes = list(classifier.card.classes)
    n_bits = config.split.near_duplicate_bits
    judged = distinct(splits.validation, n_bits)
    photos, found = _embedded(classifier, judged, config)
    answers = _answers(classifier, found)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for label, said in zip(photos.label, answers, strict=True):
        confusion[classes.index(label), classes.index(said)] += 1
    counts = _counts(distinct(splits.train, n_bits), classes)
    taught = _counts(splits.train.drop_duplicates("sha256"), classes)  # near copies taught it too
    is_even = config.tune.class_weights == "balanced"
    learned = np.full(len(classes), 1 / len(classes)) if is_even else taught / taught.sum()
    return Errors(confusion, counts, learned)


def _counts(photos: pd.DataFrame, classes: list[str]) -> Counts:
    """(K,) photos of each class."""
    return photos.label.value_counts().reindex(classes, fill_value=0).to_numpy(np.int64)


def _embedded(
    classifier: ImageClassifier, photos: pd.DataFrame, config: Config
) -> tuple[pd.DataFrame, Found]:
    """The photos that can still be read, and their embeddings."""
    found = find_rows(passage(classifier, judging_compute()), photos_of(photos), config.embed)
    return photos[~photos.sha256.isin(list(found.refused))].reset_index(drop=True), found


def _answers(classifier: ImageClassifier, found: Found) -> list[str]:
    positions = head_scores(classifier, found.rows).argmax(dim=1).tolist()
    return [classifier.card.classes[at] for at in positions]


def _small(embeddings: Tensor) -> Tensor:
    fits = bool((embeddings.abs() < LARGEST_HALF).all())
    return embeddings.to(torch.float16 if fits else torch.float32)
