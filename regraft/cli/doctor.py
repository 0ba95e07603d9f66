"""`regraft doctor`: what is wrong with a state folder, and what to do about it."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, JsonOption, StateOption, is_debug

if TYPE_CHECKING:
    from pipelines.doctor import Finding


FixOption = Annotated[bool, typer.Option("--fix", help="Mend what can be mended, then look.")]


def doctor(
    state: StateOption = DEFAULT_STATE, as_json: JsonOption = False, mend: FixOption = False
) -> None:
    """Look for stuck runs, missing artifacts, an unfinished promotion and the like.

    Ends with 0 if all is well, with 7 if a check found something.
    """
    from pipelines.doctor import diagnose, fix
    from pipelines.stack import bootstrap
    from regraft.core.errors import StateError
    from regraft.core.state import activate, existing_state

    opened = existing_state(state, is_debug())
    activate(opened)
    if opened.zenml_database.exists():  # a run that ended early may have made none
        bootstrap(opened)
    if mend and opened.zenml_database.exists():
        for sentence in fix(opened, datetime.now(UTC)):
            typer.echo(f"mended  {sentence}", err=as_json)  # JSON stays JSON
    findings = diagnose(opened)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print_table(findings)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(StateError.exit_code)


def _print_table(findings: "list[Finding]") -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark = "ok  " if finding.ok else "FAIL"
        typer.echo(f"{mark}  {finding.check:{width}}  {finding.detail}")
        if finding.remedy:
            typer.echo(f"      {'':{width}}  {finding.remedy}")
