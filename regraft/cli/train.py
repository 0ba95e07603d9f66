"""regraft train: a folder of labelled photos becomes a judged model."""

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, ConfigOption, NameOption, SetOption, StateOption
from regraft.cli.session import configure_logging, new_state, runner_for
from regraft.core.config import Config, load_config

PhotosArgument = Annotated[
    str, typer.Argument(metavar="PHOTOS", help="Folder, CSV/Parquet manifest, or torchvision:NAME.")
]


def train(
    photos: PhotosArgument,
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    name: NameOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Train, evaluate and register a classifier, and promote it only if it proves better."""
    run_training(load_config(config, tuple(set_)), photos, name, state)


def run_training(config: Config, photos: str, name: str, root: Path) -> None:
    """Run the workflow train in a state folder and print its result."""
    state = new_state(root)
    configure_logging()
    from regraft.cli.summary import summarize
    from regraft.operations.workflows.settings import complete_config
    from regraft.operations.workflows.train import train as run_workflow

    complete = complete_config(config, photos, name, state)
    typer.echo(summarize(run_workflow(complete, state, runner_for(state)), state.root))
