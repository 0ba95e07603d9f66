"""Complete configurations: what the user left open is filled in from the state folder."""

import json
import re
from pathlib import Path

from regraft.core.config import (
    Config,
    EmbedConfig,
    apply_overrides,
    config_from_flat,
    fill_empty,
)
from regraft.core.errors import ConfigError
from regraft.core.files import is_url
from regraft.core.state import State, fix_places, places


def complete_config(config: Config, photos: str, name: str, state: State) -> Config:
    """Return the configuration with every place and name that the user left open.

    Args:
        photos: folder, manifest or "torchvision:NAME"; a relative path is taken from the working
            directory.
        name: of the model; "" means the configuration's, else default_model_name().

    Raises:
        ConfigError: another tracking store or journal is set than the state folder uses.
    """
    name = name or config.tracking.name or default_model_name(photos)
    overrides = [f"tracking.name={json.dumps(name)}"]  # the command line has priority over a file
    if config.ingest.inbox:
        overrides.append(f"ingest.inbox={json.dumps(absolute_place(config.ingest.inbox))}")
    config = apply_overrides(config, tuple(overrides))
    left_open = fix_places(config, state).settings(name)
    return fill_empty(config, {"ingest.photos": absolute_place(photos), **left_open})


def config_of_model(settings: dict[str, str], state: State) -> Config:
    """Return the configuration that a model was made under, with the places of this state folder.

    Args:
        settings: as the model's card stores them. URLs stay; local places may be those of another
            machine, or of a folder that was moved, and are left open.
    """
    local = {place for place in places(state).settings("") if not is_url(settings.get(place, ""))}
    left_open = local | {"tracking.uri", "tracking.artifacts_url", "tracking.name"}
    return config_from_flat({key: text for key, text in settings.items() if key not in left_open})


def reading_store(config: EmbedConfig, state: State) -> EmbedConfig:
    """Return the store of embeddings for predictions, which evict nothing from it."""
    url = config.store_url or places(state).embeddings
    return config.without_eviction().model_copy(update={"store_url": url})


def reading_config(config: Config, state: State) -> Config:
    """Return the configuration of a command that trains nothing, with the state folder's places."""
    fixed = fix_places(config, state)
    memory = config.ingest.memory_url or fixed.photos
    return config.model_copy(
        update={
            "ingest": config.ingest.model_copy(update={"memory_url": memory}),
            "embed": reading_store(config.embed, state),
            "retrain": config.retrain.model_copy(update={"journal_url": fixed.journal}),
            "tracking": fixed.tracking,
        }
    )


def pin_backbone(config: Config) -> Config:
    """Return the configuration with the backbone's source resolved now.

    A step is cached by the source's name: "champion" becomes the bundle of the current champion,
    and a file gets the sha256 of its content.
    """
    if config.backbone.source == "champion":
        from regraft.registry import find

        bundle = find(config.tracking, config.tracking.name).bundle_url
        backbone = config.backbone.model_copy(update={"source": f"bundle:{bundle}"})
    else:
        from regraft.model.backbone import pinned

        backbone = pinned(config.backbone)
    return config.model_copy(update={"backbone": backbone})


def default_model_name(photos: str) -> str:
    """Return the default name of a model: that of the photos' folder, manifest or data set."""
    place = Path(photos) if "://" in photos else Path(photos).resolve()
    name = place.stem if place.suffix.lower() in (".csv", ".parquet") else place.name
    plain = re.sub(r"[^\w. -]", "-", name.partition("torchvision:")[2] or name).strip("-. ")
    return plain or "photos"


def absolute_place(photos: str) -> str:
    """Return an absolute path; a URL or "torchvision:NAME" stays."""
    is_path = "://" not in photos and not photos.startswith("torchvision:")
    return str(Path(photos).absolute()) if is_path else photos


def check_place(text: str) -> str:
    """Return the place as the user wrote it; it is stored in many files.

    Raises:
        ConfigError: its name is not UTF-8, or it contains a password.
    """
    from regraft.core.config import refuse_password
    from regraft.data.ingest.sources import printable

    shown = printable(text)
    try:
        refuse_password(text)
    except ValueError as error:
        place = f"{shown.partition('://')[0]}://...@{shown.rpartition('@')[2]}"
        raise ConfigError(f"Expected a place without a password: {place} {error}.") from None
    if shown != text:
        raise ConfigError(
            f"Expected a place whose name is UTF-8, got {shown}. Rename it, or set a "
            "locale that is UTF-8: LC_ALL=C.UTF-8. The names of the photos in it may be any bytes."
        )
    return text


def refuse_target_risk(config: Config) -> None:
    """Refuse a setting that only a training can carry out.

    Raises:
        ConfigError: predict.target_risk is set.
    """
    if config.predict.target_risk:
        raise ConfigError(
            f"predict.target_risk={config.predict.target_risk:g} is a setting of trainings: the "
            "confidence is chosen on the validation photos and stored in the model's card, which "
            "applies here. Omit it, or set predict.abstain_below for this call."
        )
