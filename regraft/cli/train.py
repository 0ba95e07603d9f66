"""regraft train: a folder of labelled photos becomes a judged champion."""

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.mirror import show_on_page
from regraft.cli.options import DEFAULT_STATE, ConfigOption, SetOption, StateOption, is_debug
from regraft.core.config import Config, config_of, load_config, override_all, with_settings

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse

    from regraft.core.state import State
    from regraft.promotion import Verdict


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
    from regraft.core.state import activate, open_state

    state = open_state(root, is_debug())
    activate(state)
    talk()
    _run(completed(wanted, photos, name, state), state)


def completed(wanted: Config, photos: str, name: str, state: "State") -> Config:
    """The configuration with every place and name that the user left open."""
    name = name or wanted.tracking.name or model_name(photos)
    named = f"tracking.name={json.dumps(name)}"  # what was said on the command line wins
    where = {"ingest.photos": _absolute(photos), **_places(state, name)}
    if wanted.ingest.inbox:
        inbox = f"ingest.inbox={json.dumps(_absolute(wanted.ingest.inbox))}"
        wanted = with_settings(wanted, (inbox,))
    return override_all(with_settings(wanted, (named,)), where)


def remembered(settings: dict[str, str], state: "State") -> Config:
    """The configuration that a model was made under, with the places of this state folder.

    Args:
        settings: as the model's card keeps them. Places behind a URL stay; local ones may be those
            of another machine, or of a folder that was moved.
    """
    from regraft.core.files import is_url

    here = {place for place in _places(state, "") if not is_url(settings.get(place, ""))}
    left_out = here | {"tracking.uri", "tracking.artifacts_url", "tracking.name"}
    return config_of({key: text for key, text in settings.items() if key not in left_out})


def _places(state: "State", name: str) -> dict[str, str]:
    return {
        "ingest.images_url": str(state.images),
        "ingest.memory_url": str(state.photos),
        "split.memory_url": str(state.splits / name),
        "embed.store_url": str(state.embeddings),
        "tune.checkpoint_url": str(state.checkpoints),
        "tracking.uri": state.tracking_uri,
        "tracking.artifacts_url": str(state.mlflow_artifacts),
        "promote.reports_url": str(state.reports),
        "retrain.journal_url": str(state.journal),
    }


def _run(config: Config, state: "State") -> None:
    from regraft.data.ingest import fingerprint

    seen = fingerprint(config.ingest)
    with ready_to_run(config, state) as run_name:
        from pipelines.train import train as pipeline
        from regraft.cli.summary import summarise

        run = pipeline.with_options(run_name=run_name)(_pinned(config), seen)
    typer.echo(summarise(run, config, state))
    ask_if_it_waits(run, config, state)
    show_on_page(state)


def ask_if_it_waits(run: "PipelineRunResponse", config: Config, state: "State") -> None:
    """Begins the run that waits for somebody's answer, where the verdict asks for one."""
    verdict: Verdict = run.steps["promote"].output.load()
    if verdict.waits:
        from pipelines.approval import start_approval

        start_approval(verdict, config.tracking, state, datetime.now(UTC))


@contextmanager
def ready_to_run(config: Config, state: "State") -> Iterator[str]:
    """The name of a pipeline run that this process may start now; its marker stays meanwhile."""
    from pipelines.doctor import sweep_missing, sweep_stuck, sweep_tracked
    from pipelines.stack import bootstrap, hush
    from regraft.core.state import run_marker

    bootstrap(state)
    if not state.debug:
        hush()
    now = datetime.now(UTC)
    sweep_stuck(state, now)
    sweep_tracked(config.tracking)
    sweep_missing()
    run_name = f"{config.tracking.name}-{now:%Y%m%d-%H%M%S}-{os.getpid()}"
    with run_marker(state, run_name):
        yield run_name


def _pinned(config: Config) -> Config:
    """The backbone's source as it is today: a step sees its name only, and caches by it.

    "champion" becomes the bundle that it means now, and a file gets the sha256 of its content.
    """
    if config.backbone.source == "champion":
        from regraft.registry import find

        bundle = find(config.tracking, config.tracking.name).bundle_url
        backbone = config.backbone.model_copy(update={"source": f"bundle:{bundle}"})
    else:
        from regraft.model.backbone import pinned

        backbone = pinned(config.backbone)
    return config.model_copy(update={"backbone": backbone})


def model_name(photos: str) -> str:
    """What a model of these photos is called if nobody says: as their folder, or the like."""
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
