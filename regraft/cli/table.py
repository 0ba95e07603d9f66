"""Tables on the screen."""

from collections.abc import Iterable, Sequence

import typer


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
