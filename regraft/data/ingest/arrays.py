"""Photos that are no files: a torchvision data set is written out as PNG, once."""

import contextlib
import gzip
import hashlib
import inspect
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from regraft.core.config import IngestConfig
from regraft.core.errors import ConfigError, NoPhotos
from regraft.core.files import absolute, filesystem, is_url, write_once
from regraft.data.ingest.sources import Listed, Listing
from regraft.data.ingest.walk import stamp_of

PREFIX = "torchvision:"
# Where Debian's dataset-* packages put their files: the distributor's own packed IDX files.
_SYSTEM = Path("/usr/share/datasets")
_SPLIT_NAMES = {
    "train": ("train", "trainval"),
    "validation": ("val", "valid"),
    "test": ("test",),
}
# What a data set's constructor raises when its files are not there, are not whole or do not come.
_NOT_THERE = (OSError, RuntimeError, ValueError)


class _Dataset(Protocol):
    """What torchvision's data sets have in common."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[object, object]: ...


_Maker = Callable[..., _Dataset]


def list_torchvision(config: IngestConfig) -> Listing:
    """The photos of a torchvision data set, written as PNG below config.images_url.

    Looked for in config.torchvision_root, then in the system's data directory, then below
    images_url; only then downloaded. The splits are the data set's own; without any, none is given.

    Args:
        config: photos is torchvision:NAME; images_url is a local folder or an fsspec URL.

    Raises:
        ConfigError: images_url is empty, or torchvision knows no such classification data set.
        NoPhotos: the files are not here and cannot be fetched; says which go where.
    """
    name = config.photos.removeprefix(PREFIX)
    if not config.images_url:
        raise ConfigError(
            f"{config.photos} holds arrays, which are written as PNG files: expected a folder or "
            f"URL in ingest.images_url, got none. Set it."
        )
    maker = _maker(name)
    store = f"{absolute(config.images_url)}/{name}"
    with _download_root(config) as downloads:
        parts = _open_parts(maker, _roots(config, name, downloads))
        there = _already_there(store)
        photos = [
            photo
            for split, dataset in parts.items()
            for photo in _write_photos(dataset, split, store, there)
        ]
    return Listing(tuple(photos))


def torchvision_stamp(config: IngestConfig) -> str:
    """What changes when the data set does: its name, and the copy on this machine, if there is one.

    A copy that Regraft downloads is not looked at: it cannot differ from what the name says.
    """
    name = config.photos.removeprefix(PREFIX)
    places = [Path(absolute(config.torchvision_root))] if config.torchvision_root else []
    files = [
        f"{file}:{stamp_of(str(file))}"
        for place in [*places, _system_folder(name)]
        for file in sorted(place.rglob("*"))
        if file.is_file()
    ]
    return "\n".join([config.photos, *files])


def _maker(name: str) -> _Maker:
    import torchvision  # two seconds, for the few who need it

    known = torchvision.datasets.__all__
    maker: _Maker | None = getattr(torchvision.datasets, name) if name in known else None
    if maker is None or "root" not in inspect.signature(maker).parameters:
        raise ConfigError(
            f"torchvision has no data set {name!r} that Regraft can read. torchvision knows: "
            f"{', '.join(known)}."
        )
    return maker


@contextlib.contextmanager
def _download_root(config: IngestConfig) -> Iterator[Path]:
    images = absolute(config.images_url)
    if not is_url(images):
        yield Path(images) / "torchvision"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _roots(config: IngestConfig, name: str, downloads: Path) -> list[Path]:
    roots = [Path(absolute(config.torchvision_root))] if config.torchvision_root else []
    if _system_folder(name).is_dir():
        _unpack(_system_folder(name), downloads / name / "raw")
    return [*roots, downloads]


def _system_folder(name: str) -> Path:
    """Debian's name for it.

    >>> _system_folder("FashionMNIST").name
    'fashion-mnist'
    """
    return _SYSTEM / re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _unpack(packed: Path, raw: Path) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    for source in packed.glob("*-ubyte.gz"):
        part = raw / f"{source.stem}.part"
        if (raw / source.stem).exists():
            continue
        with gzip.open(source) as reader, part.open("wb") as writer:
            shutil.copyfileobj(reader, writer)
        part.replace(raw / source.stem)


def _open_parts(maker: _Maker, roots: list[Path]) -> dict[str, _Dataset]:
    for root in roots:
        with contextlib.suppress(*_NOT_THERE):
            return _parts(maker, root, download=False)
    try:
        roots[-1].mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints its attempts
            return _parts(maker, roots[-1], download=True)
    except (*_NOT_THERE, TypeError) as error:
        raise NoPhotos(
            f"Expected torchvision's {_name(maker)}, found no copy in "
            f"{' or '.join(map(str, roots))} and could not download it ({error}). "
            f"{_what_goes_where(maker, roots[-1])}"
        ) from None


def _name(maker: _Maker) -> str:
    return str(maker.__name__)


def _what_goes_where(maker: _Maker, root: Path) -> str:
    folder = root / _name(maker) / "raw"
    resources = getattr(maker, "resources", None)
    if not isinstance(resources, list):
        return f"Put its files, laid out as torchvision expects them, below {root}."
    files = ", ".join(str(url).removesuffix(".gz") for url, _ in resources)
    return f"Put the unpacked files {files} in {folder}."


def _parts(maker: _Maker, root: Path, *, download: bool) -> dict[str, _Dataset]:
    """The data set's own splits, by Regraft's names; {"": everything} if it has none."""
    parameters = inspect.signature(maker).parameters
    fetch: dict[str, Any] = {"download": download} if "download" in parameters else {}
    if "train" in parameters:
        return {
            "train": maker(str(root), train=True, **fetch),
            "test": maker(str(root), train=False, **fetch),
        }
    if "split" not in parameters:
        return {"": maker(str(root), **fetch)}
    parts: dict[str, _Dataset] = {}
    for split, names in _SPLIT_NAMES.items():
        for name in names:
            with contextlib.suppress(ValueError):  # torchvision's word for an unknown split
                parts.setdefault(split, maker(str(root), split=name, **fetch))
    if "train" not in parts:
        raise RuntimeError(f"it has no split called {' or '.join(_SPLIT_NAMES['train'])}")
    return parts


def _already_there(store: str) -> set[str]:
    fs, path = filesystem(store)
    return {name.rpartition("/")[2] for name in fs.find(path)}


def _write_photos(dataset: _Dataset, split: str, store: str, there: set[str]) -> Iterator[Listed]:
    names = getattr(dataset, "classes", None)
    indices = tqdm(range(len(dataset)), desc=f"write {split}", disable=None, delay=2)
    for index in indices:
        image, target = dataset[index]
        if not isinstance(image, Image.Image) or not isinstance(target, (int, np.integer)):
            kind = type(dataset).__name__
            raise ConfigError(f"torchvision's {kind} is no set of photos with one label each.")
        uri = _write_png(image, store, there)
        yield Listed(uri, str(names[target]) if names else str(target), split)


def _write_png(image: Image.Image, store: str, there: set[str]) -> str:
    content = hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes())
    name = f"{content.hexdigest()[:32]}.png"
    uri = f"{store}/{name[:2]}/{name}"  # in 256 folders: file systems dislike a million in one
    if name not in there:
        png = io.BytesIO()
        image.save(png, "PNG")
        write_once(uri, png.getvalue())
        there.add(name)
    return uri
