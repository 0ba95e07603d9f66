"""The image table: usable photos with facts, and unusable photos with the reason."""

import hashlib
import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
from regraft.core.text import format_count
from regraft.data.ingest.arrays import PREFIX, list_torchvision, torchvision_stamp
from regraft.data.ingest.cores import n_cores
from regraft.data.ingest.decode import read_bytes
from regraft.data.ingest.facts import ImageFacts, extract_facts, sha256_of
from regraft.data.ingest.formats import NOT_READ, reads_heic
from regraft.data.ingest.inbox import (
    inbox_location,
    join_listings,
    list_inbox,
    name_inbox_in_errors,
)
from regraft.data.ingest.labels import Read, ResolvedLabels, relabelled_table, resolve_labels
from regraft.data.ingest.manifest import is_manifest, list_manifest
from regraft.data.ingest.memory import load_facts, save_new_facts
from regraft.data.ingest.row_locations import log_missing_drivers
from regraft.data.ingest.sources import (
    Listing,
    Quarantined,
    list_folder,
    similar_labels,
)
from regraft.data.ingest.walk import find_files, stamp_of

logger = logging.getLogger("regraft.ingest")


@dataclass(frozen=True)
class ImageTable:
    """The usable photos, the unusable photos with the reason, and a digest of the content.

    Attributes:
        frame: one row per usable photo, sorted by path: path (absolute, or a URL), label,
            given_split (train, validation, test or "" = not given), group ("" = none), the fields
            of ImageFacts, and a text column "slice:NAME" for each additional manifest column.
        quarantine: one row per unusable file, sorted by path: path, label, reason, detail.
        classes: the labels of frame, sorted.
        digest: sha256 of the content, independent of paths and of their order.
        n_ignored: hidden files and non-images.
        source: config.photos.
        n_waiting: photos in the inbox without a label; they are not in frame.
        relabelled: one row per photo of frame with a changed label, sorted by path: path, sha256,
            was, label; see resolve_labels() in labels.py.
        n_repeated: entries that add nothing: repeated manifest rows, and photos in the inbox that
            are already in the data set.
        notes: decisions that the user did not make, a sentence each, for the report.
    """

    frame: pd.DataFrame
    quarantine: pd.DataFrame
    classes: tuple[str, ...]
    digest: str
    n_ignored: int
    source: str
    n_waiting: int = 0
    relabelled: pd.DataFrame = field(default_factory=relabelled_table)
    n_repeated: int = 0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"ingest: {format_count(len(self.frame), 'photo')}, "
        text += f"{format_count(len(self.classes), 'class')}, "
        text += f"{len(self.quarantine)} quarantined"
        if len(self.quarantine):
            text += f" ({_reason_counts(self.quarantine)})"
        text += f", {self.n_ignored} other files ignored"
        if self.n_repeated:
            text += f", {self.n_repeated} duplicates"
        if self.n_waiting:
            text += f", {self.n_waiting} without a label"
        if len(self.relabelled):
            text += f", {len(self.relabelled)} relabelled"
        return text + "".join(f"; {remedy}" for remedy in _remedies(self.quarantine))


def ingest(config: IngestConfig) -> ImageTable:
    """Return the table of the photos at config.photos and config.inbox.

    See IngestConfig for the formats, and resolve_labels() for contents with several labels.

    Args:
        config: which photos to read, and when to stop the run.

    Raises:
        ConfigError: config.photos is empty, or a location is invalid.
        NoPhotos: there are no photos.
        ManifestError: the manifest is invalid.
        TooManyQuarantined: the quarantined share exceeds config.max_quarantine_fraction.
        ClassVanished: a class has no usable photo left.
        DataError: there are fewer than two classes.
    """
    early, late = _list(config), list_inbox(inbox_location(config), config)
    listing = join_listings(early, late)
    read, quarantined = _read_all(listing, config)
    resolved = resolve_labels(read)
    frame = _frame(resolved.photos, listing.slice_names)
    unusable = [*listing.quarantined, *quarantined, *resolved.clashing]
    entries = sorted(set(unusable))
    quarantine = pd.DataFrame(entries, columns=list(Quarantined._fields), dtype=str)
    _refuse_too_many(quarantine, len(frame) + resolved.n_waiting, config)
    # Only classes outside the inbox can vanish.
    _refuse_vanished(quarantine, _labels_in(early), set(frame["label"]))
    _refuse_one_class(set(frame["label"]), config.photos)
    return ImageTable(
        frame=frame,
        quarantine=quarantine,
        classes=tuple(sorted(set(frame["label"]))),
        digest=_digest(frame),
        n_ignored=listing.n_ignored,
        source=config.photos,
        n_waiting=resolved.n_waiting,
        relabelled=relabelled_table(resolved.relabelled),
        n_repeated=listing.n_repeated + resolved.n_repeated + len(unusable) - len(entries),
        notes=(*listing.notes, *_notes(resolved, set(frame["label"]))),
    )


