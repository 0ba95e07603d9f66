"""The checkpoint of an interrupted training: one file, written atomically."""

import hashlib
import io
import json
import logging
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from regraft.core.config import TuneConfig
from regraft.core.files import (
    access_errors,
    list_files,
    read_if_exists,
    remove_if_exists,
    write_atomic,
)
from regraft.data.split import Splits
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import choose_compute
from regraft.model.freeze import FreezePlan
from regraft.training.tune.challenger import Phase

# What torch's state_dict() methods return: nested, tensors at its leaves.
TreeOfTensors = dict[str, Any]
FORMAT = "3"  # of the state; part of the key, so an older file is ignored
DIGEST_BYTES = hashlib.sha256().digest_size

logger = logging.getLogger("regraft.fine_tune")


@dataclass(frozen=True)
class Checkpoint:
    """The place of a training's state; url "" means that nothing is saved.

    The file is the sha256 of the rest, followed by the output of torch.save. torch alone would read
    a damaged file, and training would continue from wrong weights.
    """

    url: str
    key: str

    @property
    def path(self) -> str:
        """Return the path of the file."""
        return f"{self.url.rstrip('/')}/{self.key}.pt"

    def of(self, phase: Phase) -> "Checkpoint":
        """Return the checkpoint of a phase of this training."""
        return Checkpoint(self.url, f"{self.key}-{phase}")

    def save(self, state: TreeOfTensors) -> None:
        """Replace the file atomically: a reader gets the old state or the new one.

        A failure to write is logged as a warning; the old state remains.
        """
        if not self.url:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        try:
            write_atomic(self.path, hashlib.sha256(data).digest() + data)
        except access_errors() as error:
            logger.warning("fine_tune: %s cannot be written (%s).", self.path, error)

    def load(self) -> TreeOfTensors | None:
        """Return the last saved state, or None if there is none or the file is damaged."""
        if not self.url:
            return None
        content = read_if_exists(self.path)
        if content is None:
            return None
        digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            return None
        state: TreeOfTensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return state

    def remove(self) -> None:
        """Remove the state and partly written files, after the end of the training.

        A failure to remove is logged as a warning: the training itself has succeeded.
        """
        if not self.url:
            return
        try:
            fs, names = list_files(self.url, "")
            for name in names:
                if name.rpartition("/")[2].startswith(f"{self.key}.pt"):
                    remove_if_exists(fs, name)  # another run of this training may have ended too
        except access_errors() as error:
            logger.warning("fine_tune: %s cannot be removed (%s).", self.path, error)


def checkpoint_for(
    pretrained: ImageClassifier, plan: FreezePlan, splits: Splits, config: TuneConfig
) -> Checkpoint:
    """Return the checkpoint of exactly this training: start, plan, photos and configuration."""
    settings = config.model_dump(exclude={"checkpoint_url"}, mode="json")
    parts = [pretrained.content_hash, splits.digest, json.dumps(settings)]
    parts += [FORMAT, torch.__version__, version("timm"), version("regraft")]
    parts += [
        str(choose_compute(config))
    ]  # with another device or precision it is another training
    parts += [plan.norm_statistics, *(f"{p.name}={p.lr_factor}" for p in plan.parameters)]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return Checkpoint(config.checkpoint_url, key)
