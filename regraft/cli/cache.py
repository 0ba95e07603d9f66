"""regraft cache: the stored embeddings."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import (
    DEFAULT_STATE,
    ConfigOption,
    JsonOption,
    SetOption,
    StateOption,
    is_debug,
)
from regraft.core.config import EmbedConfig, load_config

if TYPE_CHECKING:
    from regraft.model.embed import PartitionUse

COLUMNS = ("network", "at", "precision", "view", "photos", "MB", "last used")
MaxGbOption = Annotated[
    float | None,
    typer.Option(
        "--max-gb",
        min=0,
        metavar="GB",
        help="Limit in 1e9 bytes; 0 empties the store; default: embed.max_gb.",
    ),
]

app = typer.Typer(help="List the stored embeddings, or evict some.", no_args_is_help=True)


@app.command("info")
def info(
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
    as_json: JsonOption = False,
) -> None:
    """List the stored embeddings: network, layer, photos, MB, last use."""
    from regraft.model.embed import contents, count_photos

    store = _store(config, set_, state)
    url, max_mb = store.store_url, 1000 * store.max_gb
    partitions = contents(url)
    rows = [_row(partition, count_photos(url, partition)) for partition in partitions]
    n_bytes = sum(partition.n_bytes for partition in partitions)
    if as_json:
        table = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        total = {"total_MB": _mb(n_bytes), "max_MB": round(max_mb, 1)}
        typer.echo(json.dumps({"partitions": table, **total}, indent=1))
        return
    if rows:
        from regraft.cli.table import print_table

        print_table(COLUMNS, rows)
    typer.echo(f"{_mb(n_bytes):.1f} MB of {max_mb:.0f} MB in {url}")


@app.command("gc")
def gc(
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    state: StateOption = DEFAULT_STATE,
    max_gb: MaxGbOption = None,
) -> None:
    """Evict the least recently used embeddings down to the limit; they are computed again."""
    from regraft.model.embed import contents, evict_lru

    store = _store(config, set_, state)
    url = store.store_url
    freed = evict_lru(url, 1e9 * (store.max_gb if max_gb is None else max_gb))
    left = sum(partition.n_bytes for partition in contents(url))
    typer.echo(f"Freed {_mb(freed):.1f} MB, {_mb(left):.1f} MB are left in {url}")


def _store(config: Path | None, set_: list[str], root: Path) -> EmbedConfig:
    from regraft.core.state import places, readable_state

    state = readable_state(root, is_debug())
    store = load_config(config, tuple(set_)).embed
    return store.model_copy(update={"store_url": store.store_url or places(state).embeddings})


def _row(partition: "PartitionUse", n_photos: int) -> tuple[str | int | float, ...]:
    used = f"{partition.used.astimezone():%Y-%m-%d %H:%M}"
    if partition.cache_key is None:
        return ("of another version", "", "", "", n_photos, _mb(partition.n_bytes), used)
    key = partition.cache_key
    name = f"{key.architecture} {key.weights[:12]}"
    at = key.until or "embedding"
    view = key.view or "as tested"
    return (name, at, key.compute, view, n_photos, _mb(partition.n_bytes), used)


def _mb(n_bytes: int) -> float:
    return round(n_bytes / 1e6, 1)
