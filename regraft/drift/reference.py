"""The reference for drift: a summary of the photos that a model learned from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from regraft.core.text import format_count
from regraft.data.split import Splits, unit_numbers
from regraft.drift.shares import Counts, Errors
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import (
    Compute,
    EmbeddingResult,
    head_scores,
    judging_compute,
    spec_for,
    try_embeddings_for,
)
from regraft.model.pixels import photos_of

FOLDER = "drift"  # of the bundle
TENSORS_FILE, PHOTOS_FILE = "reference.safetensors", "reference.parquet"
MEASURES = ("brightness", "sharpness", "width", "height")
FORMAT = "2"
_NAMES = ("label", "predicted")  # columns of photos that hold class names
LARGEST_HALF = 6e4  # a little below the largest fp16 number

SplitName = Literal["train", "validation"]


@dataclass(frozen=True)
class Reference:
    """Embeddings and measures of some photos; it holds no photo and no path.

    embeddings: (R, D) fp16, or fp32 if a number is too large for fp16.
    photos: R rows: label, predicted, brightness, sharpness, width, height and "slice:NAME".
    errors: the model's confusion of the validation photos, and the counts of its training photos.
    split: the split that the photos come from.
    compute: precision and device of the embeddings.
    """

    embeddings: Tensor
    photos: pd.DataFrame
    errors: Errors
    split: SplitName
    compute: str

    def __len__(self) -> int:
        return len(self.photos)

    def __str__(self) -> str:
        return f"{format_count(len(self), 'photo')} of {self.split}"

    def with_names(self, renamed: Mapping[str, str]) -> "Reference":
        """Return the same reference with other names of some classes.

        Args:
            renamed: {old name: new name}.
        """
        names = {column: self.photos[column].replace(dict(renamed)) for column in _NAMES}
        return replace(self, photos=self.photos.assign(**names))

    def save(self, folder: Path) -> None:
        """Write the reference into the folder; the folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "embeddings": self.embeddings.contiguous(),
            "confusion": torch.from_numpy(np.array(self.errors.confusion, np.int64)),
            "training": torch.from_numpy(np.array(self.errors.training, np.int64)),
            "learned": torch.from_numpy(np.array(self.errors.learned, np.float64)),
        }
        metadata = {"format": FORMAT, "split": self.split, "compute": self.compute}
        safetensors.torch.save_file(tensors, folder / TENSORS_FILE, metadata)
        self.photos.to_parquet(folder / PHOTOS_FILE, index=False)


