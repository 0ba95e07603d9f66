"""regraft compare-backbones: which backbone is worth its milliseconds on these photos."""

import io
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.options import DEFAULT_STATE, ConfigOption, SetOption, StateOption, is_debug
from regraft.cli.train import completed, talk
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
    "logme": "LogME",
    "ms": "ms/photo",
    "quartiles": "quartiles",
    "million_parameters": "M params",
    "embedding_dim": "numbers",
    "weights_mb": "MB",
    "memory_mb": "MB in use",
    "note": "",
}


def compare_backbones(
    photos: Annotated[
        str, typer.Argument(help="Folder, CSV/Parquet manifest, or torchvision:NAME.")
    ],
    backbones: Annotated[
        str,
        typer.Option(help="Separated by commas; a file as file:PATH@timm:NAME. Left out: bundled."),
    ] = "",
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    name: Annotated[str, typer.Option(help="Of the model; left out: the folder's.")] = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Compares backbones on the photos by accuracy and speed, and says which one to start from."""
    wanted = load_config(config, tuple(set_))
    from regraft.core.state import activate, open_state

    opened = open_state(state, is_debug())
    activate(opened)
    talk()
    complete = completed(wanted, photos, name, opened)
    from regraft.data.ingest import ingest
    from regraft.data.split import split
    from regraft.evaluation.compare import compare, config_of

    named = tuple(part.strip() for part in backbones.split(",") if part.strip())
    candidates = named or complete.backbone.candidates
    for candidate in candidates:
        config_of(candidate)  # before the photos are read, not after
    splits = split(ingest(complete.ingest), complete.split)
    comparison = compare(splits, candidates, complete.split, complete.tune, complete.embed)
    typer.echo(_summary(comparison, _written(comparison, complete)))
    typer.echo(_next(comparison, photos, name, opened.root))


def _written(comparison: "Comparison", config: "Config") -> tuple[str, str]:
    """The table and the picture in the reports' folder; where they lie."""
    from regraft.core.files import write_whole
    from regraft.evaluation.compare import plot

    start = f"{config.promote.reports_url.rstrip('/')}/compare-{config.tracking.name}"
    table, picture = f"{start}.csv", f"{start}.png"
    write_whole(table, comparison.table.to_csv(index=False).encode())
    drawn = io.BytesIO()
    plot(comparison).savefig(drawn, format="png", dpi=150)
    write_whole(picture, drawn.getvalue())
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
    formats = {"probe": "{:.1%}", "knn": "{:.1%}", "logme": "{:.3f}", "ms": "{:.3g}"}
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
    from regraft.evaluation.compare import settings_of

    words = [str(Path(sys.executable).parent / "regraft"), "train", photos]
    words += [word for value in settings_of(comparison.chosen) for word in ("--set", value)]
    words += (["--name", name] if name else []) + ["--state", str(root)]
    return f"\nNext:\n  {shlex.join(words)}"
