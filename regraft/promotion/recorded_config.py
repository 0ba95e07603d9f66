"""The configuration of a registered model's training, for a training that writes to no memory."""

import json
from pathlib import Path

from regraft.core.config import (
    BackboneConfig,
    Config,
    TrackingConfig,
    config_from_flat,
    load_config,
)
from regraft.core.files import absolute, filesystem
from regraft.core.relocate import rewriter
from regraft.model.card import Card
from regraft.registry.tracking.runs import SQLITE


def recorded_config(card: Card, tracking: TrackingConfig, overrides: tuple[str, ...]) -> Config:
    """Return the card's configuration with today's paths and the overrides."""
    recorded = config_from_flat(_relocated(card.config, tracking))
    flat = recorded.flat() | {"tracking.uri": tracking.uri}
    settings = tuple(f"{key}={_yaml(text)}" for key, text in flat.items())
    config = load_config(None, settings + overrides)
    if config.backbone.source != "auto":
        return config
    info = card.backbone  # the recorded choice; "auto" may choose another backbone today
    is_file = info.source.startswith("file:")
    architecture = info.architecture if is_file else ""
    chosen = BackboneConfig(source=info.source, architecture=architecture)
    return config.model_copy(update={"backbone": chosen})


def _yaml(text: str) -> str:
    """Return a flat value in the syntax of --set: lists and tables unchanged, others quoted."""
    return text if text.startswith(("[", "{")) else json.dumps(text, ensure_ascii=False)


def _relocated(flat: dict[str, str], tracking: TrackingConfig) -> dict[str, str]:
    """Return the flat configuration with the paths of a state folder that was moved."""
    uri = flat.get("tracking.uri", "")
    if uri == tracking.uri or not (uri.startswith(SQLITE) and tracking.uri.startswith(SQLITE)):
        return dict(flat)
    old = Path(uri.removeprefix(SQLITE)).parent
    new = Path(tracking.uri.removeprefix(SQLITE)).parent
    rewrite = rewriter(old, new)
    return {key: str(rewrite(value)) for key, value in flat.items()}


def isolated_config(config: Config, scratch: Path) -> Config:
    """Return the configuration with copies of the memories that a training writes to."""
    split_memory = _copy_memory(config.split.memory_url, scratch / "splits")
    photo_memory = _copy_memory(config.ingest.memory_url, scratch / "photos")
    # With "error" the recorded training had no leaks. Today's come from photos added later.
    on_leak = "drop" if config.split.on_leak == "error" else config.split.on_leak
    split_update = {"memory_url": split_memory, "on_leak": on_leak}
    return config.model_copy(
        update={
            "ingest": config.ingest.model_copy(update={"memory_url": photo_memory}),
            "split": config.split.model_copy(update=split_update),
            "tune": config.tune.model_copy(update={"checkpoint_url": ""}),
            "embed": config.embed.without_eviction(),
            # Other backbone weights are reported as a difference, not as an error.
            "backbone": config.backbone.model_copy(update={"sha256": ""}),
        }
    )


def _copy_memory(url: str, folder: Path) -> str:
    """Return the path of a copy of a memory's Parquet files; "" for a memory that is off."""
    if not url:
        return ""
    files, root = filesystem(absolute(url))
    folder.mkdir()
    for path in files.find(root):
        if path.endswith(".parquet"):
            target = folder / path.removeprefix(root).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files.cat_file(path))
    return str(folder)