def load_reference(folder: Path) -> Reference:
    """Return the reference that was saved in the folder.

    Raises:
        RegistryError: it is damaged, or of another format.
    """
    try:
        with safe_open(folder / TENSORS_FILE, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']}, expected format {FORMAT}")
        photos = pd.read_parquet(folder / PHOTOS_FILE)
        split: Any = metadata["split"]
        errors = Errors(
            *(tensors[name].numpy() for name in ("confusion", "training", "learned")),
        )
        reference = Reference(tensors["embeddings"], photos, errors, split, metadata["compute"])
        if len(reference.embeddings) != len(photos):
            raise ValueError(f"{len(reference.embeddings)} embeddings, {len(photos)} rows")
    except (SafetensorError, OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise RegistryError(
            f"Expected a readable drift reference of a model in {folder}, got an error ({error}). "
            "Restore the bundle from a backup, or train again."
        ) from None
    return reference


def choose_reference_split(
    thaws_backbone: bool, learned_before: bool, training: Compute
) -> SplitName:
    """Return the split to compare new photos with: train, which has more photos, where possible.

    A fine-tuned backbone gives its training photos other embeddings than new photos, so its
    reference is the validation split. The same holds if training computed less precisely than
    judging does: with 250 photos in bf16 against 550 in fp32, a test at the level 5 % alarmed in
    15 % of 60 draws, in fp32 in 2 % (clothes, lite0).

    Args:
        thaws_backbone: whether this training changed the backbone.
        learned_before: whether an earlier training on such photos did.
        training: precision and device of the training split's embeddings.
    """
    is_precise = training.dtype == judging_compute().dtype
    return "train" if is_precise and not (thaws_backbone or learned_before) else "validation"


def make_reference(
    classifier: ImageClassifier, splits: Splits, config: Config, split: SplitName
) -> Reference:
    """Return the reference of at most config.drift.n_reference photos of a split.

    The photos with the lowest sha256 are taken. All embeddings are in the store after training and
    evaluation if choose_reference_split() chose the split.

    Args:
        classifier: as it was trained on the splits.
    """
    n_bits = config.split.near_duplicate_bits
    chosen = distinct(splits.photos_in(split), n_bits).head(config.drift.n_reference)
    photos, embeddings = _embedded(classifier, chosen, config)
    slices = [name for name in photos.columns if name.startswith("slice:")]
    columns = photos[["label", *MEASURES, *slices]]
    columns.insert(1, "predicted", _predicted(classifier, embeddings))
    return Reference(
        embeddings=_compact(embeddings.rows.all()),
        photos=columns,
        errors=_errors(classifier, splits, config),
        split=split,
        compute=str(judging_compute()),
    )


def distinct(photos: pd.DataFrame, n_bits: int) -> pd.DataFrame:
    """Return a photo of each chain of near copies, and of each group, in the order of sha256.

    The order of sha256 is independent of the content. The tests assume independent photos: with
    pairs of near copies, each counted twice, they raised false alarms in 51 of 60 draws.

    Args:
        photos: sha256. Without phash and thumbnail only exact copies are joined; without group
            ("" = none) only copies and near copies.
        n_bits: split.near_duplicate_bits.
    """
    ordered = photos.drop_duplicates("sha256").sort_values("sha256", ignore_index=True)
    has_hashes = {"phash", "thumbnail"} <= set(ordered.columns)
    by_group = "group" in ordered.columns
    units = pd.Series(unit_numbers(ordered, n_bits if has_hashes else 0, by_group))
    return ordered[~units.duplicated()].reset_index(drop=True)


def _errors(classifier: ImageClassifier, splits: Splits, config: Config) -> Errors:
    classes = list(classifier.card.classes)
    n_bits = config.split.near_duplicate_bits
    judged = distinct(splits.validation, n_bits)
    photos, embeddings = _embedded(classifier, judged, config)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for label, predicted in zip(photos.label, _predicted(classifier, embeddings), strict=True):
        confusion[classes.index(label), classes.index(predicted)] += 1
    counts = _counts(distinct(splits.train, n_bits), classes)
    # The model was trained on near copies too, so they count for the shares that it learned.
    trained_on = _counts(splits.train.drop_duplicates("sha256"), classes)
    is_even = config.tune.class_weights == "balanced"
    even = np.full(len(classes), 1 / len(classes))
    return Errors(confusion, counts, even if is_even else trained_on / trained_on.sum())


def _counts(photos: pd.DataFrame, classes: list[str]) -> Counts:
    """Return the number of photos of each class, (K,)."""
    return photos.label.value_counts().reindex(classes, fill_value=0).to_numpy(np.int64)


def _embedded(
    classifier: ImageClassifier, photos: pd.DataFrame, config: Config
) -> tuple[pd.DataFrame, EmbeddingResult]:
    """Return the photos that can still be read, and their embeddings."""
    spec = spec_for(classifier, judging_compute())
    embeddings = try_embeddings_for(spec, photos_of(photos), config.embed)
    is_readable = ~photos.sha256.isin(list(embeddings.refused))
    return photos[is_readable].reset_index(drop=True), embeddings


def _predicted(classifier: ImageClassifier, embeddings: EmbeddingResult) -> list[str]:
    positions = head_scores(classifier, embeddings.rows).argmax(dim=1).tolist()
    return [classifier.card.classes[at] for at in positions]


def _compact(embeddings: Tensor) -> Tensor:
    """Return the embeddings as fp16, or as fp32 if a number is too large for fp16."""
    fits = bool((embeddings.abs() < LARGEST_HALF).all())
    return embeddings.to(torch.float16 if fits else torch.float32)
