"""regraft doctor: what is wrong with a state folder, and what to do about it."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, JsonOption, StateOption
from regraft.cli.session import readable_state

if TYPE_CHECKING:
    from regraft.orchestration.doctor import CheckResult


FixOption = Annotated[bool, typer.Option("--fix", help="Repair what can be repaired, then check.")]


def doctor(
    state: StateOption = DEFAULT_STATE, as_json: JsonOption = False, fix: FixOption = False
) -> None:
    """Check for stuck runs, missing artifacts, an unfinished promotion and other faults.

    Exit code 0 if all is well, 7 if a check failed.
    """
    from regraft.core.errors import StateError
    from regraft.orchestration.doctor import can_use_zenml, diagnose
    from regraft.orchestration.doctor import fix as fix_state
    from regraft.orchestration.stack import bootstrap

    opened = readable_state(state)
    if can_use_zenml(opened):  # a run that ended early may have created no store
        bootstrap(opened)
        for repair in fix_state(opened, datetime.now(UTC)) if fix else ():
            typer.echo(f"repaired  {repair}", err=as_json)  # JSON stays JSON
    results = diagnose(opened)
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], indent=2))
    else:
        _print_results(results)
    if not all(result.ok for result in results):
        raise typer.Exit(StateError.exit_code)


def _print_results(results: "list[CheckResult]") -> None:
    width = max(len(result.check) for result in results)
    for result in results:
        mark = "ok  " if result.ok else "FAIL"
        typer.echo(f"{mark}  {result.check:{width}}  {result.detail}")
        if result.remedy:
            typer.echo(f"      {'':{width}}  {result.remedy}")
