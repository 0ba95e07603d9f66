"""Where an interrupted training is resumed from: one file, written whole or not at all."""

import hashlib
import io
import json
import logging
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import fsspec
import torch

from regraft.core.config import TuneConfig
from regraft.core.files import access_errors, write_whole
from regraft.data.split import Splits
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import choose_compute
from regraft.model.freeze import FreezePlan
from regraft.training.tune.challenger import Phase

# What torch's state_dict() methods return: nested, tensors at its leaves.
TreeOfTensors = dict[str, Any]
FORMAT = "2"  # of what is kept; another one is another training
DIGEST_BYTES = hashlib.sha256().digest_size

logger = logging.getLogger("regraft.fine_tune")


@dataclass(frozen=True)
class Checkpoint:
    """A place for one training's state; "" as url means that nothing is kept.

    The file is the sha256 of what follows, then what torch.save writes: torch itself would read a
    file with a flipped bit, and training would go on from other weights.
    """

    url: str
    key: str

    @property
    def path(self) -> str:
        """Where the file lies."""
        return f"{self.url.rstrip('/')}/{self.key}.pt"

    def of(self, phase: Phase) -> "Checkpoint":
        """The checkpoint of one phase of this training."""
        return Checkpoint(self.url, f"{self.key}-{phase}")

    def save(self, state: TreeOfTensors) -> None:
        """Replaces the file in one move: a reader sees the old state or the new one.

        Where it cannot be written, that is said, and the older state stays.
        """
        if not self.url:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        try:
            write_whole(self.path, hashlib.sha256(data).digest() + data)
        except access_errors() as error:
            logger.warning("fine_tune: %s cannot be written (%s).", self.path, error)

    def load(self) -> TreeOfTensors | None:
        """The state last saved, None if there is none or the file is not as it was written."""
        if not self.url:
            return None
        filesystem, path = fsspec.core.url_to_fs(self.path)
        if not filesystem.exists(path):
            return None
        content = filesystem.cat_file(path)
        digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != digest:
            return None
        state: TreeOfTensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return state

    def remove(self) -> None:
        """Forgets the state, half-written files too: the training has ended."""
        if not self.url:
            return
        filesystem, path = fsspec.core.url_to_fs(self.path)
        folder = path.rpartition("/")[0]
        if filesystem.exists(folder):
            for name in filesystem.ls(folder, detail=False):
                if name.rpartition("/")[2].startswith(f"{self.key}.pt"):
                    filesystem.rm(name)


def checkpoint_of(
    pretrained: ImageClassifier, plan: FreezePlan, splits: Splits, config: TuneConfig
) -> Checkpoint:
    """The checkpoint of exactly this training: same start, plan, photos and settings."""
    settings = config.model_dump(exclude={"checkpoint_url"}, mode="json")
    parts = [pretrained.content_hash, splits.digest, json.dumps(settings)]
    parts += [FORMAT, torch.__version__, version("timm"), version("regraft")]
    parts += [str(choose_compute(config))]  # on another machine it is another training
    parts += [plan.norm_statistics, *(f"{p.name}={p.lr_factor}" for p in plan.parameters)]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return Checkpoint(config.checkpoint_url, key)
