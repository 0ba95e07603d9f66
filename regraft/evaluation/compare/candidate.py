"""A backbone as a single string: its source, and for a file also its architecture and sha256."""

import re

from pydantic import ValidationError

from regraft.core.config import BackboneConfig
from regraft.core.errors import ConfigError

_ARCHITECTURE = re.compile(r"@(?=(?:timm|torchvision):)")


def parse_candidate(candidate: str) -> BackboneConfig:
    """Return the configuration of a candidate.

    Args:
        candidate: bundled:NAME, timm:NAME, torchvision:NAME[/WEIGHTS], bundle:URL, or
            file:PATH@ARCHITECTURE[@SHA256] with timm:NAME or torchvision:NAME as architecture.

    Raises:
        ConfigError: it has another form.

    >>> parse_candidate("file:mine.safetensors@timm:resnet18").architecture
    'timm:resnet18'
    """
    source, *rest = _ARCHITECTURE.split(candidate, maxsplit=1)
    architecture, _, sha256 = "".join(rest).partition("@")
    try:
        config = BackboneConfig(source=source, architecture=architecture, sha256=sha256)
    except ValidationError:
        raise ConfigError(_expected(candidate)) from None
    if source in ("auto", "champion"):
        raise ConfigError(_expected(candidate))
    return config


def config_overrides(candidate: str) -> tuple[str, ...]:
    """Return the values of --set for a training that starts from the candidate.

    >>> config_overrides("file:mine.safetensors@timm:resnet18")
    ('backbone.source=file:mine.safetensors', 'backbone.architecture=timm:resnet18')
    """
    fields = parse_candidate(candidate).model_dump(include={"source", "architecture", "sha256"})
    return tuple(f"backbone.{name}={value}" for name, value in fields.items() if value)


def short_name(candidate: str) -> str:
    """Return the candidate's name for a picture: of a file, its name and its architecture.

    >>> short_name("file:/far/away/mine.safetensors@timm:resnet18")
    'mine.safetensors (timm:resnet18)'
    """
    config = parse_candidate(candidate)
    name = config.source.rstrip("/").rpartition("/")[2]
    return f"{name} ({config.architecture})" if config.architecture else name


def _expected(candidate: str) -> str:
    return (
        "Expected each backbone as bundled:NAME, timm:NAME, torchvision:NAME[/WEIGHTS], bundle:URL "
        f"or file:PATH@ARCHITECTURE (timm:NAME or torchvision:NAME), got {candidate!r}."
    )
