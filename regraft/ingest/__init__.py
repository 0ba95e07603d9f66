"""Ingest: a folder, a manifest or a torchvision data set becomes the image table."""

from regraft.ingest.cores import n_cores
from regraft.ingest.decode import NO_LIMIT, decode, read_bytes, read_photo
from regraft.ingest.facts import THUMBNAIL_SIDE
from regraft.ingest.maker import code_hash
from regraft.ingest.table import ImageTable, fingerprint, ingest

__all__ = [
    "NO_LIMIT",
    "THUMBNAIL_SIDE",
    "ImageTable",
    "code_hash",
    "decode",
    "fingerprint",
    "ingest",
    "n_cores",
    "read_bytes",
    "read_photo",
]
