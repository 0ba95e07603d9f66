"""What, next to the photo, decides the numbers that a network makes of it."""

import hashlib

from pydantic import BaseModel, ConfigDict

from regraft.data.ingest import code_hash
from regraft.model.backbone import Preprocessing

ROOMS = (
    "data/ingest/decode.py",
    "model/backbone/architecture.py",
    "model/pixels.py",
    "model/embed/network.py",
)
LIBRARIES = ("torch", "torchvision", "timm", "pillow", "numpy")


class Recipe(BaseModel):
    """All that decides the numbers but the photo itself.

    architecture, weights: of the network; weights is the sha256 over its tensors.
    until: the block whose input is kept; "" = to the end.
    view: "" = the photo as it is tested; else which random view of it, by seed and number, or how
        it was changed.
    compute: precision and device.
    maker: hash of the code that decodes and computes, and the versions of the libraries below it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    architecture: str
    weights: str
    preprocessing: Preprocessing
    compute: str
    view: str = ""
    until: str = ""
    maker: str

    @property
    def key(self) -> str:
        """sha256 of all of it, 64 hex digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def maker(*rooms: str) -> str:
    """Hash of the code between a file's bytes and a row, and of the libraries that it rests on.

    Args:
        rooms: files of regraft/ that have a part in this way, next to those that always have.
    """
    return code_hash((*ROOMS, *rooms), LIBRARIES)
