"""The workflow watch: new photos tested for a distribution shift, recorded and reported."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.config import Config, apply_overrides
from regraft.core.pages.facts import facts_html
from regraft.core.state import State, places
from regraft.core.text import format_count
from regraft.operations.workflows.settings import check_place, config_of_model, reading_config

if TYPE_CHECKING:
    from regraft.drift import DriftReport
    from regraft.operations.journal import Watch
    from regraft.registry import RegisteredVersion


@dataclass(frozen=True)
class Watched:
    """The result of a drift check. record: as the journal has it, with the path of the page."""

    report: "DriftReport"
    record: "Watch"

    @property
    def drifted(self) -> bool | None:
        """Whether a test shows a distribution shift; None if there were too few photos."""
        return self.report.drifted

    def __str__(self) -> str:
        record = self.record
        return (
            f"{record.name}/{record.version}: {format_count(record.n_photos, 'photo')}; "
            f"{record.reason}"
        )

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        record = self.record
        facts = {
            "model": f"{record.name}/{record.version}",
            "photos": str(record.n_photos),
            "result": record.reason,
            "page": record.page,
        }
        return facts_html(facts)


def watch(
    photos: str, model: str, overrides: tuple[str, ...], page: Path | None, state: State
) -> Watched:
    """Test new photos for a distribution shift against the photos that a model learned from.

    Writes a page and a record in the journal, and sends notifications of a shift.

    Args:
        photos: folder or manifest; labels are not needed.
        model: "name@alias", "name/3" or "name"; "" means the only champion.
        overrides: "section.field=value", over the settings that the model was trained under.
        page: where the page goes; None means the state folder's reports.
        state: opened and activated.
    """
    from regraft.operations.notify import send, watch_message
    from regraft.operations.status import refresh
    from regraft.registry import load_card, resolve

    check_place(photos)
    now, tracking = datetime.now(UTC), places(state).tracking
    version = resolve(tracking, model)
    settings = config_of_model(load_card(tracking, version).config, state)
    config = reading_config(apply_overrides(settings, overrides), state)
    report = _detect_drift(photos, version, config)
    default = f"{places(state).reports}/watch-{version.name}-{now:%Y%m%dT%H%M%S.%fZ}.html"
    record = _record(report, version, photos, now, str(page.absolute()) if page else default)
    _write(report, record, config)
    if message := watch_message(record):
        send(config.notify, message)
    refresh(state, datetime.now(UTC))
    return Watched(report, record)


def _detect_drift(photos: str, version: "RegisteredVersion", config: Config) -> "DriftReport":
    from regraft.drift import watch as watch_photos
    from regraft.registry import load, load_manifest, require_reference

    reference = require_reference(config.tracking, version)
    known = frozenset(load_manifest(config.tracking, version).sha256)
    return watch_photos(photos, reference, load(config.tracking, version), known, config)


def _record(
    report: "DriftReport", version: "RegisteredVersion", photos: str, now: datetime, page: str
) -> "Watch":
    from regraft.core.state import current_user
    from regraft.operations.journal import Watch

    return Watch(
        name=version.name,
        when=now.isoformat(),
        who=current_user(),
        version=version.version,
        photos=photos,
        n_photos=report.n_photos,
        drifted=report.drifted,
        p_value=report.p_value,
        reason=report.reason,
        page=page,
    )


def _write(report: "DriftReport", record: "Watch", config: Config) -> None:
    """Write the page, then the record, which must not name a page that does not exist."""
    from regraft.core.files import write_atomic
    from regraft.drift.page import render_drift_page
    from regraft.operations.journal import write_record

    when = f"{datetime.fromisoformat(record.when):%Y-%m-%d %H:%M:%S} UTC"
    facts = (("Photos", record.photos), ("When", when))
    title = f"{record.name}, version {record.version}"
    page = render_drift_page(report, title, record.photos, config.drift.n_gallery, facts)
    write_atomic(record.page, page.encode())
    write_record(config.retrain.journal_url, record)
