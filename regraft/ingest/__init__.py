"""Ingest: a folder, a manifest or a torchvision data set becomes the image table."""

from regraft.ingest.decode import NO_LIMIT, decode, filesystem, is_url, read_bytes, read_photo
from regraft.ingest.sources import absolute, write_once
from regraft.ingest.table import THUMBNAIL_SIDE, ImageTable, fingerprint, ingest

__all__ = [
    "NO_LIMIT",
    "THUMBNAIL_SIDE",
    "ImageTable",
    "absolute",
    "decode",
    "filesystem",
    "fingerprint",
    "ingest",
    "is_url",
    "read_bytes",
    "read_photo",
    "write_once",
]
