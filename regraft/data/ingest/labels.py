"""Which label counts where the same content was labelled more than once, early and late."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from regraft.data.ingest.facts import Facts
from regraft.data.ingest.sources import Listed, Quarantined


class Read(NamedTuple):
    """One entry of a listing and what its file was found to be."""

    listed: Listed
    facts: Facts


class Relabelled(NamedTuple):
    """One photo with another label than it had; the fields are columns of a table."""

    path: str
    sha256: str
    was: str
    label: str


def relabelled_table(rows: Iterable[Relabelled] = ()) -> pd.DataFrame:
    """A row each, with the columns path, sha256, was and label."""
    return pd.DataFrame(list(rows), columns=list(Relabelled._fields), dtype=str)


@dataclass(frozen=True)
class Settled:
    """The photos with one label a content.

    Attributes:
        photos: sorted; no path twice.
        relabelled: sorted; those of photos that an older entry labels otherwise, the newest such.
        clashing: sorted; those that nobody knows the label of.
        n_waiting: files without a label.
        n_repeated: entries that say nothing of their own any more.
    """

    photos: tuple[Read, ...]
    relabelled: tuple[Relabelled, ...]
    clashing: tuple[Quarantined, ...]
    n_waiting: int
    n_repeated: int


class _Said(NamedTuple):
    """What the entries of one content come to."""

    photos: tuple[Read, ...] = ()
    relabelled: tuple[Relabelled, ...] = ()
    clashing: tuple[Quarantined, ...] = ()
    n_waiting: int = 0


def settle(entries: Iterable[Read]) -> Settled:
    """One label for each content.

    Of the entries with the same bytes, one in the inbox counts more than one outside, then one
    with a later labelled_at more than an earlier one or one without. If those that count most name
    several labels, nobody knows which is right: all go into quarantine. A content that has a label
    anywhere waits nowhere. A photo that lies in the inbox and outside is kept where it lies
    outside. Split, group and slices are settled cell by cell: the one that counts more wins, unless
    it is empty.
    """
    by_content: dict[str, list[Read]] = {}
    n_entries = 0
    for entry in entries:
        by_content.setdefault(entry.facts.sha256, []).append(entry)
        n_entries += 1
    said = [_settle_one(same) for same in by_content.values()]
    photos = sorted(photo for one in said for photo in one.photos)
    clashing = sorted(entry for one in said for entry in one.clashing)
    n_waiting = sum(one.n_waiting for one in said)
    return Settled(
        photos=tuple(photos),
        relabelled=tuple(sorted(row for one in said for row in one.relabelled)),
        clashing=tuple(clashing),
        n_waiting=n_waiting,
        n_repeated=n_entries - len(photos) - len(clashing) - n_waiting,
    )


def _settle_one(same: Sequence[Read]) -> _Said:
    labelled = sorted((entry for entry in same if entry.listed.label), key=_order)
    if not labelled:
        return _Said(n_waiting=len({entry.listed.uri for entry in same}))
    heaviest = _weight(labelled[-1])
    labels = {entry.listed.label for entry in labelled if _weight(entry) == heaviest}
    if len(labels) > 1:
        return _Said(clashing=_clashing(labelled))
    (label,) = labels
    early = [entry for entry in labelled if not entry.listed.is_late]
    photos, relabelled = [], []
    for uri in sorted({entry.listed.uri for entry in early or labelled}):
        mine = [entry for entry in labelled if entry.listed.uri == uri]
        late = [entry for entry in labelled if entry.listed.is_late and early]
        photos.append(_merged(uri, label, [*mine, *late]))
        relabelled += _relabelled(label, mine)
    return _Said(tuple(photos), tuple(relabelled))


def _weight(entry: Read) -> tuple[bool, str]:
    return entry.listed.is_late, entry.listed.labelled_at


def _order(entry: Read) -> tuple[tuple[bool, str], Read]:
    """By weight, and among equals the same whatever the order of the listing was."""
    return _weight(entry), entry


def _merged(uri: str, label: str, entries: Sequence[Read]) -> Read:
    """The photo with the last cell of each kind that is not empty."""
    listed = [entry.listed for entry in sorted(entries, key=_order)]
    slices = zip(*(one.slices for one in listed), strict=True)
    merged = listed[-1]._replace(
        uri=uri,
        label=label,
        split=_last(one.split for one in listed),
        group=_last(one.group for one in listed),
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
    found = set()
    for one in listed:
        other = next(another for another in listed if another.label != one.label)
        detail = f"the same bytes are labelled {other.label!r} in {other.uri}"
        found.add(Quarantined(one.uri, one.label, "clashing labels", detail))
    return tuple(found)
