"""The valid label of each content, if the same content is labelled more than once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from regraft.data.ingest.facts import ImageFacts
from regraft.data.ingest.sources import Listed, Quarantined


class Read(NamedTuple):
    """An entry of a listing with the facts of its file."""

    listed: Listed
    facts: ImageFacts


class Relabelled(NamedTuple):
    """A photo whose label has changed; the fields are the columns of a table."""

    path: str
    sha256: str
    was: str
    label: str


def relabelled_table(rows: Iterable[Relabelled] = ()) -> pd.DataFrame:
    """Return a table with the columns path, sha256, was and label."""
    return pd.DataFrame(list(rows), columns=list(Relabelled._fields), dtype=str)


@dataclass(frozen=True)
class ResolvedLabels:
    """The photos, with a single label for each content.

    Attributes:
        photos: sorted; no path twice.
        relabelled: sorted; photos with another label in an older entry (the newest such entry).
        clashing: sorted; photos whose label is ambiguous.
        n_waiting: files without a label.
        n_repeated: entries that add no information.
    """

    photos: tuple[Read, ...]
    relabelled: tuple[Relabelled, ...]
    clashing: tuple[Quarantined, ...]
    n_waiting: int
    n_repeated: int


class _Resolution(NamedTuple):
    """The result for the entries of a single content."""

    photos: tuple[Read, ...] = ()
    relabelled: tuple[Relabelled, ...] = ()
    clashing: tuple[Quarantined, ...] = ()
    n_waiting: int = 0


def resolve_labels(entries: Iterable[Read]) -> ResolvedLabels:
    """Return a single label for each content.

    Among the entries with the same bytes, an entry in the inbox takes priority over an entry
    outside; then the later labelled_at takes priority, and no labelled_at is the lowest. If the
    entries with the highest priority have several labels, the label is ambiguous, and all entries
    go into quarantine. A content with a label in any entry is not counted as waiting. A photo that
    is in the inbox and outside is listed with its path outside. Split, group and slices are
    resolved cell by cell: the non-empty cell with the highest priority is used.
    """
    by_content: dict[str, list[Read]] = {}
    n_entries = 0
    for entry in entries:
        by_content.setdefault(entry.facts.sha256, []).append(entry)
        n_entries += 1
    resolved = [_resolve_content(same) for same in by_content.values()]
    photos = sorted(photo for content in resolved for photo in content.photos)
    clashing = sorted(entry for content in resolved for entry in content.clashing)
    n_waiting = sum(content.n_waiting for content in resolved)
    return ResolvedLabels(
        photos=tuple(photos),
        relabelled=tuple(sorted(row for content in resolved for row in content.relabelled)),
        clashing=tuple(clashing),
        n_waiting=n_waiting,
        n_repeated=n_entries - len(photos) - len(clashing) - n_waiting,
    )


def _resolve_content(same: Sequence[Read]) -> _Resolution:
    labelled = sorted((entry for entry in same if entry.listed.label), key=_order)
    if not labelled:
        return _Resolution(n_waiting=len({entry.listed.uri for entry in same}))
    highest = _priority(labelled[-1])
    labels = {entry.listed.label for entry in labelled if _priority(entry) == highest}
    if len(labels) > 1:
        return _Resolution(clashing=_clashing(labelled))
    (label,) = labels
    early = [entry for entry in labelled if not entry.listed.is_late]
    photos, relabelled = [], []
    for uri in sorted({entry.listed.uri for entry in early or labelled}):
        mine = [entry for entry in labelled if entry.listed.uri == uri]
        late = [entry for entry in labelled if entry.listed.is_late and early]
        photos.append(_merged(uri, label, [*mine, *late]))
        relabelled += _relabelled(label, mine)
    return _Resolution(tuple(photos), tuple(relabelled))


def _priority(entry: Read) -> tuple[bool, str]:
    return entry.listed.is_late, entry.listed.labelled_at


def _order(entry: Read) -> tuple[tuple[bool, str], Read]:
    """Return the sort key: by priority, then by content, independent of the listing's order."""
    return _priority(entry), entry


def _merged(uri: str, label: str, entries: Sequence[Read]) -> Read:
    """Return the photo with the last non-empty cell of each column."""
    listed = [entry.listed for entry in sorted(entries, key=_order)]
    slices = zip(*(photo.slices for photo in listed), strict=True)
    merged = listed[-1]._replace(
        uri=uri,
        label=label,
        split=_last(photo.split for photo in listed),
        group=_last(photo.group for photo in listed),
        slices=tuple(_last(cells) for cells in slices),
    )
    return Read(merged, entries[0].facts)


def _last(cells: Iterable[str]) -> str:
    return ([cell for cell in cells if cell] or [""])[-1]


def _relabelled(label: str, entries: Sequence[Read]) -> list[Relabelled]:
    others = [entry for entry in entries if entry.listed.label != label]
    return [
        Relabelled(entry.listed.uri, entry.facts.sha256, entry.listed.label, label)
        for entry in sorted(others, key=_order)[-1:]
    ]


def _clashing(entries: Sequence[Read]) -> tuple[Quarantined, ...]:
    listed = sorted({entry.listed for entry in entries})
    quarantined = set()
    for photo in listed:
        other = next(another for another in listed if another.label != photo.label)
        detail = f"the same bytes are labelled {other.label!r} in {other.uri}"
        quarantined.add(Quarantined(photo.uri, photo.label, "clashing labels", detail))
    return tuple(quarantined)
