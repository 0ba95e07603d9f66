"""regraft watch: test new photos for a distribution shift."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.options import DEFAULT_STATE, ModelOption, SetOption, StateOption
from regraft.cli.session import known_state
from regraft.core.config import load_config
from regraft.core.errors import ConfigError, DriftFound
from regraft.core.text import format_count

if TYPE_CHECKING:
    from regraft.drift import DriftReport
    from regraft.operations.workflows.watch import Watched

MAX_DISTANT = 100  # photos in the JSON, the most distant first


def watch(
    photos: Annotated[
        str,
        typer.Argument(
            metavar="PHOTOS", help="New photos: a folder or a manifest; labels are not needed."
        ),
    ],
    model: ModelOption = "",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where the page goes (.html), or the whole result (.json)."
        ),
    ] = None,
    fail: Annotated[
        bool, typer.Option("--fail-on-drift", help="Exit code 10 if the photos have drifted.")
    ] = False,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Test new photos for a distribution shift against the photos that the model learned from.

    Writes a page with the most distant photos, and a record in the journal. The settings are those
    that the model was trained under, unless --set changes them; --set notify.targets=... names who
    is notified of drift.
    """
    load_config(None, tuple(set_))  # a wrong setting is reported before any photo is read
    if out is not None and out.suffix not in (".html", ".json"):
        raise ConfigError(f"Expected a file ending in .html or .json for --out, got {str(out)!r}.")
    opened = known_state(state)
    from regraft.operations.workflows.watch import watch as run_workflow

    page = out if out and out.suffix == ".html" else None
    watched = run_workflow(photos, model, tuple(set_), page, opened)
    if out and out.suffix == ".json":
        _write_json(watched, out)
    typer.echo(_summary_text(watched))
    report, record = watched.report, watched.record
    if fail and report.drifted:
        raise DriftFound(f"{report.reason}. See {record.page}, then retrain on such photos.")


def _summary_text(watched: "Watched") -> str:
    report, record = watched.report, watched.record
    outcome = {None: "inconclusive", True: "drifted", False: "no drift"}[report.drifted]
    lines = [f"{record.name}/{record.version}: {outcome}. {_counts(report)}"]
    if report.drifted is None:
        lines.append(f"  {report.reason}")
    width = max((len(test.name) for test in report.tests), default=0)
    for test in report.drifted_tests:
        lines.append(f"  {test.name:{width}}  p = {test.corrected:<7.3g} {test.effect}")
    if report.drifted is False:
        lines.append(f"  the smallest p is {report.p_value:.2g}, the level {report.level:g}")
    return "\n".join([*lines, f"  page: {record.page}"])


def _counts(report: "DriftReport") -> str:
    parts = [f"{format_count(report.n_photos, 'new photo')} compared with {report.reference}"]
    omitted = {
        "known photos left out": report.n_known,
        "copies": report.n_copies,
        "not readable": len(report.unusable),
    }
    parts += [f"{n} {label}" for label, n in omitted.items() if n]
    return "; ".join(parts)


def _write_json(watched: "Watched", out: Path) -> None:
    from regraft.core.files import write_atomic

    report = watched.report
    document: dict[str, Any] = asdict(watched.record) | {
        "drifted": report.drifted,
        "level": report.level,
        "reference": report.reference,
        "n_known": report.n_known,
        "n_copies": report.n_copies,
        "tests": [asdict(test) for test in report.tests],
        "shares": report.shares.to_dict("records"),
        "most_distant": report.photos.head(MAX_DISTANT).to_dict("records"),
        "unusable": report.unusable.to_dict("records"),
    }
    write_atomic(str(out.absolute()), json.dumps(document, indent=1).encode())
