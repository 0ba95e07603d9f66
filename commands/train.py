"""regraft train: a folder of labelled photos becomes a judged champion."""

import logging
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.options import DEFAULT_STATE, ConfigOption, SetOption, StateOption, is_debug
from regraft.config import Config, load_config, override_all

if TYPE_CHECKING:
    from regraft.state import State


def train(
    photos: Annotated[
        str, typer.Argument(help="Folder, CSV/Parquet manifest, or torchvision:NAME.")
    ],
    config: ConfigOption = None,
    set_: SetOption = [],  # noqa: B006 - typer copies it
    name: Annotated[str, typer.Option(help="Of the model; left out: the folder's.")] = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Trains, evaluates, registers and, only if it proves better, promotes a classifier."""
    run_training(load_config(config, tuple(set_)), photos, name, state)


def run_training(wanted: Config, photos: str, name: str, root: Path) -> None:
    """Runs the pipeline train on the local stack of the state folder and prints the result."""
    from regraft.state import activate, open_state

    state = open_state(root, is_debug())
    activate(state)
    talk()
    _run(completed(wanted, photos, name, state), state)


def completed(wanted: Config, photos: str, name: str, state: "State") -> Config:
    """The configuration with every place and name that the user left open."""
    name = name or wanted.tracking.name or _name_of(photos)
    where = {
        "ingest.photos": _absolute(photos),
        "ingest.images_url": str(state.images),
        "ingest.memory_url": str(state.photos),
        "split.memory_url": str(state.splits / name),
        "embed.store_url": str(state.embeddings),
        "tune.checkpoint_url": str(state.checkpoints),
        "tracking.uri": state.tracking_uri,
        "tracking.artifacts_url": str(state.mlflow_artifacts),
        "promote.reports_url": str(state.reports),
    }
    complete = override_all(wanted, where)
    return override_all(complete, {"tracking.name": name})


def _run(config: Config, state: "State") -> None:
    from pipelines.doctor import sweep_missing, sweep_stuck, sweep_tracked
    from pipelines.stack import bootstrap, hush
    from regraft.ingest import fingerprint
    from regraft.state import run_marker

    seen = fingerprint(config.ingest)
    bootstrap(state)
    if not state.debug:
        hush()
    now = datetime.now(UTC)
    sweep_stuck(state, now)
    sweep_tracked(config.tracking)
    sweep_missing()
    from commands.summary import summarise
    from pipelines.train import train as pipeline

    run_name = f"{config.tracking.name}-{now:%Y%m%d-%H%M%S}-{os.getpid()}"
    with run_marker(state, run_name):
        run = pipeline.with_options(run_name=run_name)(_pinned(config), seen)
    typer.echo(summarise(run, config, state))


def _pinned(config: Config) -> Config:
    """The backbone's source as it is today: a step sees its name only, and caches by it.

    "champion" becomes the bundle that it means now, and a file gets the sha256 of its content.
    """
    kind, _, place = config.backbone.source.partition(":")
    if kind == "champion":
        from regraft.registry import find

        bundle = find(config.tracking, config.tracking.name).bundle_url
        pinned = {"source": f"bundle:{bundle}"}
    elif kind == "file" and not config.backbone.sha256:
        from regraft.backbone import read_weights

        pinned = {"sha256": read_weights(place).sha256}
    else:
        return config
    return config.model_copy(update={"backbone": config.backbone.model_copy(update=pinned)})


def _name_of(photos: str) -> str:
    place = Path(photos) if "://" in photos else Path(photos).resolve()
    name = place.stem if place.suffix.lower() in (".csv", ".parquet") else place.name
    plain = re.sub(r"[^\w. -]", "-", name.partition("torchvision:")[2] or name).strip("-. ")
    return plain or "photos"


def _absolute(photos: str) -> str:
    is_place = "://" not in photos and not photos.startswith("torchvision:")
    return str(Path(photos).absolute()) if is_place else photos


def talk() -> None:
    """One line a stage on the screen."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("regraft")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
