"""regraft compare-backbones: accuracy and speed of backbones on these photos."""

import io
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, ConfigOption, NameOption, SetOption, StateOption
from regraft.cli.session import configure_logging, new_state
from regraft.cli.train import PhotosArgument
from regraft.core.config import load_config

if TYPE_CHECKING:
    from regraft.core.config import Config
    from regraft.evaluation.compare import Comparison

SHOWN = {
    "source": "backbone",
    "probe": "accuracy",
    "interval": "95 %",
    "p_value": "p",
    "knn": "knn",
    "ms": "ms/photo",
    "quartiles": "quartiles",
    "million_parameters": "M params",
    "embedding_dim": "numbers",
    "weights_mb": "MB",
    "memory_mb": "MB in use",
    "note": "",
}


def compare_backbones(
    photos: PhotosArgument,
    backbones: Annotated[
        str,
        typer.Option(
            metavar="SOURCES",
            help="Separated by commas; a file as file:PATH@timm:NAME. Default: bundled.",
        ),
    ] = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    name: NameOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Compare backbones on the photos by accuracy and speed, and recommend one."""
    settings = load_config(config, tuple(set_))
    opened = new_state(state)
    configure_logging()
    from regraft.data.ingest import ingest
    from regraft.data.split import split
    from regraft.evaluation.compare import compare, parse_candidate
    from regraft.operations.workflows.settings import complete_config

    complete = complete_config(settings, photos, name, opened)
    named = tuple(part.strip() for part in backbones.split(",") if part.strip())
    candidates = named or complete.backbone.candidates
    for candidate in candidates:
        parse_candidate(candidate)  # before the photos are read, not after
    splits = split(ingest(complete.ingest), complete.split)
    comparison = compare(splits, candidates, complete.split, complete.tune, complete.embed)
    typer.echo(_summary(comparison, _write(comparison, complete)))
    typer.echo(_next(comparison, photos, name, opened.root))


def _write(comparison: "Comparison", config: "Config") -> tuple[str, str]:
    """Write the table and the picture to the reports' folder; return their places."""
    from regraft.core.files import write_atomic
    from regraft.core.spreadsheet import csv_text
    from regraft.evaluation.compare import plot

    start = f"{config.promote.reports_url.rstrip('/')}/compare-{config.tracking.name}"
    table, picture = f"{start}.csv", f"{start}.png"
    write_atomic(table, csv_text(comparison.table).encode())
    drawn = io.BytesIO()
    plot(comparison).savefig(drawn, format="png", dpi=150)
    write_atomic(picture, drawn.getvalue())
    return table, picture


def _summary(comparison: "Comparison", places: tuple[str, str]) -> str:
    table = comparison.table
    good, bad = table[table["error"] == ""], table[table["error"] != ""]
    front = ", ".join(good.loc[good["on_front"].astype(bool), "source"])
    shown = good.assign(
        interval=[f"{a:.1%}-{b:.1%}" for a, b in zip(good.probe_low, good.probe_high, strict=True)],
        quartiles=[f"{a:.3g}-{b:.3g}" for a, b in zip(good.ms_low, good.ms_high, strict=True)],
        note=["<- chosen" if chosen else "" for chosen in good.is_chosen],
    )
    formats = {"probe": "{:.1%}", "knn": "{:.1%}", "ms": "{:.3g}"}
    formats |= {"million_parameters": "{:.2f}", "p_value": "{:.2g}"}
    formats |= {"weights_mb": "{:.1f}", "memory_mb": "{:.0f}", "embedding_dim": "{:.0f}"}
    rows = shown.assign(**{key: shown[key].map(form.format) for key, form in formats.items()})
    lines = [
        "",
        rows[list(SHOWN)].rename(columns=SHOWN).to_string(index=False),
        *(f"{row.source}: not compared. {row.error}" for row in bad.itertuples()),
        "",
        f"  photos    {comparison.n_photos} of train and validation, each judged by heads that "
        "did not see it",
        f"  front     {front}",
        f"  chosen    {comparison.chosen}: {comparison.reason}",
        f"  table     {places[0]}",
        f"  picture   {places[1]}",
    ]
    return "\n".join(lines)


def _next(comparison: "Comparison", photos: str, name: str, root: Path) -> str:
    from regraft.evaluation.compare import config_overrides

    words = [str(Path(sys.executable).parent / "regraft"), "train", photos]
    words += [word for value in config_overrides(comparison.chosen) for word in ("--set", value)]
    words += (["--model", name] if name else []) + ["--state", str(root)]
    return f"\nNext:\n  {shlex.join(words)}"
