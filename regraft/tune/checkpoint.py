"""Where an interrupted training is resumed from: one file, written whole or not at all."""

import hashlib
import io
import json
import pickle
import uuid
from dataclasses import dataclass
from typing import Any

import fsspec
import torch

from regraft.classifier import ImageClassifier
from regraft.config import TuneConfig
from regraft.freeze import FreezePlan
from regraft.split import Splits
from regraft.tune.challenger import Phase

TreeOfTensors = dict[
    str, Any
]  # what torch's state_dict() methods return: nested, tensors at leaves


@dataclass(frozen=True)
class Checkpoint:
    """A place for one training's state; "" as url means that nothing is kept."""

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
        """Replaces the file in one move: a reader sees the old state or the new one."""
        if not self.url:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        filesystem, path = fsspec.core.url_to_fs(self.path)
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        half_written = f"{path}.{uuid.uuid4().hex}"
        filesystem.pipe_file(half_written, buffer.getvalue())
        filesystem.mv(half_written, path)

    def load(self) -> TreeOfTensors | None:
        """The state last saved, None if there is none or it cannot be read."""
        filesystem, path = fsspec.core.url_to_fs(self.path)
        if not self.url or not filesystem.exists(path):
            return None
        try:
            data = io.BytesIO(filesystem.cat_file(path))
            state: TreeOfTensors = torch.load(data, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            return None
        return state

    def remove(self) -> None:
        """Forgets the state: the training has ended."""
        filesystem, path = fsspec.core.url_to_fs(self.path)
        if self.url and filesystem.exists(path):
            filesystem.rm(path)


def checkpoint_of(
    pretrained: ImageClassifier, plan: FreezePlan, splits: Splits, config: TuneConfig
) -> Checkpoint:
    """The checkpoint of exactly this training: same start, plan, photos and settings."""
    settings = config.model_dump(exclude={"checkpoint_url"}, mode="json")
    parts = [pretrained.content_hash, splits.digest, torch.__version__, json.dumps(settings)]
    parts += [f"{p.name}={p.lr_factor}" for p in plan.parameters]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return Checkpoint(config.checkpoint_url, key)
