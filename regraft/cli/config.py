"""regraft config: check or print a configuration without running anything."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from regraft.cli.options import ConfigOption, SetOption
from regraft.core.config import load_config

app = typer.Typer(help="Check or print a configuration.", no_args_is_help=True)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="YAML files.")],
) -> None:
    """Check each file; exit code 2 at the first one that is not valid."""
    for file in files:
        load_config(file)
        typer.echo(f"{file}: ok")


@app.command()
def show(config: ConfigOption = None, set_: SetOption = []) -> None:  # noqa: B006 - typer copies it
    """Print every value as a run would use it, defaults included."""
    merged = load_config(config, tuple(set_))
    typer.echo(yaml.safe_dump(merged.model_dump(mode="json"), sort_keys=False), nl=False)
