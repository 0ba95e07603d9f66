"""The inbox: a second place, where photos and their labels arrive later."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from regraft.core.config import IngestConfig
from regraft.core.errors import ConfigError, NoPhotos
from regraft.core.files import absolute, is_url
from regraft.data.ingest.arrays import PREFIX
from regraft.data.ingest.manifest import is_manifest, list_manifest
from regraft.data.ingest.sources import Listed, Listing, list_folder


def inbox_of(config: IngestConfig) -> str:
    """The inbox as `absolute` gives it; "" = none.

    Raises:
        ConfigError: it is a torchvision data set, or one of the folders ingest.inbox and
            ingest.photos lies in the other.
        NoPhotos: it is a file, and no manifest.
    """
    if not config.inbox:
        return ""
    if config.inbox.startswith(PREFIX):
        raise ConfigError(
            f"Expected a folder, a .csv or a .parquet file in ingest.inbox, got {config.inbox}, "
            f"which does not grow. Name it in ingest.photos."
        )
    place = absolute(config.inbox)
    if os.path.isfile(place) and not is_manifest(place):
        raise NoPhotos(
            f"Expected a folder, a .csv or a .parquet file in ingest.inbox, got the file {place}. "
            f"Name its folder."
        )
    _refuse_nested(place, config)
    return place


def list_inbox(place: str) -> Listing:
    """What lies in the inbox: as of a folder or a manifest, but a photo may lack its label.

    Args:
        place: as inbox_of() gives it; "" = nothing.

    Raises:
        NoPhotos: there is no such place. ManifestError: as list_manifest().
    """
    if not place:
        return Listing(())
    with naming_the_inbox(place):
        found = (list_manifest if is_manifest(place) else list_folder)(place, may_wait=True)
    late = tuple(photo._replace(is_late=True) for photo in found.photos)
    return Listing(late, found.quarantined, found.n_ignored, found.slice_names)


@contextmanager
def naming_the_inbox(place: str) -> Iterator[None]:
    """What is not there is said to be the inbox.

    Args:
        place: as inbox_of() gives it.

    Raises:
        NoPhotos: there is no such place.
    """
    try:
        yield
    except NoPhotos as error:
        is_bucket = is_url(place) and not is_manifest(place)
        hint = " A bucket has no empty folders: put a file named .keep there." * is_bucket
        raise NoPhotos(f"ingest.inbox: {error}{hint}") from None


def joined(photos: Listing, inbox: Listing) -> Listing:
    """Both in one listing, with the slice columns of both; a cell that one lacks is empty."""
    names = tuple(dict.fromkeys((*photos.slice_names, *inbox.slice_names)))
    return Listing(
        photos=tuple(
            _with_slices(photo, listing.slice_names, names)
            for listing in (photos, inbox)
            for photo in listing.photos
        ),
        quarantined=(*photos.quarantined, *inbox.quarantined),
        n_ignored=photos.n_ignored + inbox.n_ignored,
        slice_names=names,
    )


def _with_slices(photo: Listed, given: tuple[str, ...], wanted: tuple[str, ...]) -> Listed:
    if given == wanted:
        return photo
    cells = dict(zip(given, photo.slices, strict=True))
    return photo._replace(slices=tuple(cells.get(name, "") for name in wanted))


def _refuse_nested(inbox: str, config: IngestConfig) -> None:
    """A folder in the other would be a class there."""
    if config.photos.startswith(PREFIX):
        return
    photos = absolute(config.photos)
    here, there = _folder(inbox), _folder(photos)
    both_folders = not (is_manifest(photos) or is_manifest(inbox))
    is_nested = both_folders and (here.startswith(there) or there.startswith(here))
    if here == there or is_nested:
        raise ConfigError(
            f"Expected two places, neither in the other, got ingest.inbox={inbox} and "
            f"ingest.photos={photos}: what lies in one would be a class of the other. Move one."
        )


def _folder(place: str) -> str:
    return (place if is_url(place) else os.path.realpath(place)).rstrip("/") + "/"
