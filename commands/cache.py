"""regraft cache: what frozen networks made of photos, kept so that it is computed once."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import DEFAULT_STATE, JsonOption, StateOption, is_debug
from regraft.config import EmbedConfig

if TYPE_CHECKING:
    from regraft.embed import ShelfUse

COLUMNS = ("network", "at", "precision", "view", "photos", "MB", "last used")
MAX_GB = EmbedConfig().max_gb

MaxGbOption = Annotated[
    float, typer.Option("--max-gb", min=0, help="What it may hold, in 1e9 bytes; 0 empties it.")
]

app = typer.Typer(help="Look at the kept embeddings, or make room.", no_args_is_help=True)


@app.command("info")
def info(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Lists what is kept: the network, how far in, photos, MB, when it was last used."""
    from regraft.embed import contents, count_photos
    from regraft.state import existing_state

    url = str(existing_state(state, is_debug()).embeddings)
    shelves = contents(url)
    rows = [_row(shelf, count_photos(url, shelf)) for shelf in shelves]
    n_bytes = sum(shelf.n_bytes for shelf in shelves)
    if as_json:
        table = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        total = {"total_MB": _mb(n_bytes), "max_MB": round(MAX_GB * 1000, 1)}
        typer.echo(json.dumps({"kept": table, **total}, indent=1))
        return
    if rows:
        _print_table(rows)
    typer.echo(f"{_mb(n_bytes):.1f} MB of {MAX_GB * 1000:.0f} MB in {url}")


@app.command("gc")
def gc(state: StateOption = DEFAULT_STATE, max_gb: MaxGbOption = MAX_GB) -> None:
    """Removes what was not used longest, until the rest fits; it is computed again when needed."""
    from regraft.embed import contents, make_room
    from regraft.state import existing_state

    url = str(existing_state(state, is_debug()).embeddings)
    freed = make_room(url, max_gb * 1e9)
    left = sum(shelf.n_bytes for shelf in contents(url))
    typer.echo(f"Freed {_mb(freed):.1f} MB, {_mb(left):.1f} MB are left in {url}")


def _row(shelf: "ShelfUse", n_photos: int) -> tuple[str | int | float, ...]:
    used = f"{shelf.used.astimezone():%Y-%m-%d %H:%M}"
    if shelf.recipe is None:
        return ("of another version", "", "", "", n_photos, _mb(shelf.n_bytes), used)
    recipe = shelf.recipe
    name = f"{recipe.architecture} {recipe.weights[:12]}"
    at = recipe.until or "embedding"
    view = recipe.view or "as tested"
    return (name, at, recipe.compute, view, n_photos, _mb(shelf.n_bytes), used)


def _mb(n_bytes: int) -> float:
    return round(n_bytes / 1e6, 1)


def _print_table(rows: list[tuple[str | int | float, ...]]) -> None:
    table = [COLUMNS, *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        typer.echo("  ".join(cells).rstrip())
