"""regraft watch: are new photos of another kind than those that a model learned from?"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.options import (
    DEFAULT_STATE,
    ModelOption,
    SetOption,
    StateOption,
    is_debug,
    place_of,
    store_of,
)
from regraft.cli.predict import NO_EVICTION_GB
from regraft.cli.train import remembered
from regraft.core.config import Config, TrackingConfig, load_config, with_settings
from regraft.core.errors import ConfigError

MAX_STRANGE = 100  # photos in the JSON, the least alike first

if TYPE_CHECKING:
    from regraft.core.state import State
    from regraft.drift import DriftReport
    from regraft.operations.journal import Watch
    from regraft.registry import RegisteredVersion


def watch(
    photos: Annotated[
        str, typer.Argument(help="New photos: a folder or a manifest; labels are not needed.")
    ],
    model: ModelOption = "",
    out: Annotated[
        Path | None,
        typer.Option(help="Where the page goes (.html), or all that was found (.json)."),
    ] = None,
    fail: Annotated[
        bool, typer.Option("--fail-on-drift", help="End with 10 if the photos are of another kind.")
    ] = False,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Says whether new photos are of another kind than those that the model learned from, and how.

    Writes a page with the photos that are the least alike, and a record of this look. Settings are
    those that the model was trained under, unless --set says otherwise; of drift are told whom
    --set notify.targets=... names.
    """
    place_of(photos)
    _check(out, tuple(set_))
    from regraft.core.errors import DriftFound
    from regraft.core.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    from regraft.registry import load_card, resolve

    now, tracking = datetime.now(UTC), TrackingConfig(uri=opened.tracking_uri)
    version = resolve(tracking, model)
    then = remembered(load_card(tracking, version).config, opened)
    settings = _placed(with_settings(then, tuple(set_)), opened)
    report = _look(photos, version, settings)
    page = opened.reports / f"watch-{version.name}-{now:%Y%m%dT%H%M%S.%fZ}.html"
    is_page = out is not None and out.suffix == ".html"
    record = _record(report, version, photos, now, out.absolute() if out and is_page else page)
    _write(report, record, settings)
    if out and not is_page:
        _write_json(report, record, out)
    typer.echo(_told(report, record))
    _tell(record, settings, opened)
    if fail and report.drifted:
        raise DriftFound(f"{report.reason}. Look at {record.page}, then retrain on such photos.")


def _check(out: Path | None, settings: tuple[str, ...]) -> None:
    """What is wrong with the command line is said before anything is read."""
    load_config(None, settings)
    if out is not None and out.suffix not in (".html", ".json"):
        raise ConfigError(f"Expected a file ending in .html or .json for --out, got {str(out)!r}.")


def _placed(settings: Config, state: "State") -> Config:
    """The configuration with the places of the state folder."""
    memory = settings.ingest.memory_url or str(state.photos)
    journal = settings.retrain.journal_url or str(state.journal)
    return settings.model_copy(
        update={
            "ingest": settings.ingest.model_copy(update={"memory_url": memory}),
            "embed": store_of(settings.embed.model_copy(update={"max_gb": NO_EVICTION_GB}), state),
            "retrain": settings.retrain.model_copy(update={"journal_url": journal}),
            "tracking": TrackingConfig(uri=state.tracking_uri),
        }
    )


def _look(photos: str, version: "RegisteredVersion", config: Config) -> "DriftReport":
    from regraft.drift import watch as core_watch
    from regraft.registry import load, load_manifest, reference_of

    reference = reference_of(config.tracking, version)
    known = frozenset(load_manifest(config.tracking, version).sha256)
    return core_watch(photos, reference, load(config.tracking, version), known, config)


def _record(
    report: "DriftReport", version: "RegisteredVersion", photos: str, now: datetime, page: Path
) -> "Watch":
    from regraft.core.state import who_am_i
    from regraft.operations.journal import Watch

    return Watch(
        name=version.name,
        when=now.isoformat(),
        who=who_am_i(),
        version=version.version,
        photos=photos,
        n_photos=report.n_photos,
        drifted=bool(report.drifted),
        p_value=report.p_value,
        reason=report.reason,
        page=str(page),
    )


def _write(report: "DriftReport", record: "Watch", config: Config) -> None:
    """The page first: a record must not name one that is not there."""
    from regraft.core.files import write_whole
    from regraft.drift.page import render_look
    from regraft.operations.journal import write

    when = f"{datetime.fromisoformat(record.when):%Y-%m-%d %H:%M:%S} UTC"
    facts = (("Photos", record.photos), ("When", when))
    title = f"{record.name}, version {record.version}"
    page = render_look(report, title, record.photos, config.drift.n_gallery, facts)
    write_whole(record.page, page.encode())
    write(config.retrain.journal_url, record)


def _tell(record: "Watch", config: Config, state: "State") -> None:
    """Whoever wants to hear of drift does, and then the status page shows this look."""
    from regraft.operations.notify import of_watch, tell
    from regraft.operations.status import refresh

    if message := of_watch(record):
        tell(config.notify, message)
    refresh(state, datetime.now(UTC), config.retrain.journal_url)


def _told(report: "DriftReport", record: "Watch") -> str:
    answer = {None: "cannot say", True: "drifted", False: "no drift"}[report.drifted]
    lines = [f"{record.name}/{record.version}: {answer}. {_counted(report)}"]
    if report.drifted is None:
        lines.append(f"  {report.reason}")
    width = max((len(one.name) for one in report.findings), default=0)
    lines += [f"  {one.name:{width}}  p = {one.corrected:<7.3g} {one.said}" for one in report.found]
    if report.drifted is False:
        lines.append(f"  the smallest p is {report.p_value:.2g}, the level {report.level:g}")
    return "\n".join([*lines, f"  page: {record.page}"])


def _counted(report: "DriftReport") -> str:
    told = [f"{report.n_photos} new photos compared with {report.reference}"]
    for n, what in (
        (report.n_known, "known ones left out"),
        (report.n_copies, "copies"),
        (len(report.unusable), "not readable"),
    ):
        told += [f"{n} {what}"] * bool(n)
    return "; ".join(told)


def _write_json(report: "DriftReport", record: "Watch", out: Path) -> None:
    from regraft.core.files import write_whole

    answer: dict[str, Any] = asdict(record) | {
        "drifted": report.drifted,
        "level": report.level,
        "reference": report.reference,
        "n_known": report.n_known,
        "n_copies": report.n_copies,
        "findings": [asdict(one) for one in report.findings],
        "shares": report.shares.to_dict("records"),
        "strangest": report.photos.head(MAX_STRANGE).to_dict("records"),
        "unusable": report.unusable.to_dict("records"),
    }
    write_whole(str(out.absolute()), json.dumps(answer, indent=1).encode())
