"""A real classifier and real photos, small enough for a unit test: 32 pixels, a tiny network.

The photos of a class share their mean colour, so even random weights separate the classes.
"""

import hashlib
import io
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file

from regraft.core.config import BackboneConfig, FreezeConfig, TuneConfig
from regraft.data.split import Splits
from regraft.model.backbone import build_body
from regraft.model.classifier import ImageClassifier, load_pretrained
from regraft.model.freeze import freeze
from regraft.training.tune import Challenger, EpochRecord, SolvedHead, fine_tune

torch.set_num_threads(1)  # a second thread is slower for networks this small

ARCHITECTURE = "timm:test_efficientnet"
COLOURS = {"amber": (220, 160, 30), "blue": (30, 60, 220), "green": (40, 200, 60)}
CLASSES = tuple(COLOURS)
SIDES = ("train",) * 6 + ("validation",) * 3 + ("test",)
SETTINGS = TuneConfig(epochs=3, batch_size=8, lr=1e-2, precision="fp32", head_l2=(0.1, 1.0))
# Moving statistics are the harder case: they must be resumed and averaged too.
POLICIES = {
    name: FreezeConfig(policy=name, norm_statistics="moving")
    for name in ("probe", "last_block", "all")
}
N_COUNTED = 100_001  # steps of the pretrained norms; averaged as a float the number would decrease


def write_weights(path: Path, architecture: str = ARCHITECTURE, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    weights = build_body(architecture).module.state_dict()
    for name in weights:
        if name.endswith("num_batches_tracked"):
            weights[name].fill_(N_COUNTED)
    save_file(weights, path)
    return path


def classifier_of(weights: Path, classes: tuple[str, ...] = CLASSES) -> ImageClassifier:
    """Return the tiny network, with photos of 32 x 32 pixels."""
    config = BackboneConfig(source=f"file:{weights}", architecture=ARCHITECTURE)
    start = load_pretrained(config, classes)
    small = start.card.backbone.preprocessing.model_copy(update={"size": 32, "resize": 36})
    return start.with_card(backbone=start.card.backbone.model_copy(update={"preprocessing": small}))


def photo(seed: int, size: tuple[int, int] = (40, 32), colour=(128, 128, 128)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3))
    pixels = (0.5 * noise + 0.5 * np.array(colour)).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@cache
def photo_file(seed: int, kind: str = "PNG", size: int = 8) -> bytes:
    """Return the bytes of a photo of noise, size by size pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    """Write {path below the root: content}. Return the root."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def draw_splits(folder: Path, sides: tuple[str, ...] = SIDES) -> Splits:
    """Photos of three colours, for each as many as there are sides, as PNG files."""
    rows = []
    for label, colour in COLOURS.items():
        for number, split in enumerate(sides):
            path = folder / f"{label} {number}.png"
            photo(len(rows), colour=colour).save(path)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append({"path": str(path), "label": label, "split": split, "sha256": sha256})
    return splits_of(pd.DataFrame(rows).assign(phash="0" * 16, thumbnail=bytes(256)))


def splits_of(frame: pd.DataFrame) -> Splits:
    nothing = pd.DataFrame(columns=["path"])
    digest = hashlib.sha256(frame.to_csv().encode()).hexdigest()
    return Splits(frame, nothing, nothing, CLASSES, digest, 0, "", 0)


def keep_the_tuned_phase(patch) -> None:
    """Replace the solved head by one that any tuned network beats."""
    patch.setattr(sys.modules["regraft.training.tune.fine_tune"], "solve_head", _worthless_head)


def _worthless_head(train, validation, n_classes, config) -> SolvedHead:
    record = EpochRecord("head", 1, 9.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0)
    n_wide = train.rows.parts[0].shape[1]
    return SolvedHead(np.zeros((n_classes, n_wide)), np.zeros(n_classes), record, (record,))


def tuned(
    start: ImageClassifier,
    splits: Splits,
    policy: str = "last_block",
    config: TuneConfig = SETTINGS,
    log=lambda record: None,
) -> Challenger:
    return fine_tune(start, freeze(start, POLICIES[policy]), splits, config, log)
