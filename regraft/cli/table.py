"""Tables on the screen."""

import shutil
import sys
from collections.abc import Iterable, Sequence

import typer

_MIN_PATH = 20  # characters: enough for a file's name; guess


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table as wide as its cells need: columns two spaces apart, no frame, no colours."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    for row in rows:
        table.add_row(*map(str, row))
    console = Console(color_system=None, markup=False, highlight=False, emoji=False)
    unlimited = console.options.update(max_width=10**6)
    console.width = max(1, console.measure(table, options=unlimited).maximum)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        typer.echo(line.rstrip())


def fit_paths(paths: Sequence[str], n_others: int) -> list[str]:
    """Return the paths without their beginnings where the table would be wider than the terminal.

    In a pipe or a file they stay as they are.

    Args:
        n_others: characters of a row besides the path.
    """
    if not sys.stdout.isatty():
        return list(paths)
    width = max(_MIN_PATH, shutil.get_terminal_size().columns - n_others)
    return [path if len(path) <= width else f"...{path[3 - width :]}" for path in paths]
