"""The image table: every new photo decoded once, what is unusable set aside with its reason."""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd
from tqdm import tqdm

from regraft.config import IngestConfig
from regraft.errors import (
    ClassVanished,
    ConfigError,
    DataError,
    NoPhotos,
    TooManyQuarantined,
    UnusablePhoto,
)
from regraft.files import absolute, filesystem, is_url
from regraft.ingest.arrays import PREFIX, list_torchvision, torchvision_stamp
from regraft.ingest.cores import n_cores
from regraft.ingest.decode import read_bytes
from regraft.ingest.facts import Facts, find_facts, sha256_of
from regraft.ingest.manifest import is_manifest, list_manifest
from regraft.ingest.memory import recall, remembering
from regraft.ingest.sources import (
    Listed,
    Listing,
    Quarantined,
    find_files,
    list_folder,
)


@dataclass(frozen=True)
class ImageTable:
    """The usable photos, the others with their reason, and a digest of the content.

    Attributes:
        frame: one row a usable photo, sorted by path: path (absolute, or a URL), label, split
            (train, validation, test or "" = not given), group ("" = none), sha256 (of the file),
            phash (64-bit perceptual hash, 16 hex digits), thumbnail (256 bytes: 16 x 16 grey, row
            by row), width, height (pixels, upright), n_bytes, and a string column "slice:NAME" for
            each further manifest column.
        quarantine: one row an unusable file, sorted by path: path, label, reason, detail.
        classes: the labels of frame, sorted.
        digest: sha256 over the content, blind to paths and to their order.
        n_ignored: hidden files, non-images and repeated manifest rows.
        source: what the user named.
    """

    frame: pd.DataFrame
    quarantine: pd.DataFrame
    classes: tuple[str, ...]
    digest: str
    n_ignored: int
    source: str

    def __str__(self) -> str:
        return (
            f"ingest: {len(self.frame)} photos, {len(self.classes)} classes, "
            f"{len(self.quarantine)} quarantined, {self.n_ignored} other files ignored"
        )


def ingest(config: IngestConfig) -> ImageTable:
    """The table of the photos at config.photos; see the forms in IngestConfig.

    Args:
        config: what to read, and when to give up.

    Raises:
        ConfigError: no place is named, or one that cannot be meant.
        NoPhotos: there is nothing to read.
        ManifestError: the manifest cannot be read as one.
        TooManyQuarantined: their share passed config.max_quarantine_fraction.
        ClassVanished: a class has no usable photo left.
        DataError: there are fewer than two classes.
    """
    listing = _list(config)
    rows, quarantined = _read_all(listing, config)
    frame = _frame(rows, listing.slice_names)
    clashing = _clashing(frame)
    usable = frame[~frame["path"].isin([entry.path for entry in clashing])]
    entries = sorted([*listing.quarantined, *quarantined, *clashing])
    quarantine = pd.DataFrame(entries, columns=list(Quarantined._fields), dtype=str)
    _refuse_too_many(quarantine, len(usable), config)
    _refuse_vanished(quarantine, set(usable["label"]))
    _refuse_one_class(set(usable["label"]), config.photos)
    return ImageTable(
        frame=usable.reset_index(drop=True),
        quarantine=quarantine,
        classes=tuple(sorted(set(usable["label"]))),
        digest=_digest(usable),
        n_ignored=listing.n_ignored,
        source=config.photos,
    )


