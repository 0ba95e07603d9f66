"""Ingest: a folder, a manifest or a torchvision data set becomes the image table."""

from regraft.data.ingest.code_fingerprint import DECODING_FILES, code_fingerprint
from regraft.data.ingest.cores import n_cores
from regraft.data.ingest.decode import NO_LIMIT, decode, read_bytes, read_photo
from regraft.data.ingest.facts import THUMBNAIL_SIDE
from regraft.data.ingest.table import ImageTable, fingerprint, ingest

__all__ = [
    "DECODING_FILES",
    "NO_LIMIT",
    "THUMBNAIL_SIDE",
    "ImageTable",
    "code_fingerprint",
    "decode",
    "fingerprint",
    "ingest",
    "n_cores",
    "read_bytes",
    "read_photo",
]
