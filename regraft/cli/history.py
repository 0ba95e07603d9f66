"""regraft history: everything that happened to a model, what serves now and what served when."""

import json
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, JsonOption, ModelArgument, StateOption, is_debug
from regraft.core.errors import ConfigError
from regraft.core.pages.facts import format_version
from regraft.core.state import readable_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regraft.operations.status import Event
    from regraft.operations.workflows.history import ModelHistory

COLUMNS = ("when", "who", "action", "champion", "verdict", "reason")
AsOfOption = Annotated[
    str,
    typer.Option(
        "--as-of",
        metavar="DATE",
        help="The champion of then: 2026-11-24 (the end of that day, UTC) or an ISO 8601 time.",
    ),
]
LimitOption = Annotated[
    int, typer.Option("--limit", min=0, metavar="N", help="Number of events, the newest; 0 = all.")
]


def history(
    name: ModelArgument = "",
    as_of: AsOfOption = "",
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
    limit: LimitOption = 0,
) -> None:
    """List everything that happened to a model, oldest first, and what serves now or served then.

    Promotions, retrainings and their reasons, and drift checks of new photos.
    """
    moment = parse_moment(as_of) if as_of else None
    opened = readable_state(state, is_debug())
    from regraft.operations.workflows.history import model_history

    records = model_history(name, moment, opened)
    events = records.events[-limit:]
    for sentence in records.broken:
        typer.echo(sentence, err=True)
    if as_json:
        _print_json(records, events, moment)
        return
    _print_events(events)
    label = f"Champion at {moment:%Y-%m-%d %H:%M:%S %Z}" if moment else "Champion now"
    typer.echo(f"{label}: {records.name} {format_version(records.champion)}")
    if records.faults:
        typer.echo(f"The ledger fails its verification: {' '.join(records.faults)}", err=True)
    if not moment and records.is_unrecorded:
        typer.echo("The ledger's last entry says otherwise; the next decision will record it.")


def parse_moment(text: str) -> datetime:
    """Return the time with a zone: a date is the end of that day, no zone is UTC.

    >>> parse_moment("2026-11-24").isoformat()
    '2026-11-24T23:59:59.999999+00:00'
    >>> parse_moment("2026-11-24T12:00+01:00").isoformat()
    '2026-11-24T12:00:00+01:00'

    Raises:
        ConfigError: the text is neither.
    """
    try:
        return datetime.combine(date.fromisoformat(text), time.max, UTC)
    except ValueError:
        pass  # then it has a time of day
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            "Expected a date such as 2026-11-24 or a time such as 2026-11-24T18:30:00 for --as-of, "
            f"got {text!r}. Write one of these; without a zone it is UTC."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _print_json(
    records: "ModelHistory", events: "Sequence[Event]", moment: datetime | None
) -> None:
    document = {
        "model": records.name,
        "as_of": moment.isoformat() if moment else None,
        "champion": records.champion,
        "entries": [asdict(entry) for entry in records.entries],
        "faults": records.faults,
        "events": [asdict(event) for event in events],
    }
    typer.echo(json.dumps(document, indent=1))


def _print_events(events: "Sequence[Event]") -> None:
    if not events:
        typer.echo("Nothing has happened by then.")
        return
    from regraft.cli.table import print_table

    print_table(COLUMNS, [_row(event) for event in events])


def _row(event: "Event") -> tuple[str, ...]:
    when = f"{event.moment:%Y-%m-%d %H:%M:%S}"
    before, after = format_version(event.before), format_version(event.champion)
    champion = f"{before} -> {after}" if event.moved else after
    return when, event.who, event.label, champion, event.verdict, event.message