def fingerprint(config: IngestConfig) -> str:
    """A hash that changes when the photos may have: listing, sizes, times, manifest; none opened.

    Args:
        config: what would be read. Its place is part of the hash, because a table holds paths.

    Returns:
        64 hex digits.

    Raises:
        ConfigError, NoPhotos, ManifestError: as in ingest.
    """
    if config.photos.startswith(PREFIX):
        return hashlib.sha256(torchvision_stamp(config).encode()).hexdigest()
    place = _place(config)
    if is_manifest(place):
        uris = sorted({photo.uri for photo in list_manifest(place).photos})
        state = [(uri, _stamp(uri)) for uri in uris]
        parts = [place, hashlib.sha256(read_bytes(place)).hexdigest(), state]
    else:
        parts = [place, [("/".join(file.parts), file.stamp) for file in find_files(place)]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _stamp(uri: str) -> str:
    try:
        if is_url(uri):
            fs, path = filesystem(uri)
            return str(fs.ukey(path))
        state = os.stat(uri)
    except OSError:
        return "missing"
    return f"{state.st_size}:{state.st_mtime_ns}"


def _place(config: IngestConfig) -> str:
    if not config.photos:
        raise ConfigError("Expected photos in ingest.photos, got none. Name a folder or manifest.")
    place = absolute(config.photos)
    if os.path.isfile(place) and not is_manifest(place):
        raise NoPhotos(
            f"Expected a folder, a .csv or a .parquet file, got the file {place}. Name its folder."
        )
    return place


def _list(config: IngestConfig) -> Listing:
    if config.photos.startswith(PREFIX):
        return list_torchvision(config)
    place = _place(config)
    return list_manifest(place) if is_manifest(place) else list_folder(place)


def _read_all(
    listing: Listing, config: IngestConfig
) -> tuple[list[tuple[Listed, Facts]], list[Quarantined]]:
    known = recall(config.memory_url)

    def read(photo: Listed) -> Facts | UnusablePhoto:
        return _read_one(photo.uri, config.max_pixels, known)

    good, bad = [], []
    # Pillow warns of odd EXIF in usable photos. The filter is process-wide, so it is set out here,
    # around the threads, and never inside one.
    with warnings.catch_warnings(), ThreadPoolExecutor(config.n_workers or n_cores()) as pool:
        warnings.simplefilter("ignore")
        found = pool.map(read, listing.photos)
        shown = tqdm(found, "ingest", len(listing.photos), disable=None, delay=2)
        results = remembering(shown, known, config.memory_url)
        for photo, result in zip(listing.photos, results, strict=True):
            if isinstance(result, Facts):
                good.append((photo, result))
            else:
                bad.append(Quarantined(photo.uri, photo.label, result.reason, result.detail))
    return good, bad


def _read_one(uri: str, max_pixels: int, known: Mapping[str, Facts]) -> Facts | UnusablePhoto:
    try:
        data = read_bytes(uri)
        sha256 = sha256_of(data)
        facts = known.get(sha256)
        if facts and facts.width * facts.height <= max_pixels:
            return facts
        return find_facts(data, sha256, max_pixels)
    except UnusablePhoto as error:
        return error


def _frame(rows: Iterable[tuple[Listed, Facts]], slice_names: tuple[str, ...]) -> pd.DataFrame:
    columns = [*Listed._fields[:-1], *Facts._fields, *[f"slice:{name}" for name in slice_names]]
    cells = [(*photo[:-1], *facts, *photo.slices) for photo, facts in sorted(rows)]
    frame = pd.DataFrame(cells, columns=columns)
    return frame.rename(columns={"uri": "path"})


def _clashing(frame: pd.DataFrame) -> list[Quarantined]:
    """Byte-identical files with different labels: nobody knows which is right, so all of them."""
    n_labels = frame.groupby("sha256")["label"].transform("nunique")
    found = []
    for _, copies in frame[n_labels > 1].groupby("sha256"):
        for row in copies.itertuples():
            other = copies[copies["label"] != row.label].iloc[0]
            detail = f"the same bytes are labelled {other['label']!r} in {other['path']}"
            found.append(Quarantined(str(row.path), str(row.label), "clashing labels", detail))
    return found


def _digest(frame: pd.DataFrame) -> str:
    slices = sorted(name for name in frame.columns if name.startswith("slice:"))
    columns = ["sha256", "label", "split", "group", *slices]
    rows = sorted(json.dumps(row) for row in frame[columns].to_numpy().tolist())
    return hashlib.sha256("\n".join([json.dumps(columns), *rows]).encode()).hexdigest()


def _refuse_too_many(quarantine: pd.DataFrame, n_usable: int, config: IngestConfig) -> None:
    n_bad = len(quarantine)
    limit = config.max_quarantine_fraction
    if n_bad <= limit * (n_bad + n_usable):
        return
    reasons = Counter(quarantine["reason"])
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    first = "; ".join(f"{row.path} ({row.reason})" for row in quarantine.head(3).itertuples())
    raise TooManyQuarantined(
        f"{n_bad} of {n_bad + n_usable} photos in {config.photos} are unusable, and "
        f"ingest.max_quarantine_fraction is {limit:g}: {counts}. First: {first}. Mend or remove "
        f"them, or raise ingest.max_quarantine_fraction."
    )


def _refuse_vanished(quarantine: pd.DataFrame, usable: set[str]) -> None:
    vanished = sorted(set(quarantine["label"]) - usable - {""})
    if vanished:
        bad = quarantine[quarantine["label"].isin(vanished)]
        first = bad.iloc[0]
        raise ClassVanished(
            f"No usable photo is left of {', '.join(vanished)}: all {len(bad)} are in quarantine "
            f"(first: {first['path']}, {first['reason']}). Mend them, or remove the class."
        )


def _refuse_one_class(labels: set[str], source: str) -> None:
    if len(labels) < 2:
        found = ", ".join(sorted(labels)) or "none"
        raise DataError(
            f"Expected two classes or more in {source}, got {found}. A classifier needs something "
            f"to tell apart: make a folder, or a label, for each class."
        )
