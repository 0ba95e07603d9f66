"""Which side a photo was given before: shards that are only ever added to."""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
from filelock import FileLock

from regraft.core.errors import DataError
from regraft.core.files import absolute, is_url, listed, write_once

# Thumbnail, hash and group are kept so that a copy of a photo that has left still finds its side.
COLUMNS = ("sha256", "side", "group", "phash", "thumbnail")
_JUDGES_MORE = {"test": 0, "validation": 1, "train": 2}


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Nobody else on this machine reads and adds to this memory meanwhile.

    A remote memory has no lock: two runs at once may give a new photo two sides, and from then on
    the one that judges more counts (see recall).
    """
    if not url or is_url(absolute(url)):
        yield
        return
    folder = Path(absolute(url))
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        yield


def recall(url: str) -> pd.DataFrame:
    """What is remembered: one row a photo content, columns as COLUMNS, sorted by sha256.

    Args:
        url: the memory's folder, local path or fsspec URL; "" = no memory, no rows.

    Raises:
        DataError: a shard cannot be read.
    """
    nothing = pd.DataFrame({column: pd.Series(dtype=object) for column in COLUMNS})
    if not url:
        return nothing
    fs, names = listed(absolute(url), ".parquet")
    shards = [_read_shard(fs.cat_file(name), name) for name in names]
    if not shards:
        return nothing
    remembered = pd.concat(shards)
    order = remembered["side"].map(_JUDGES_MORE)
    remembered = remembered.assign(order=order).sort_values(["sha256", "order"])
    return remembered.drop_duplicates("sha256")[list(COLUMNS)].reset_index(drop=True)


def remember(url: str, photos: pd.DataFrame) -> None:
    """Adds photos to the memory, as one shard named by its content; no shard for none.

    Args:
        url: as in recall; "" = no memory, nothing is written.
        photos: columns as COLUMNS, at least.
    """
    shard = photos[list(COLUMNS)].drop_duplicates("sha256").sort_values("sha256")
    if not url or shard.empty:
        return
    lines = "\n".join(shard["sha256"] + " " + shard["side"])
    name = hashlib.sha256(lines.encode()).hexdigest()[:32]
    buffer = io.BytesIO()
    shard.to_parquet(buffer, index=False)
    write_once(f"{absolute(url)}/{name}.parquet", buffer.getvalue())


def _read_shard(data: bytes, name: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(data), columns=list(COLUMNS))
    except (ValueError, OSError, pa.ArrowException) as error:
        raise DataError(
            f"Expected a shard of the split's memory in {name}, got something else ({error}). "
            f"Restore it from a backup; without it, photos may change sides."
        ) from None
