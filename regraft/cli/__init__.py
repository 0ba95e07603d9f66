"""The command line: one thin file a command group; --help imports nothing heavy.

Exit codes: 0 success (whatever the verdict), 1 internal error, 2 configuration or usage, 3 photos,
4 pretrained weights, 5 training, 6 registry, 7 state folder, 8 nothing to do, 9 schedule,
10 drift, 11 already running, 130 interrupted by Ctrl-C, 143 interrupted by SIGTERM (the same
command resumes where it stopped).
"""

import gc
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Annotated

import typer

from regraft import __version__
from regraft.cli.approve import approve, reject
from regraft.cli.cache import app as cache_app
from regraft.cli.card import card
from regraft.cli.compare import compare_backbones
from regraft.cli.config import app as config_app
from regraft.cli.demo import demo
from regraft.cli.doctor import doctor
from regraft.cli.explain import explain, what_if
from regraft.cli.history import history
from regraft.cli.interruption import interruptible
from regraft.cli.ledger import ledger_app
from regraft.cli.models import models_app
from regraft.cli.notify import notify_app
from regraft.cli.options import DEBUG, is_debug
from regraft.cli.predict import predict
from regraft.cli.predict_batch import predict_batch
from regraft.cli.promote import promote
from regraft.cli.reproduce import reproduce
from regraft.cli.retrain import retrain
from regraft.cli.rollback import rollback
from regraft.cli.schedule import schedule_app
from regraft.cli.status import status
from regraft.cli.terminal import check_arguments, escape_unprintable
from regraft.cli.train import train
from regraft.cli.watch import watch
from regraft.core.errors import RegraftError
from regraft.core.state import reported_faults

# torch's threads would spin while they wait, and the threads that decode photos need the cores: a
# tenth more photos a second (measured on two). It must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HELP = "Make image classifiers from folders of labelled photos, and keep them up to date."
app = typer.Typer(
    help=_HELP,
    epilog="Exit codes: 0 done, 1 internal error, 2 configuration, 3 photos, 4 weights, "
    "5 training, 6 registry, 7 state folder, 8 nothing to do, 9 schedule, 10 drift, "
    "11 already running, 130 interrupted by Ctrl-C, 143 interrupted by SIGTERM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: tuple[Callable[..., None], ...] = (
    train,
    retrain,
    predict,
    predict_batch,
    compare_backbones,
    demo,
    promote,
    explain,
    what_if,
    approve,
    reject,
    rollback,
    history,
    card,
    reproduce,
    doctor,
    status,
    watch,
)
# Commands that read records: almost all of their time is the import of MLflow.
READERS = {"models", "history", "explain", "ledger", "card", "status", "cache", "doctor"}
_GC_OBJECTS = 50_000  # Python's own default of 700 makes these commands a quarter slower (measured)
for command in COMMANDS:
    app.command()(command)
for name, group in (("models", models_app), ("ledger", ledger_app), ("notify", notify_app)):
    app.add_typer(group, name=name)
for name, group in (("config", config_app), ("cache", cache_app), ("schedule", schedule_app)):
    app.add_typer(group, name=name)


@app.callback(invoke_without_command=True, help=_HELP)
def regraft(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show tracebacks and all logs.")] = False,
) -> None:
    """Print the version, or do nothing: the command follows."""
    if version:
        typer.echo(f"regraft {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line: a RegraftError prints one sentence and sets the exit code."""
    if not is_debug():
        warnings.simplefilter("ignore")  # of the libraries below
    if READERS.intersection(sys.argv[1:2]):
        gc.set_threshold(_GC_OBJECTS)
    escape_unprintable()
    try:
        with interruptible(), reported_faults():
            check_arguments(sys.argv[1:])
            app()
    except RegraftError as error:
        if is_debug():
            traceback.print_exc()
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)
    finally:
        if not is_debug():
            sys.excepthook = _print_unexpected  # set last, because ZenML sets its own when imported


def _print_unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    typer.echo(f"Unexpected {kind.__name__}: {error}", err=True)
    typer.echo(f"This is an internal error; regraft {DEBUG} ... shows where it happened.", err=True)
