"""The configuration: frozen, strict, and validated before torch or zenml is imported.

Every field has a unit, a range and the source of its default. Defaults are defined here only; a
YAML file in configs/ lists the differences. No environment variable changes a result.
"""

from regraft.core.config.load import (
    Config,
    apply_overrides,
    config_from_flat,
    fill_empty,
    load_config,
)
from regraft.core.config.network import (
    INSTALLED,
    BackboneConfig,
    EmbedConfig,
    FreezeConfig,
    TuneConfig,
)
from regraft.core.config.photos import IngestConfig, RemoteScheme, SplitConfig
from regraft.core.config.retraining import (
    BatchConfig,
    DriftConfig,
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
from regraft.core.config.strength import weaker_guards

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
    "IngestConfig",
    "NotifyConfig",
    "PredictConfig",
    "PromoteConfig",
    "RegistryConfig",
    "RemoteScheme",
    "RetrainConfig",
    "Section",
    "SplitConfig",
    "Target",
    "TrackingConfig",
    "TuneConfig",
    "Url",
    "apply_overrides",
    "config_from_flat",
    "fill_empty",
    "load_config",
    "refuse_password",
    "weaker_guards",
]
