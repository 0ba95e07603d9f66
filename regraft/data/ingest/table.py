"""The image table: every new photo decoded once, what is unusable set aside with its reason."""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pandas as pd
from tqdm import tqdm

from regraft.core.config import IngestConfig
from regraft.core.errors import (
    ClassVanished,
    ConfigError,
    DataError,
    NoPhotos,
    TooManyQuarantined,
    UnusablePhoto,
)
from regraft.core.files import absolute
from regraft.data.ingest.arrays import PREFIX, list_torchvision, torchvision_stamp
from regraft.data.ingest.cores import n_cores
from regraft.data.ingest.decode import read_bytes
from regraft.data.ingest.facts import Facts, find_facts, sha256_of
from regraft.data.ingest.inbox import inbox_of, joined, list_inbox, naming_the_inbox
from regraft.data.ingest.labels import Read, relabelled_table, settle
from regraft.data.ingest.manifest import is_manifest, list_manifest
from regraft.data.ingest.memory import recall, remembering
from regraft.data.ingest.sources import Listing, Quarantined, list_folder
from regraft.data.ingest.walk import find_files, stamp_of


@dataclass(frozen=True)
class ImageTable:
    """The usable photos, the others with their reason, and a digest of the content.

    Attributes:
        frame: one row a usable photo, sorted by path: path (absolute, or a URL), label, split
            (train, validation, test or "" = not given), group ("" = none), sha256 (of the file),
            phash (64-bit perceptual hash, 16 hex digits), thumbnail (256 bytes: 16 x 16 grey, row
            by row), width, height (pixels, upright), n_bytes, brightness and sharpness (see Facts),
            and a string column "slice:NAME" for each further manifest column.
        quarantine: one row an unusable file, sorted by path: path, label, reason, detail.
        classes: the labels of frame, sorted.
        digest: sha256 over the content, blind to paths and to their order.
        n_ignored: hidden files, non-images, repeated manifest rows, and photos in the inbox that
            are known already.
        source: what the user named.
        n_waiting: photos in the inbox that have no label yet; they are nowhere in frame.
        relabelled: one row a photo of frame that was labelled otherwise before, sorted by path:
            path, sha256, was, label; see settle() in labels.py.
    """

    frame: pd.DataFrame
    quarantine: pd.DataFrame
    classes: tuple[str, ...]
    digest: str
    n_ignored: int
    source: str
    n_waiting: int = 0
    relabelled: pd.DataFrame = field(default_factory=relabelled_table)

    def __str__(self) -> str:
        late = f", {self.n_waiting} wait for a label" * (self.n_waiting > 0)
        late += f", {len(self.relabelled)} relabelled" * (len(self.relabelled) > 0)
        return (
            f"ingest: {len(self.frame)} photos, {len(self.classes)} classes, "
            f"{len(self.quarantine)} quarantined, {self.n_ignored} other files ignored{late}"
        )


def ingest(config: IngestConfig) -> ImageTable:
    """The table of the photos at config.photos and config.inbox; see the forms in IngestConfig.

    Where the same content is labelled more than once, settle() in labels.py says what counts.

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
    early, late = _list(config), list_inbox(inbox_of(config))
    listing = joined(early, late)
    read, quarantined = _read_all(listing, config)
    settled = settle(read)
    frame = _frame(settled.photos, listing.slice_names)
    entries = sorted({*listing.quarantined, *quarantined, *settled.clashing})
    quarantine = pd.DataFrame(entries, columns=list(Quarantined._fields), dtype=str)
    _refuse_too_many(quarantine, len(frame) + settled.n_waiting, config)
    # A class that only the inbox has was never there to vanish.
    _refuse_vanished(quarantine, _labels_in(early), set(frame["label"]))
    _refuse_one_class(set(frame["label"]), config.photos)
    return ImageTable(
        frame=frame,
        quarantine=quarantine,
        classes=tuple(sorted(set(frame["label"]))),
        digest=_digest(frame),
        n_ignored=listing.n_ignored + settled.n_repeated,
        source=config.photos,
        n_waiting=settled.n_waiting,
        relabelled=relabelled_table(settled.relabelled),
    )


def fingerprint(config: IngestConfig) -> str:
    """A hash that changes when the photos may have: listing, sizes, times, manifest; none opened.

    Args:
        config: what would be read. Its places are part of the hash, because a table holds paths.

    Returns:
        64 hex digits.

    Raises:
        ConfigError, NoPhotos, ManifestError: as in ingest.
    """
    is_torchvision = config.photos.startswith(PREFIX)
    parts: list[object] = [
        torchvision_stamp(config) if is_torchvision else _state_of(_place(config))
    ]
    if inbox := inbox_of(config):
        with naming_the_inbox(inbox):
            parts.append(_state_of(inbox, may_wait=True))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _state_of(place: str, *, may_wait: bool = False) -> list[object]:
    """What changes when the files of a folder or a manifest do."""
    if not is_manifest(place):
        return [place, [("/".join(file.parts), file.stamp) for file in find_files(place)]]
    uris = sorted({photo.uri for photo in list_manifest(place, may_wait=may_wait).photos})
    digest = hashlib.sha256(read_bytes(place)).hexdigest()
    return [place, digest, [(uri, stamp_of(uri)) for uri in uris]]


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


def _read_all(listing: Listing, config: IngestConfig) -> tuple[list[Read], list[Quarantined]]:
    known = recall(config.memory_url)
    uris = list(dict.fromkeys(photo.uri for photo in listing.photos))

    def read(uri: str) -> Facts | UnusablePhoto:
        return read_one(uri, config.max_pixels, known)

    good, bad = [], []
    # Pillow warns of odd EXIF in usable photos. The filter is process-wide, so it is set out here,
    # around the threads, and never inside one.
    with warnings.catch_warnings(), ThreadPoolExecutor(config.n_workers or n_cores()) as pool:
        warnings.simplefilter("ignore")
        found = pool.map(read, uris)
        shown = tqdm(found, "ingest", len(uris), disable=None, delay=2)
        results = dict(zip(uris, remembering(shown, known, config.memory_url), strict=True))
    for photo in listing.photos:
        result = results[photo.uri]
        if isinstance(result, Facts):
            good.append(Read(photo, result))
        else:
            bad.append(Quarantined(photo.uri, photo.label, result.reason, result.detail))
    return good, bad


def read_one(uri: str, max_pixels: int, known: Mapping[str, Facts]) -> Facts | UnusablePhoto:
    """What a photo is found to be, decoded only if it is not known; or why it cannot be used."""
    try:
        data = read_bytes(uri)
        sha256 = sha256_of(data)
        facts = known.get(sha256)
        if facts and facts.width * facts.height <= max_pixels:
            return facts
        return find_facts(data, sha256, max_pixels)
    except UnusablePhoto as error:
        return error


def _frame(rows: Iterable[Read], slice_names: tuple[str, ...]) -> pd.DataFrame:
    given = ["path", "label", "split", "group"]
    columns = [*given, *Facts._fields, *[f"slice:{name}" for name in slice_names]]
    cells = [
        (photo.uri, photo.label, photo.split, photo.group, *facts, *photo.slices)
        for photo, facts in rows
    ]
    return pd.DataFrame(cells, columns=columns)


def _labels_in(listing: Listing) -> set[str]:
    listed = {photo.label for photo in listing.photos}
    return listed | {entry.label for entry in listing.quarantined}


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


def _refuse_vanished(quarantine: pd.DataFrame, expected: set[str], usable: set[str]) -> None:
    vanished = sorted((set(quarantine["label"]) & expected) - usable - {""})
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
