"""regraft history: what served when, and why."""

import json
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Annotated

import typer

from commands.ledger import ModelArgument, tracking_of
from commands.options import DEFAULT_STATE, JsonOption, StateOption
from regraft.errors import ConfigError

if TYPE_CHECKING:
    from regraft.registry.ledger import Entry

COLUMNS = ("when", "who", "action", "champion", "verdict", "reason")
AsOfOption = Annotated[
    str,
    typer.Option(
        "--as-of",
        metavar="DATE",
        help="Say what served then: 2026-11-24 (the end of that day, UTC) or an ISO 8601 time.",
    ),
]


def history(
    name: ModelArgument = "",
    as_of: AsOfOption = "",
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Lists every decision about what serves, oldest first, and what serves now or served then."""
    moment = moment_of(as_of) if as_of else None
    tracking = tracking_of(state)
    from regraft.registry.champion import champion_at, serving_version
    from regraft.registry.ledger import meant, read, version_text

    name = meant(tracking, name)
    ledger = read(tracking, name)
    serves = serving_version(tracking, name)
    served = champion_at(ledger.entries, moment) if moment else serves
    told = [e for e in ledger.entries if not moment or datetime.fromisoformat(e.when) <= moment]
    if as_json:
        rows = [asdict(entry) for entry in told]
        at = moment.isoformat() if moment else None
        answer = {"model": name, "as_of": at, "champion": served, "entries": rows}
        typer.echo(json.dumps(answer | {"faults": ledger.faults}, indent=1))
        return
    _print_table([_row(entry) for entry in told])
    when = f"Served at {moment:%Y-%m-%d %H:%M:%S %Z}" if moment else "Serves now"
    typer.echo(f"{when}: {name} {version_text(served)}")
    if ledger.faults:
        typer.echo(f"Not as it was written: {' '.join(ledger.faults)}", err=True)
    if not moment and ledger.entries and serves != ledger.entries[-1].after:
        typer.echo("That is not what the last entry says; the next decision will record it.")


def moment_of(text: str) -> datetime:
    """The time that is meant, with a zone: a date is the end of that day, no zone is UTC.

    >>> moment_of("2026-11-24").isoformat(), moment_of("2026-11-24T12:00+01:00").isoformat()
    ('2026-11-24T23:59:59.999999+00:00', '2026-11-24T12:00:00+01:00')

    Raises:
        ConfigError: it is neither.
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


def _row(entry: "Entry") -> tuple[str, ...]:
    from regraft.registry.ledger import version_text

    when = f"{datetime.fromisoformat(entry.when):%Y-%m-%d %H:%M:%S}"
    before, after = version_text(entry.before), version_text(entry.after)
    champion = after if before == after else f"{before} -> {after}"
    return when, entry.who, entry.action, champion, entry.verdict, entry.reason


def _print_table(rows: list[tuple[str, ...]]) -> None:
    if not rows:
        typer.echo("Nothing was decided by then.")
        return
    table = [COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        typer.echo("  ".join(cells).rstrip())
