"""The whole configuration: frozen, strict, checked before torch or zenml is imported.

Every field has a unit, a range and the source of its default. Defaults live here only; a YAML file
in configs/ says what differs. No environment variable changes a result.
"""

from regraft.core.config.load import Config, config_of, load_config, override_all, with_settings
from regraft.core.config.network import (
    INSTALLED,
    BackboneConfig,
    EmbedConfig,
    FreezeConfig,
    TuneConfig,
)
from regraft.core.config.photos import IngestConfig, SplitConfig
from regraft.core.config.retraining import (
    BatchConfig,
    DriftConfig,
    Happening,
    NotifyConfig,
    RetrainConfig,
    Target,
)
from regraft.core.config.section import Fraction, Section, Url, refuse_password
from regraft.core.config.service import (
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
    "BatchConfig",
    "BehaviourConfig",
    "ClassesConfig",
    "Config",
    "DriftConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "Fraction",
    "FreezeConfig",
    "Happening",
    "IngestConfig",
    "NotifyConfig",
    "PredictConfig",
    "PromoteConfig",
    "RegistryConfig",
    "RetrainConfig",
    "Section",
    "SplitConfig",
    "Target",
    "TrackingConfig",
    "TuneConfig",
    "Url",
    "config_of",
    "load_config",
    "override_all",
    "refuse_password",
    "with_settings",
]
