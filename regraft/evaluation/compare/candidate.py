"""A backbone in one word: a source, and for a file what it is for and which one it must be."""

import re

from pydantic import ValidationError

from regraft.core.config import BackboneConfig
from regraft.core.errors import ConfigError

_ARCHITECTURE = re.compile(r"@(?=(?:timm|torchvision):)")


def config_of(candidate: str) -> BackboneConfig:
    """The configuration that one candidate means.

    Args:
        candidate: bundled:NAME, timm:NAME, torchvision:NAME[/WEIGHTS], bundle:URL, or
            file:PATH@ARCHITECTURE[@SHA256] with timm:NAME or torchvision:NAME as architecture.

    Raises:
        ConfigError: it is none of these.

    >>> config_of("file:mine.safetensors@timm:resnet18").architecture
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


def settings_of(candidate: str) -> tuple[str, ...]:
    """What --set must be given for a training that starts from the candidate.

    >>> settings_of("file:mine.safetensors@timm:resnet18")
    ('backbone.source=file:mine.safetensors', 'backbone.architecture=timm:resnet18')
    """
    fields = config_of(candidate).model_dump(include={"source", "architecture", "sha256"})
    return tuple(f"backbone.{name}={value}" for name, value in fields.items() if value)


def label_of(candidate: str) -> str:
    """The candidate for a picture: of a file, its name and what it is for.

    >>> label_of("file:/far/away/mine.safetensors@timm:resnet18")
    'mine.safetensors (timm:resnet18)'
    """
    config = config_of(candidate)
    name = config.source.rstrip("/").rpartition("/")[2]
    return f"{name} ({config.architecture})" if config.architecture else name


def _expected(candidate: str) -> str:
    return (
        "Expected each backbone as bundled:NAME, timm:NAME, torchvision:NAME[/WEIGHTS], bundle:URL "
        f"or file:PATH@ARCHITECTURE (timm:NAME or torchvision:NAME), got {candidate!r}."
    )
