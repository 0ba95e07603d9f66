"""The cache key of an embedding: everything besides the photo that decides its values."""

import hashlib

from pydantic import BaseModel, ConfigDict

from regraft.model.backbone import Preprocessing

CODE_FILES = (  # besides those that decode a photo
    "model/backbone/architecture.py",
    "model/pixels.py",
    "model/embed/network.py",
)
LIBRARIES = ("torch", "torchvision", "timm", "pillow", "numpy")


class CacheKey(BaseModel):
    """Everything that decides an embedding, except the photo itself.

    architecture, weights: of the network; weights is the sha256 of its tensors.
    compute: precision and device.
    view: "" = the photo as in testing; otherwise a random view (seed and number) or a perturbation.
    until: the block whose input is stored; "" = the network's output.
    code_fingerprint: hash of the code that decodes and computes, and of the library versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    architecture: str
    weights: str
    preprocessing: Preprocessing
    compute: str
    view: str = ""
    until: str = ""
    code_fingerprint: str

    @property
    def digest(self) -> str:
        """Return the sha256 of all fields, 64 hex digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def embedding_code_fingerprint(*extra_files: str) -> str:
    """Return a hash of the code between a file and its embedding, and of the library versions.

    Args:
        extra_files: files of regraft/ that take part in this case, in addition to CODE_FILES.
    """
    from regraft.data.ingest import DECODING_FILES, code_fingerprint  # imports pandas

    return code_fingerprint((*DECODING_FILES, *CODE_FILES, *extra_files), LIBRARIES)
