"""The recorded split of each photo, in shards that are only ever added."""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
from filelock import FileLock

from regraft.core.errors import DataError
from regraft.core.files import absolute, is_url, list_files, read_files, write_if_absent

# Thumbnail, hash and group are stored so that a new copy of a deleted photo gets the same split.
COLUMNS = ("sha256", "split", "group", "phash", "thumbnail")
_PRIORITY = {"test": 0, "validation": 1, "train": 2}


@contextlib.contextmanager
def memory_lock(url: str) -> Iterator[None]:
    """Lock the memory for other processes of this machine for the duration of the block.

    A remote memory has no lock. Two concurrent runs may assign a new photo to different splits; see
    load_assignments() for the split that counts afterwards.

    Args:
        url: the folder of the memory, local path or fsspec URL; "" = no memory.
    """
    if not url or is_url(absolute(url)):
        yield
        return
    folder = Path(absolute(url))
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        yield


def load_assignments(url: str) -> pd.DataFrame:
    """Return the recorded photos: one row per content, columns as COLUMNS, sorted by sha256.

    If a photo is recorded in several splits, test takes priority over validation, and validation
    over train.

    Args:
        url: the folder of the memory, local path or fsspec URL; "" = no memory, no rows.

    Raises:
        DataError: a shard cannot be read.
    """
    empty = pd.DataFrame({column: pd.Series(dtype=object) for column in COLUMNS})
    if not url:
        return empty
    fs, names = list_files(absolute(url), ".parquet")
    contents = read_files(fs, names)
    shards = [_read_shard(data, name) for data, name in zip(contents, names, strict=True)]
    if not shards:
        return empty
    remembered = pd.concat(shards)
    order = remembered["split"].map(_PRIORITY)
    remembered = remembered.assign(order=order).sort_values(["sha256", "order"])
    return remembered.drop_duplicates("sha256")[list(COLUMNS)].reset_index(drop=True)


def save_assignments(url: str, photos: pd.DataFrame) -> None:
    """Add photos to the memory as a shard that is named by its content; no photos, no shard.

    Args:
        url: as in load_assignments(); "" = no memory, nothing is written.
        photos: columns as COLUMNS, at least.
    """
    shard = photos[list(COLUMNS)].drop_duplicates("sha256").sort_values("sha256")
    if not url or shard.empty:
        return
    lines = "\n".join(shard["sha256"] + " " + shard["split"])
    name = hashlib.sha256(lines.encode()).hexdigest()[:32]
    buffer = io.BytesIO()
    shard.to_parquet(buffer, index=False)
    write_if_absent(f"{absolute(url)}/{name}.parquet", buffer.getvalue())


def _read_shard(data: bytes, name: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(data), columns=list(COLUMNS))
    except (ValueError, OSError, pa.ArrowException) as error:
        raise DataError(
            f"Expected a shard of the split memory in {name}, got other content ({error}). Restore "
            f"the shard from a backup, because photos may change split without it. If an older "
            f"Regraft wrote the shard, choose another folder in split.memory_url."
        ) from None
