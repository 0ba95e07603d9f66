"""What a store of rows holds, and room in it: what was not used longest goes first."""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from fsspec.spec import AbstractFileSystem

from regraft.core.files import absolute, access_errors, filesystem
from regraft.model.embed.recipe import Recipe
from regraft.model.embed.store import DAMAGES, HEAD_BYTES, RECIPE_FILE, SUFFIX, discard, photos_in

# A store may stand in a folder with other things, which are neither counted nor removed. ".part":
# of a shard whose writer is at it, or was killed.
_OURS = re.compile(rf"(.*/[0-9a-f]{{64}})/(?:[0-9a-f]{{64}}{SUFFIX}|{RECIPE_FILE})(?:\.\w+\.part)?")


@dataclass(frozen=True)
class ShelfUse:
    """One recipe's share of a store.

    recipe: None if another version of Regraft wrote it. files: bytes by path. used: the last time.
    """

    folder: str
    recipe: Recipe | None
    files: dict[str, int]
    used: datetime

    @property
    def n_bytes(self) -> int:
        """What it takes."""
        return sum(self.files.values())


def contents(url: str) -> list[ShelfUse]:
    """What the store holds, the most recently used first.

    Args:
        url: of the store; a place where nothing is holds nothing.

    Raises:
        OSError, or what access_errors() names: the place cannot be read.
    """
    fs, root = filesystem(absolute(url))
    fs.invalidate_cache(root)
    shelves: dict[str, dict[str, int]] = {}
    for path, file in fs.find(root, maxdepth=2, detail=True).items():
        if ours := _OURS.fullmatch(path):
            shelves.setdefault(ours[1], {})[path] = int(file["size"])
    found = [_shelf_use(fs, folder, files) for folder, files in shelves.items()]
    return sorted(found, key=lambda shelf: shelf.used, reverse=True)


def count_photos(url: str, shelf: ShelfUse) -> int:
    """How many photos have a row on the shelf; only the heads of its shards are read."""
    fs, _ = filesystem(absolute(url))
    paths = [path for path in shelf.files if path.endswith(SUFFIX)]
    photos: set[str] = set()
    for head in fs.cat_ranges(paths, 0, HEAD_BYTES, on_error="return"):
        with suppress(*DAMAGES):  # told and removed when its rows are asked for
            photos.update(photos_in(head, PurePosixPath(shelf.folder).name))
    return len(photos)


def make_room(url: str, max_bytes: float) -> int:
    """Removes what was not used longest, file by file, until the rest fits.

    Args:
        url: of the store.
        max_bytes: what may stay, >= 0.

    Returns:
        The bytes that were freed.

    Raises:
        OSError, or what access_errors() names: the place cannot be read.
    """
    fs, _ = filesystem(absolute(url))
    shelves = contents(url)
    too_much = sum(shelf.n_bytes for shelf in shelves) - max_bytes
    freed = 0
    for shelf in reversed(shelves):
        for path, n_bytes in sorted(shelf.files.items(), key=_turn):
            if freed >= too_much and (too_much <= 0 or not path.endswith(RECIPE_FILE)):
                return freed  # but the recipe of a shelf that is empty now goes with it
            freed += n_bytes if discard(fs, path) else 0
        # Never the folder with what is in it: another writer may be filling it just now.
        with suppress(*access_errors()):
            fs.rmdir(shelf.folder)
    return freed


def _turn(file: tuple[str, int]) -> int:
    """When a file's turn comes on its shelf: unfinished ones first, the recipe last."""
    path, _ = file
    return 0 if path.endswith(".part") else 1 if path.endswith(SUFFIX) else 2


def _shelf_use(fs: AbstractFileSystem, folder: str, files: dict[str, int]) -> ShelfUse:
    path = f"{folder}/{RECIPE_FILE}"
    recipe, used = None, datetime.min.replace(tzinfo=UTC)
    with suppress(*access_errors(), NotImplementedError):  # just evicted; no times are kept there
        found = fs.modified(path if path in files else next(iter(files)))
        used = found if found.tzinfo else found.replace(tzinfo=UTC)
    with suppress(*access_errors(), ValueError):  # just evicted; of another version
        recipe = Recipe.model_validate_json(fs.cat_file(path))
    return ShelfUse(folder, recipe, files, used)
