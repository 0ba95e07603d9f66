"""The status page: an HTML file that shows the state of all models, without network or script.

refresh() writes the page from local files; rebuild() reads the registry first, and stores a
snapshot of it for the next refresh().
"""

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core import pages
from regraft.core.errors import StateError
from regraft.core.files import write_atomic
from regraft.core.state import State, places
from regraft.operations.journal import Journal, read_journal
from regraft.operations.status.figures import (
    draw_accuracy,
    draw_drift,
    draw_photos,
    draw_retrainings,
)
from regraft.operations.status.needs import Need, Past
from regraft.operations.status.registry_snapshot import (
    RegistrySnapshot,
    load_snapshot,
    read_registry,
    save_snapshot,
)
from regraft.operations.status.schedule import Service, service_of
from regraft.operations.status.timeline import timeline
from regraft.operations.status.view import View, view_of

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE, SNAPSHOT = "status.html", "status.json"


@dataclass(frozen=True)
class Built:
    """The page and its content. path: None if the state folder is write-protected."""

    path: Path | None
    views: tuple[View, ...]
    service: Service


def refresh(state: State, now: datetime) -> Built:
    """Write the page from the journal, the schedule and the stored registry snapshot.

    Neither MLflow nor torch is imported.

    Args:
        now: UTC.
    """
    records = read_journal(places(state).journal)
    return _build(state, None, load_snapshot(state.reports / SNAPSHOT), records, now)


def rebuild(state: State, now: datetime, out: Path | None = None) -> Built:
    """Read the registry, store its snapshot and write the page; see refresh().

    A registry that does not exist is not created. If the registry is damaged, the page shows the
    stored snapshot and the damage. In a write-protected state folder nothing is written but `out`.

    Args:
        now: UTC.
        out: path of the page; None is <state>/reports/status.html.
    """
    located = places(state)
    records = read_journal(located.journal)
    snapshot, damage = RegistrySnapshot(), ""
    if located.has_registry:
        try:
            snapshot = read_registry(located.tracking, records.attempts, now)
        except StateError as error:
            snapshot, damage = load_snapshot(state.reports / SNAPSHOT), str(error)
    if state.is_writable and not damage:
        save_snapshot(state.reports / SNAPSHOT, snapshot)
    broken = (damage, *records.broken) if damage else records.broken
    return _build(state, out, snapshot, replace(records, broken=broken), now)


def _render(views: tuple[View, ...], service: Service, folder: Path, now: datetime) -> str:
    """Return the page as HTML with its styles and figures inside.

    Args:
        folder: of the page; links to reports are relative to it.
        now: UTC.
    """
    context = {
        "views": views,
        "service": service,
        "now": now,
        "n_needs": len(service.needs) + sum(len(view.needs) for view in views),
    }
    return _environment(folder).get_template("status.html").render(context)


def _pasts_of(snapshot: RegistrySnapshot, records: Journal) -> list[Past]:
    """Return the records of every model, sorted by name."""
    all_attempts, all_watches = records.attempts, records.watches
    models = {model.name: model for model in snapshot.models}
    names = {*models, *(each.name for each in all_attempts), *(each.name for each in all_watches)}
    pasts = []
    for name in sorted(names):
        attempts = tuple(each for each in all_attempts if each.name == name)
        watches = tuple(each for each in all_watches if each.name == name)
        model = models.get(name)
        events = timeline(model.lines if model else (), attempts, watches)
        pasts.append(Past(name, model, snapshot.read, attempts, watches, events))
    return pasts


def _build(
    state: State, out: Path | None, snapshot: RegistrySnapshot, records: Journal, now: datetime
) -> Built:
    """Return the page's content, after the page is written where that is possible."""
    # matplotlib would otherwise write its font cache to the user's home folder.
    os.environ.setdefault("MPLCONFIGDIR", str(state.root / "matplotlib"))
    service = service_of(state, now)
    broken = tuple(Need("bad", sentence) for sentence in records.broken)
    service = replace(service, needs=(*broken, *service.needs))
    pasts = _pasts_of(snapshot, records)
    views = tuple(view_of(past, number, now) for number, past in enumerate(pasts, 1))
    if out is None and not state.is_writable:
        return Built(None, views, service)
    path = (out or state.reports / PAGE).absolute()
    write_atomic(str(path), _render(views, service, path.parent, now).encode())
    return Built(path, views, service)


def _environment(folder: Path) -> "Environment":
    filters = {
        "accuracy_svg": lambda view: draw_accuracy(view.accuracy, view.span, view.anchor),
        "day": lambda moment: f"{_utc(moment):%Y-%m-%d}",
        "drift_svg": lambda view: draw_drift(view.drift, view.span, view.anchor),
        "link": lambda place: link(place, folder),
        "percent": lambda share: f"{100 * share:.1f} %",
        "photos_svg": lambda view: draw_photos(view.photos, view.span, view.anchor),
        "retrainings_svg": lambda view: draw_retrainings(view.runs, view.span, view.anchor),
        "stamp": lambda moment: f"{_utc(moment):%Y-%m-%d %H:%M}",
        "version": lambda number: f"v{number}" if number else "none",
    }
    return pages.environment(("regraft.operations.status",), filters)


def link(place: str, folder: Path) -> str:
    """Return a link to a file from the page's folder; "" if there is none.

    >>> link("/s/reports/drift 1.html", Path("/s/reports")), link("javascript:x", Path("/s"))
    ('drift%201.html', '')
    """
    from urllib.parse import quote

    if place.startswith(("http://", "https://")):
        return place
    return quote(os.path.relpath(place, folder)) if os.path.isabs(place) else ""


def _utc(moment: datetime | str) -> datetime:
    time = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return time.astimezone(UTC)