def _notes(resolved: ResolvedLabels, labels: set[str]) -> Iterator[str]:
    if resolved.n_waiting:
        photos = format_count(resolved.n_waiting, "photo")
        yield f"Not used until labelled: {photos} in the inbox without a label."
    if resolved.relabelled:
        photos = format_count(len(resolved.relabelled), "photo")
        yield f"The newest label is used of {photos} whose label was changed."
    for names in similar_labels(labels):
        quoted = " and ".join(repr(name) for name in names)
        yield (
            f"{quoted} are different classes, with names that differ only in case, width or blanks."
        )


def fingerprint(config: IngestConfig) -> str:
    """Return a hash that changes if the photos may have changed, without opening a photo.

    The hash covers file names, sizes, times, manifests, and whether HEIC is read. A data set that
    names fewer than two classes is refused here, before anything is loaded that computes.

    Args:
        config: as in ingest(). The locations are part of the hash, because a table contains paths.

    Returns:
        64 hex digits.

    Raises:
        ConfigError, NoPhotos, ManifestError, ClassVanished, DataError: as in ingest().
    """
    inbox = inbox_location(config)
    if config.photos.startswith(PREFIX):
        parts: list[object] = [reads_heic(), torchvision_stamp(config)]
        late = list_inbox(inbox, config)
    else:
        early, late = _list(config), list_inbox(inbox, config)
        _refuse_one_class(_labels_in(join_listings(early, late)) - {""}, config.photos)
        parts = [reads_heic(), _state_of(_place(config), early)]
    if inbox:
        with name_inbox_in_errors(inbox):
            parts.append(_state_of(inbox, late))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _state_of(place: str, listing: Listing) -> list[object]:
    """Return values that change with the files of a folder or a manifest, which was listed."""
    if not is_manifest(place):
        return [place, [("/".join(file.parts), file.stamp) for file in find_files(place)]]
    uris = sorted({photo.uri for photo in listing.photos})
    digest = hashlib.sha256(read_bytes(place)).hexdigest()
    return [place, digest, [(uri, stamp_of(uri)) for uri in uris]]


def _place(config: IngestConfig) -> str:
    if not config.photos:
        raise ConfigError("Expected photos in ingest.photos, got none. Give a folder or manifest.")
    place = absolute(config.photos)
    if os.path.isfile(place) and not is_manifest(place):
        raise NoPhotos(
            f"Expected a folder, a .csv or a .parquet file, got the file {place}. Give its folder."
        )
    return place


def _list(config: IngestConfig) -> Listing:
    if config.photos.startswith(PREFIX):
        return list_torchvision(config)
    place = _place(config)
    if is_manifest(place):
        return list_manifest(place, config)
    return list_folder(place, label_from=config.label_from)


