"""Ingest: a folder, a manifest or a torchvision data set becomes the image table."""

from regraft.ingest.decode import NO_LIMIT, decode, read_bytes, read_photo
from regraft.ingest.table import THUMBNAIL_SIDE, ImageTable, fingerprint, ingest

__all__ = [
    "NO_LIMIT",
    "THUMBNAIL_SIDE",
    "ImageTable",
    "decode",
    "fingerprint",
    "ingest",
    "read_bytes",
    "read_photo",
]
