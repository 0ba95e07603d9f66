"""The inbox: a second location, where photos and labels arrive later."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from regraft.core.config import IngestConfig
from regraft.core.errors import ConfigError, NoPhotos
from regraft.core.files import absolute, is_url
from regraft.data.ingest.arrays import PREFIX
from regraft.data.ingest.manifest import is_manifest, list_manifest
from regraft.data.ingest.sources import Listed, Listing, list_folder


def inbox_location(config: IngestConfig) -> str:
    """Return the location of the inbox in the format of absolute(); "" = no inbox.

    Raises:
        ConfigError: the inbox is a torchvision data set, or ingest.inbox and ingest.photos contain
            each other.
        NoPhotos: the inbox is a file, but not a manifest.
    """
    if not config.inbox:
        return ""
    if config.inbox.startswith(PREFIX):
        raise ConfigError(
            f"Expected a folder, a .csv or a .parquet file in ingest.inbox, got {config.inbox}, "
            f"to which no photos are added. Set ingest.photos to it instead."
        )
    place = absolute(config.inbox)
    if os.path.isfile(place) and not is_manifest(place):
        raise NoPhotos(
            f"Expected a folder, a .csv or a .parquet file in ingest.inbox, got the file {place}. "
            f"Set ingest.inbox to its folder."
        )
    _refuse_nested(place, config)
    return place


def list_inbox(place: str, config: IngestConfig) -> Listing:
    """Return the listing of the inbox, in which a photo may lack its label.

    Args:
        place: result of inbox_location(); "" = an empty listing.
        config: schemes, roots and label_from are used.

    Raises:
        NoPhotos: the location does not exist.
        ManifestError: as in list_manifest().
    """
    if not place:
        return Listing(())
    with name_inbox_in_errors(place):
        if is_manifest(place):
            listing = list_manifest(place, config, may_wait=True)
        else:
            listing = list_folder(place, may_wait=True, label_from=config.label_from)
    late = tuple(photo._replace(is_late=True) for photo in listing.photos)
    return replace(listing, photos=late)


@contextmanager
def name_inbox_in_errors(place: str) -> Iterator[None]:
    """Add the setting ingest.inbox to the message of NoPhotos errors within the block.

    Args:
        place: result of inbox_location().

    Raises:
        NoPhotos: the location does not exist.
    """
    try:
        yield
    except NoPhotos as error:
        hint = ""
        if is_url(place) and not is_manifest(place):
            hint = " A bucket has no empty folders: add a file named .keep to the folder."
        raise NoPhotos(f"ingest.inbox: {error}{hint}") from None


def join_listings(photos: Listing, inbox: Listing) -> Listing:
    """Return both listings as a single listing with all slice columns; missing cells are empty."""
    names = tuple(dict.fromkeys((*photos.slice_names, *inbox.slice_names)))
    return Listing(
        photos=tuple(
            _with_slices(photo, listing.slice_names, names)
            for listing in (photos, inbox)
            for photo in listing.photos
        ),
        quarantined=(*photos.quarantined, *inbox.quarantined),
        n_ignored=photos.n_ignored + inbox.n_ignored,
        n_repeated=photos.n_repeated + inbox.n_repeated,
        slice_names=names,
        notes=(*photos.notes, *(f"ingest.inbox: {note}" for note in inbox.notes)),
    )


def _with_slices(photo: Listed, given: tuple[str, ...], wanted: tuple[str, ...]) -> Listed:
    if given == wanted:
        return photo
    cells = dict(zip(given, photo.slices, strict=True))
    return photo._replace(slices=tuple(cells.get(name, "") for name in wanted))


def _refuse_nested(inbox: str, config: IngestConfig) -> None:
    """Raise ConfigError for nested folders, because the inner folder would be a class."""
    if config.photos.startswith(PREFIX):
        return
    photos = absolute(config.photos)
    inbox_folder, photos_folder = _folder(inbox), _folder(photos)
    both_folders = not (is_manifest(photos) or is_manifest(inbox))
    is_nested = both_folders and (
        inbox_folder.startswith(photos_folder) or photos_folder.startswith(inbox_folder)
    )
    if inbox_folder == photos_folder or is_nested:
        raise ConfigError(
            f"Expected two separate folders, got ingest.inbox={inbox} and ingest.photos={photos}: "
            f"the inner folder would be a class of the outer folder. Move the inner folder."
        )


def _folder(place: str) -> str:
    return (place if is_url(place) else os.path.realpath(place)).rstrip("/") + "/"
