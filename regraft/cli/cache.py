"""regraft cache: what frozen networks made of photos, kept so that it is computed once."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import (
    DEFAULT_STATE,
    ConfigOption,
    JsonOption,
    SetOption,
    StateOption,
    is_debug,
    store_of,
)
from regraft.core.config import EmbedConfig, load_config

if TYPE_CHECKING:
    from pathlib import Path

    from regraft.model.embed import ShelfUse

COLUMNS = ("network", "at", "precision", "view", "photos", "MB", "last used")
MaxGbOption = Annotated[
    float | None,
    typer.Option(
        "--max-gb",
        min=0,
        help="What it may hold, in 1e9 bytes; 0 empties it; left out: embed.max_gb.",
    ),
]

app = typer.Typer(help="Look at the kept embeddings, or make room.", no_args_is_help=True)


@app.command("info")
def info(
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """Lists what is kept: the network, how far in, photos, MB, when it was last used."""
    from regraft.model.embed import contents, count_photos

    store = _store(config, set_, state)
    url, max_mb = store.store_url, 1000 * store.max_gb
    shelves = contents(url)
    rows = [_row(shelf, count_photos(url, shelf)) for shelf in shelves]
    n_bytes = sum(shelf.n_bytes for shelf in shelves)
    if as_json:
        table = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        total = {"total_MB": _mb(n_bytes), "max_MB": round(max_mb, 1)}
        typer.echo(json.dumps({"kept": table, **total}, indent=1))
        return
    if rows:
        _print_table(rows)
    typer.echo(f"{_mb(n_bytes):.1f} MB of {max_mb:.0f} MB in {url}")


@app.command("gc")
def gc(
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
    max_gb: MaxGbOption = None,
) -> None:
    """Removes what was not used longest, until the rest fits; it is computed again when needed."""
    from regraft.model.embed import contents, make_room

    store = _store(config, set_, state)
    url = store.store_url
    freed = make_room(url, 1e9 * (store.max_gb if max_gb is None else max_gb))
    left = sum(shelf.n_bytes for shelf in contents(url))
    typer.echo(f"Freed {_mb(freed):.1f} MB, {_mb(left):.1f} MB are left in {url}")


def _store(config: "Path | None", set_: list[str], state: "Path") -> EmbedConfig:
    from regraft.core.state import existing_state

    return store_of(load_config(config, tuple(set_)).embed, existing_state(state, is_debug()))


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
