"""The Python API: train, retrain, promote, evaluate, predict, watch and load.

Every function works on a state folder, ".regraft" in the working directory by default: the one
that the command line uses. A process works with one state folder, because ZenML reads its settings
once. Errors are subclasses of regraft.core.errors.RegraftError.

Settings are given by section, as in a YAML file of the command line:

    regraft.train("photos/", freeze={"policy": "probe"}, tune={"epochs": 5})
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.config import Config, apply_overrides, load_config
from regraft.core.errors import ConfigError
from regraft.core.state import places
from regraft.session import known_state, new_state, runner_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from regraft.operations.loaded import LoadedModel
    from regraft.operations.workflows.evaluate import Evaluation
    from regraft.operations.workflows.retrain import Retrained
    from regraft.operations.workflows.train import TrainedModel
    from regraft.operations.workflows.watch import Watched
    from regraft.promotion import Verdict

PathLike = str | os.PathLike[str]
STATE = ".regraft"


def train(
    photos: PathLike,
    *,
    config: Config | PathLike | None = None,
    name: str | None = None,
    state: PathLike = STATE,
    **settings: Mapping[str, object],
) -> "TrainedModel":
    """Train, evaluate and register a model, and promote it only if it proves better.

    Args:
        photos: folder with a subfolder a class, CSV or Parquet manifest, or "torchvision:NAME".
        config: a configuration, or the path of a YAML file; None means the defaults.
        name: of the model; None means that of the photos.
        state: folder of everything that Regraft stores; created if it is new.
        settings: by section, over the configuration.

    Raises:
        RegraftError: the photos, the settings or the training failed.
    """
    complete = _config(config, settings)
    opened = new_state(Path(state))
    from regraft.operations.workflows.settings import complete_config
    from regraft.operations.workflows.train import train as run_workflow

    complete = complete_config(complete, os.fspath(photos), name or "", opened)
    return run_workflow(complete, opened, runner_for(opened))


def retrain(
    photos: PathLike,
    *,
    config: PathLike | None = None,
    name: str | None = None,
    state: PathLike = STATE,
    **settings: Mapping[str, object],
) -> "Retrained":
    """Train again if the photos, their labels, drift or the champion's age give a reason to.

    Args:
        photos, name, state: as for train().
        config: path of a YAML file; None means the settings of the last retraining.
        settings: by section, over the configuration.

    Returns:
        The attempt, which the journal has too, and the model if one was trained.

    Raises:
        AlreadyRunning: another process retrains this model now.
    """
    overrides = _overrides(settings)
    opened = new_state(Path(state))
    from regraft.operations.workflows.retrain import RetrainRequest
    from regraft.operations.workflows.retrain import retrain as run_workflow

    file = None if config is None else Path(config)
    request = RetrainRequest(os.fspath(photos), file, overrides, name or "")
    return run_workflow(request, opened, runner_for(opened))


def promote(
    model: str = "",
    *,
    photos: PathLike | None = None,
    dry_run: bool = False,
    state: PathLike = STATE,
    **settings: Mapping[str, object],
) -> "Verdict":
    """Judge a registered version against the champion, and promote it if it proves better.

    Args:
        model: "name/3", "name@alias" or "name"; "" means the only challenger.
        photos: to judge on; None means those that the version was trained on.
        dry_run: judge, and change nothing.
        settings: by section, over those that the version was made under.
    """
    overrides = _overrides(settings)
    opened = known_state(Path(state))
    from regraft.operations.workflows.promote import dry_run_promotion, promotion_config
    from regraft.operations.workflows.promote import promote as run_workflow
    from regraft.registry import CHALLENGER, resolve

    version = resolve(places(opened).tracking, model, CHALLENGER)
    place = "" if photos is None else os.fspath(photos)
    complete = promotion_config(version, place, None, overrides, opened)
    if dry_run:
        return dry_run_promotion(version, complete)
    return run_workflow(version, complete, opened, runner_for(opened))


def evaluate(
    photos: PathLike,
    *,
    model: str = "",
    state: PathLike = STATE,
    **settings: Mapping[str, object],
) -> "Evaluation":
    """Return the metrics of a registered model on labelled photos; nothing is registered.

    Args:
        photos: as for train(); the labels must be among the model's classes.
        model: "name@alias", "name/3" or "name"; "" means the only champion.
    """
    config = _config(None, settings)
    opened = known_state(Path(state))
    from regraft.operations.workflows.evaluate import evaluate as run_workflow

    return run_workflow(os.fspath(photos), model, config, opened)


def predict(
    photos: "PathLike | Sequence[PathLike]",
    *,
    model: str = "",
    state: PathLike = STATE,
    **settings: Mapping[str, object],
) -> "pd.DataFrame":
    """Label photos with a registered model; an unreadable photo gets the reason instead.

    Args:
        photos: photos, folders of photos or manifests with a column "image"; one or several.
        model: "name@alias", "name/3" or "name"; "" means the only champion.

    Returns:
        A row a photo: path, label, confidence, "prob:CLASS" for each class, error ("" = none),
        model.
    """
    config = _config(None, settings)
    opened = known_state(Path(state))
    from regraft.operations.workflows.predict import predict as run_workflow

    several = [photos] if isinstance(photos, str | os.PathLike) else photos
    return run_workflow([os.fspath(photo) for photo in several], model, config, opened)[1]


def watch(
    photos: PathLike,
    *,
    model: str = "",
    state: PathLike = STATE,
    **settings: Mapping[str, object],
) -> "Watched":
    """Test new photos for a distribution shift against the photos that a model learned from.

    Args:
        photos: folder or manifest; labels are not needed.
        model: "name@alias", "name/3" or "name"; "" means the only champion.
    """
    overrides = _overrides(settings)
    opened = known_state(Path(state))
    from regraft.operations.workflows.watch import watch as run_workflow

    return run_workflow(os.fspath(photos), model, overrides, None, opened)


def load(model: str = "", *, state: PathLike = STATE) -> "LoadedModel":
    """Load a registered model, for images from anywhere.

    Args:
        model: "name@alias", "name/3" or "name"; "" means the only champion.
    """
    opened = known_state(Path(state))
    from regraft import registry
    from regraft.operations.loaded import LoadedModel

    tracking = places(opened).tracking
    version = registry.resolve(tracking, model)
    return LoadedModel(registry.load(tracking, version), f"{version.name}/{version.version}")


def _config(config: Config | PathLike | None, settings: Mapping[str, Any]) -> Config:
    """Return the configuration with the settings over it."""
    overrides = _overrides(settings)
    if isinstance(config, Config):
        return apply_overrides(config, overrides)
    return load_config(None if config is None else Path(config), overrides)


def _overrides(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings as "section.field=value", the form of the command line.

    Raises:
        ConfigError: the value of a section is not a mapping, or cannot be written as JSON.
    """
    overrides = []
    for section, fields in settings.items():
        if not isinstance(fields, Mapping):
            raise ConfigError(
                f"Expected the settings of {section} as a mapping, such as "
                f'{section}={{"field": value}}, got {fields!r}.'
            )
        for field, value in fields.items():
            try:
                text = json.dumps(value)
            except TypeError:
                raise ConfigError(
                    f"Expected a text, number, list or mapping for {section}.{field}, got "
                    f"{type(value).__name__}."
                ) from None
            overrides.append(f"{section}.{field}={text}")
    return tuple(overrides)
