"""regraft notify: whether every notification target can be reached."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from regraft.cli.options import ConfigOption, SetOption
from regraft.core.config import NotifyConfig, load_config
from regraft.core.errors import ConfigError

notify_app = typer.Typer(help="Test the notification targets.", no_args_is_help=True)


@notify_app.callback()
def notify() -> None:
    """Test the notification targets."""  # with it, the only command below keeps its name


@notify_app.command("test")
def send_sample(
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    name: Annotated[
        str, typer.Option("--model", metavar="NAME", help="The model that the message names.")
    ] = "test",
) -> None:
    """Send a test message to every target of the section notify; exit code 2 if one fails."""
    targets = load_config(config, tuple(set_)).notify.targets
    if not targets:
        raise ConfigError(
            "Expected targets in the section notify, got none. Name a file that has some with "
            "--config."
        )
    from regraft.operations.notify import send
    from regraft.operations.notify.message import sample_message

    message = sample_message(name, datetime.now(UTC))
    n_failed = 0
    for target in targets:
        subscribed = target.model_copy(update={"of": (message.event,)})
        failures = send(NotifyConfig(targets=(subscribed,)), message)
        n_failed += len(failures)
        typer.echo(str(failures[0]) if failures else f"{target.kind}: sent")
    if n_failed:
        raise typer.Exit(ConfigError.exit_code)
