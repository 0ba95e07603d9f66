"""Photos from arrays: the photos of a torchvision data set are written as PNG files, once."""

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
from regraft.core.files import absolute, filesystem, is_url, write_if_absent
from regraft.data.ingest.sources import Listed, Listing
from regraft.data.ingest.walk import stamp_of

PREFIX = "torchvision:"
# Folder of Debian's dataset-* packages, which contain the original packed IDX files.
_SYSTEM = Path("/usr/share/datasets")
_SPLIT_NAMES = {
    "train": ("train", "trainval"),
    "validation": ("val", "valid"),
    "test": ("test",),
}
# Errors of a data set's constructor if its files are missing, incomplete or not downloadable.
_NOT_THERE = (OSError, RuntimeError, ValueError)


class _Dataset(Protocol):
    """The common interface of torchvision's data sets."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[object, object]: ...


_DatasetClass = Callable[..., _Dataset]


def list_torchvision(config: IngestConfig) -> Listing:
    """Return the photos of a torchvision data set, written as PNG files below config.images_url.

    The data set is searched in config.torchvision_root, in the system's data folder and below
    images_url, in this order, and downloaded if missing. The given splits are those of the data
    set; if it has none, no split is given.

    Args:
        config: photos is torchvision:NAME; images_url is a local folder or an fsspec URL.

    Raises:
        ConfigError: images_url is empty, or torchvision has no such classification data set.
        NoPhotos: the files are not on this machine and cannot be downloaded; the message names the
            expected files.
    """
    name = config.photos.removeprefix(PREFIX)
    if not config.images_url:
        raise ConfigError(
            f"{config.photos} contains arrays, which are written as PNG files: expected a folder "
            f"or URL in ingest.images_url, got none. Set ingest.images_url."
        )
    dataset_class = _dataset_class(name)
    store = f"{absolute(config.images_url)}/{name}"
    with _download_root(config) as downloads:
        parts = _open_parts(dataset_class, _roots(config, name, downloads))
        stored = _stored_names(store)
        photos = [
            photo
            for split, dataset in parts.items()
            for photo in _write_photos(dataset, split, store, stored)
        ]
    return Listing(tuple(photos))


def torchvision_stamp(config: IngestConfig) -> str:
    """Return a text that changes with the data set: its name, and the files on this machine.

    A copy that Regraft downloads is not checked, because the name determines its content.
    """
    name = config.photos.removeprefix(PREFIX)
    roots = [Path(absolute(config.torchvision_root))] if config.torchvision_root else []
    files = [
        f"{file}:{stamp_of(str(file))}"
        for folder in [*roots, _system_folder(name)]
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    return "\n".join([config.photos, *files])


def _dataset_class(name: str) -> _DatasetClass:
    import torchvision  # takes two seconds, and few users need it

    known = torchvision.datasets.__all__
    dataset_class: _DatasetClass | None = (
        getattr(torchvision.datasets, name) if name in known else None
    )
    if dataset_class is None or "root" not in inspect.signature(dataset_class).parameters:
        raise ConfigError(
            f"Expected a classification data set of torchvision, got {name!r}. torchvision has: "
            f"{', '.join(known)}."
        )
    return dataset_class


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
    """Return the folder of Debian's package of a data set.

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


def _open_parts(dataset_class: _DatasetClass, roots: list[Path]) -> dict[str, _Dataset]:
    for root in roots:
        with contextlib.suppress(*_NOT_THERE):
            return _parts(dataset_class, root, download=False)
    try:
        roots[-1].mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints its attempts
            return _parts(dataset_class, roots[-1], download=True)
    except (*_NOT_THERE, TypeError) as error:
        raise NoPhotos(
            f"Expected torchvision's {_name(dataset_class)}, got no copy in "
            f"{' or '.join(map(str, roots))} and could not download it ({error}). "
            f"{_expected_files(dataset_class, roots[-1])}"
        ) from None


def _name(dataset_class: _DatasetClass) -> str:
    return str(dataset_class.__name__)


def _expected_files(dataset_class: _DatasetClass, root: Path) -> str:
    folder = root / _name(dataset_class) / "raw"
    resources = getattr(dataset_class, "resources", None)
    if not isinstance(resources, list):
        return f"Put its files below {root}, in the layout that torchvision expects."
    files = ", ".join(str(url).removesuffix(".gz") for url, _ in resources)
    return f"Put the unpacked files {files} in {folder}."


def _parts(dataset_class: _DatasetClass, root: Path, *, download: bool) -> dict[str, _Dataset]:
    """Return the splits of the data set by Regraft's names; {"": data set} if it has none."""
    parameters = inspect.signature(dataset_class).parameters
    fetch: dict[str, Any] = {"download": download} if "download" in parameters else {}
    if "train" in parameters:
        return {
            "train": dataset_class(str(root), train=True, **fetch),
            "test": dataset_class(str(root), train=False, **fetch),
        }
    if "split" not in parameters:
        return {"": dataset_class(str(root), **fetch)}
    parts: dict[str, _Dataset] = {}
    for split, names in _SPLIT_NAMES.items():
        for name in names:
            with contextlib.suppress(ValueError):  # the error of torchvision for an unknown split
                parts.setdefault(split, dataset_class(str(root), split=name, **fetch))
    if "train" not in parts:
        raise RuntimeError(f"it has no split named {' or '.join(_SPLIT_NAMES['train'])}")
    return parts


def _stored_names(store: str) -> set[str]:
    fs, path = filesystem(store)
    return {name.rpartition("/")[2] for name in fs.find(path)}


def _write_photos(dataset: _Dataset, split: str, store: str, stored: set[str]) -> Iterator[Listed]:
    names = getattr(dataset, "classes", None)
    indices = tqdm(range(len(dataset)), desc=f"write {split}", disable=None, delay=2)
    for index in indices:
        image, target = dataset[index]
        if not isinstance(image, Image.Image) or not isinstance(target, (int, np.integer)):
            kind = type(dataset).__name__
            raise ConfigError(
                f"Expected photos with a single label each, got torchvision's {kind}. Choose a "
                f"classification data set."
            )
        uri = _write_png(image, store, stored)
        yield Listed(uri, str(names[target]) if names else str(target), split)


def _write_png(image: Image.Image, store: str, stored: set[str]) -> str:
    content = hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes())
    name = f"{content.hexdigest()[:32]}.png"
    uri = f"{store}/{name[:2]}/{name}"  # 256 folders: file systems are slow with very large folders
    if name not in stored:
        png = io.BytesIO()
        image.save(png, "PNG")
        write_if_absent(uri, png.getvalue())
        stored.add(name)
    return uri
