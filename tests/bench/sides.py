"""The same photos for everybody: a folder with train, validation and test, a folder a class."""

import os
from pathlib import Path

from regraft.core.config import load_config
from regraft.data.ingest import ingest
from regraft.data.split import split


def lay_out(photos: Path, salt: str, folder: Path) -> Path:
    """Regraft's own split of the photos as a folder that every peer can read; files are linked."""
    config = load_config(None, (f"ingest.photos={photos}", f"split.salt='{salt}'"))
    splits = split(ingest(config.ingest), config.split)
    for row in splits.frame.itertuples():
        place = folder / row.split / row.label
        place.mkdir(parents=True, exist_ok=True)
        os.symlink(row.path, place / f"{row.sha256[:16]}{Path(row.path).suffix}")
    return folder
