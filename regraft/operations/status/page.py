"""The status page: one HTML file that says how things stand, without network or script.

refresh() writes it anew from what is at hand, in a fraction of a second; rebuild() asks the
registry first, and keeps what it said beside the page for the next refresh.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core import pages
from regraft.core.config import TrackingConfig
from regraft.core.files import write_whole
from regraft.core.state import State
from regraft.operations import journal
from regraft.operations.status.memory import Memory, keep, look, recall
from regraft.operations.status.needs import Past
from regraft.operations.status.schedule import Service, service_of
from regraft.operations.status.timeline import timeline
from regraft.operations.status.view import View, view_of

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE, MEMORY = "status.html", "status.json"


@dataclass(frozen=True)
class Built:
    """The page that was written, and what is in it."""

    path: Path
    views: tuple[View, ...]
    service: Service


def refresh(state: State, now: datetime, journal_url: str = "") -> Built:
    """The page, from the journal, the schedule and what the registry said the last time.

    Neither MLflow nor torch is imported.

    Args:
        now: UTC.
        journal_url: "" is the state folder's own.

    Raises:
        JournalBroken: a file there is not what it should be.
    """
    memory = recall(state.reports / MEMORY)
    url = journal_url or str(state.journal)
    return _write(state.reports / PAGE, pasts_of(memory, url), service_of(state, now), now)


def rebuild(
    state: State,
    now: datetime,
    tracking: TrackingConfig | None = None,
    journal_url: str = "",
    out: Path | None = None,
) -> Built:
    """The page, after the registry was asked; see refresh().

    Args:
        now: UTC.
        tracking: where the registry is; None is the state folder's own. Where there is none yet,
            it is not made.
        out: where the page goes; None is <state>/reports/status.html.
    """
    url = journal_url or str(state.journal)
    memory = Memory()
    if tracking is not None or state.mlflow_database.exists():
        where = tracking or TrackingConfig(uri=state.tracking_uri)
        memory = look(where, journal.attempts(url), now)
    keep(state.reports / MEMORY, memory)
    path = (out or state.reports / PAGE).absolute()
    return _write(path, pasts_of(memory, url), service_of(state, now), now)


def _page_of(views: tuple[View, ...], service: Service, folder: Path, now: datetime) -> str:
    """The page as HTML text: styles and drawings inside, no script, no request.

    Args:
        folder: where it will lie; paths of reports become links from there.
        now: UTC.
    """
    context = {
        "views": views,
        "service": service,
        "now": now,
        "n_needs": len(service.needs) + sum(len(view.needs) for view in views),
    }
    return _environment(folder).get_template("status.html").render(context)


def pasts_of(memory: Memory, journal_url: str) -> list[Past]:
    """All that is known of every model, by name."""
    tried, watched = journal.attempts(journal_url), journal.watches(journal_url)
    known = {model.name: model for model in memory.models}
    names = sorted({*known, *(one.name for one in tried), *(one.name for one in watched)})
    pasts = []
    for name in names:
        attempts = tuple(one for one in tried if one.name == name)
        watches = tuple(one for one in watched if one.name == name)
        model = known.get(name)
        events = timeline(model.lines if model else (), attempts, watches)
        pasts.append(Past(name, model, memory.read, attempts, watches, events))
    return pasts


def _write(path: Path, pasts: list[Past], service: Service, now: datetime) -> Built:
    views = tuple(view_of(past, number, now) for number, past in enumerate(pasts, 1))
    write_whole(str(path), _page_of(views, service, path.parent, now).encode())
    return Built(path, views, service)


def _environment(folder: Path) -> "Environment":
    filters = {
        "day": lambda moment: f"{_utc(moment):%Y-%m-%d}",
        "link": lambda place: link(place, folder),
        "percent": lambda share: f"{100 * share:.1f} %",
        "px": lambda number: f"{number:.1f}",
        "stamp": lambda moment: f"{_utc(moment):%Y-%m-%d %H:%M}",
        "version": lambda number: f"v{number}" if number else "none",
    }
    return pages.environment(("regraft.operations.status",), filters)


def link(place: str, folder: Path) -> str:
    """The place as a link from the page's folder; "" where none can be made.

    >>> link("/s/reports/drift 1.html", Path("/s/reports")), link("javascript:x", Path("/s"))
    ('drift%201.html', '')
    """
    from urllib.parse import quote

    if place.startswith(("http://", "https://")):
        return place
    return quote(os.path.relpath(place, folder)) if os.path.isabs(place) else ""


def _utc(moment: datetime | str) -> datetime:
    known = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return known.astimezone(UTC)