def _read_all(listing: Listing, config: IngestConfig) -> tuple[list[Read], list[Quarantined]]:
    known = load_facts(config.memory_url)
    uris = list(dict.fromkeys(photo.uri for photo in listing.photos))

    def read(uri: str) -> ImageFacts | UnusablePhoto:
        return read_facts(uri, config.max_pixels, known)

    good, bad = [], []
    # Pillow warns about unusual EXIF data in usable photos. The filter is process-wide, so it is
    # set around the threads, and not inside a thread.
    with warnings.catch_warnings(), ThreadPoolExecutor(config.n_workers or n_cores()) as pool:
        warnings.simplefilter("ignore")
        outcomes = pool.map(read, uris)
        shown = tqdm(outcomes, "ingest", len(uris), disable=None, delay=2)
        results = dict(zip(uris, save_new_facts(shown, known, config.memory_url), strict=True))
    log_missing_drivers(result for result in results.values() if isinstance(result, UnusablePhoto))
    for photo in listing.photos:
        result = results[photo.uri]
        if isinstance(result, ImageFacts):
            good.append(Read(photo, result))
        else:
            bad.append(Quarantined(photo.uri, photo.label, result.reason, result.detail))
    return good, bad


def read_facts(
    uri: str, max_pixels: int, known: Mapping[str, ImageFacts]
) -> ImageFacts | UnusablePhoto:
    """Return the facts about a photo, decoded if not in known; or the error if it is unusable."""
    try:
        data = read_bytes(uri)
        sha256 = sha256_of(data)
        facts = known.get(sha256)
        if facts and facts.width * facts.height <= max_pixels:
            return facts
        return extract_facts(data, sha256, max_pixels)
    except UnusablePhoto as error:
        return error


def _frame(rows: Iterable[Read], slice_names: tuple[str, ...]) -> pd.DataFrame:
    given = ["path", "label", "given_split", "group"]
    columns = [*given, *ImageFacts._fields, *[f"slice:{name}" for name in slice_names]]
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
    columns = ["sha256", "label", "given_split", "group", *slices]
    rows = sorted(json.dumps(row) for row in frame[columns].to_numpy().tolist())
    return hashlib.sha256("\n".join([json.dumps(columns), *rows]).encode()).hexdigest()


def _refuse_too_many(quarantine: pd.DataFrame, n_usable: int, config: IngestConfig) -> None:
    n_bad = len(quarantine)
    limit = config.max_quarantine_fraction
    if n_bad <= limit * (n_bad + n_usable):
        return
    details = "".join(f" {remedy}." for remedy in _remedies(quarantine))
    first = "; ".join(f"{row.path} ({row.reason})" for row in quarantine.head(3).itertuples())
    if not details:
        example = quarantine[quarantine["reason"] == quarantine["reason"].mode()[0]].iloc[0]
        details = f" {example['path']}: {example['detail']}."
    raise TooManyQuarantined(
        f"Expected a share of unusable photos of at most ingest.max_quarantine_fraction={limit:g}, "
        f"got {n_bad} of {format_count(n_bad + n_usable, 'photo')} in {config.photos}: "
        f"{_reason_counts(quarantine)}. First: {first}.{details} Repair or remove them, or raise "
        f"ingest.max_quarantine_fraction."
    )


def _reason_counts(quarantine: pd.DataFrame) -> str:
    reasons = Counter(quarantine["reason"])
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def _remedies(quarantine: pd.DataFrame) -> list[str]:
    """Return what to do with the photos of each format that is not read."""
    unread = quarantine[quarantine["reason"].str.endswith(NOT_READ)]
    return sorted({f"{row.reason}: {row.detail}" for row in unread.itertuples()})


def _refuse_vanished(quarantine: pd.DataFrame, expected: set[str], usable: set[str]) -> None:
    vanished = sorted((set(quarantine["label"]) & expected) - usable - {""})
    if vanished:
        bad = quarantine[quarantine["label"].isin(vanished)]
        first = bad.iloc[0]
        raise ClassVanished(
            f"Expected usable photos of each class, got none of {', '.join(vanished)}: all "
            f"{len(bad)} are quarantined (first: {first['path']}, {first['reason']})."
            f"{''.join(f' {remedy}.' for remedy in _remedies(bad))} Repair them, or remove the "
            f"class."
        )


def _refuse_one_class(labels: set[str], source: str) -> None:
    if len(labels) < 2:
        names = ", ".join(sorted(labels)) or "none"
        raise DataError(
            f"Expected two or more classes in {source}, got {names}. Make a folder, or a label, "
            f"for each class."
        )
