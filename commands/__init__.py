"""The command line: one file a command, thin, quick to answer --help.

Exit codes: 0 success (whatever the verdict), 1 a fault of ours, 2 configuration or usage, 3 photos,
4 pretrained weights, 5 training, 6 registry, 7 state folder, 8 nothing to do, 9 schedule,
10 drift, 11 runs already, 130 interrupted (the same command goes on where it stopped).
"""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Annotated

import typer

from commands.approve import approve, reject
from commands.cache import app as cache_app
from commands.card import card
from commands.compare import compare_backbones
from commands.config import app as config_app
from commands.demo import demo
from commands.doctor import doctor
from commands.explain import explain, what_if
from commands.history import history
from commands.ledger import ledger_app
from commands.models import models_app
from commands.notify import notify_app
from commands.options import DEBUG, is_debug
from commands.predict import predict
from commands.predict_batch import predict_batch
from commands.promote import promote
from commands.reproduce import reproduce
from commands.retrain import retrain
from commands.rollback import rollback
from commands.schedule import schedule_app
from commands.status import status
from commands.train import train
from commands.watch import watch
from regraft import __version__
from regraft.errors import RegraftError

# torch's threads would spin while they wait, and the threads that decode photos need the cores: a
# tenth more photos a second (measured on two). It must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="Grafts your classes onto a pretrained network, and keeps the graft alive.",
    epilog="Exit codes: 0 done, 1 our fault, 2 configuration, 3 photos, 4 weights, 5 training, "
    "6 registry, 7 state folder, 8 nothing to do, 9 schedule, 10 drift, "
    "11 runs already, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
SINGLE: tuple[Callable[..., None], ...] = (
    *(train, retrain, predict, predict_batch, compare_backbones, demo),
    *(promote, explain, what_if, approve, reject, rollback, history, card, reproduce),
    *(doctor, status, watch),
)
for command in SINGLE:
    app.command()(command)
for name, group in (("models", models_app), ("ledger", ledger_app), ("notify", notify_app)):
    app.add_typer(group, name=name)
for name, group in (("config", config_app), ("cache", cache_app), ("schedule", schedule_app)):
    app.add_typer(group, name=name)


@app.callback(invoke_without_command=True)
def regraft(
    version: Annotated[bool, typer.Option("--version", help="Say the version and leave.")] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show tracebacks and all logs.")] = False,
) -> None:
    """Grafts your classes onto a pretrained network, and keeps the graft alive."""
    if version:
        typer.echo(f"regraft {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point: an error of ours is one sentence and its exit code."""
    if not is_debug():
        warnings.simplefilter("ignore")  # of the libraries below
    try:
        app()
    except RegraftError as error:
        if is_debug():
            traceback.print_exc()
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
    finally:
        if not is_debug():
            sys.excepthook = _say_unexpected  # set last, because ZenML sets its own when imported


def _say_unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    typer.echo(f"Unexpected {kind.__name__}: {error}", err=True)
    typer.echo(f"This is a fault of ours; regraft {DEBUG} ... shows where it happened.", err=True)
