"""regraft ledger: whether the record of promotions is intact."""

import typer

from regraft.cli.options import DEFAULT_STATE, ModelArgument, StateOption
from regraft.cli.session import readable_state
from regraft.core.state import places
from regraft.core.text import format_count

ledger_app = typer.Typer(help="Verify the record of promotions.", no_args_is_help=True)


@ledger_app.callback()
def ledger() -> None:
    """Verify the record of promotions."""  # with it, the only command below keeps its name


@ledger_app.command("verify")
def verify(name: ModelArgument = "", state: StateOption = DEFAULT_STATE) -> None:
    """Check every entry against its hash and the entry before it; exit code 6 if one is wrong."""
    tracking = places(readable_state(state)).tracking
    from regraft.registry.ledger import load_verified_ledger, resolve_model_name

    name = resolve_model_name(tracking, name)
    verified = load_verified_ledger(tracking, name)
    counted = format_count(len(verified.entries), "entry")
    head = f", head {verified.head}" if verified.head else ""
    typer.echo(f"{name}: {counted}, verified{head}")
