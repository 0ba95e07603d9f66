"""The whole configuration: frozen, strict, checked before torch or zenml is imported.

Every field has a unit, a range and the source of its default. Defaults live here only; a YAML file
in configs/ says what differs. No environment variable changes a result.
"""

from regraft.config.load import Config, config_of, load_config, override_all, with_settings
from regraft.config.network import (
    INSTALLED,
    BackboneConfig,
    EmbedConfig,
    FreezeConfig,
    TuneConfig,
)
from regraft.config.photos import IngestConfig, SplitConfig
from regraft.config.section import Fraction, Section, Url, refuse_password
from regraft.config.service import (
    BehaviourConfig,
    ClassesConfig,
    EvaluateConfig,
    PredictConfig,
    PromoteConfig,
    RegistryConfig,
    TrackingConfig,
)

__all__ = [
    "INSTALLED",
    "BackboneConfig",
    "BehaviourConfig",
    "ClassesConfig",
    "Config",
    "EmbedConfig",
    "EvaluateConfig",
    "Fraction",
    "FreezeConfig",
    "IngestConfig",
    "PredictConfig",
    "PromoteConfig",
    "RegistryConfig",
    "Section",
    "SplitConfig",
    "TrackingConfig",
    "TuneConfig",
    "Url",
    "config_of",
    "load_config",
    "override_all",
    "refuse_password",
    "with_settings",
]
