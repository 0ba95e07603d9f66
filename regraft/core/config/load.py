"""The whole configuration, read from a YAML file and overrides, with readable error messages."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, field_validator

from regraft.core.config.network import (
    INSTALLED,
    BackboneConfig,
    EmbedConfig,
    FreezeConfig,
    TuneConfig,
)
from regraft.core.config.photos import IngestConfig, SplitConfig
from regraft.core.config.retraining import BatchConfig, DriftConfig, NotifyConfig, RetrainConfig
from regraft.core.config.section import Section
from regraft.core.config.service import (
    BehaviourConfig,
    ClassesConfig,
    EvaluateConfig,
    PredictConfig,
    PromoteConfig,
    RegistryConfig,
    TrackingConfig,
)
from regraft.core.errors import ConfigError


class Config(Section):
    """The configuration of a training run."""

    ingest: IngestConfig = IngestConfig()
    split: SplitConfig = SplitConfig()
    backbone: BackboneConfig = BackboneConfig()
    freeze: FreezeConfig = FreezeConfig()
    embed: EmbedConfig = EmbedConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    registry: RegistryConfig = RegistryConfig()
    classes: ClassesConfig = ClassesConfig()
    behaviour: BehaviourConfig = BehaviourConfig()
    predict: PredictConfig = PredictConfig()
    promote: PromoteConfig = PromoteConfig()
    drift: DriftConfig = DriftConfig()
    batch: BatchConfig = BatchConfig()
    retrain: RetrainConfig = RetrainConfig()
    notify: NotifyConfig = NotifyConfig()
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("backbone")
    @classmethod
    def _check_bundled(cls, backbone: BackboneConfig) -> BackboneConfig:
        # Here and not in the section: an unknown candidate of a comparison is only left out.
        if backbone.source.startswith("bundled:") and backbone.source not in INSTALLED:
            raise ValueError(
                f"source: expected one of {', '.join(INSTALLED)}, got {backbone.source!r}"
            )
        return backbone

    def flat(self) -> dict[str, str]:
        """Return every value that a model may depend on as text, by "section.field".

        The section notify is excluded: receivers of notifications must not appear in a model card.
        """
        sections = self.model_dump(mode="json", exclude={"notify"}).items()
        return {
            f"{name}.{key}": _text(v) for name, section in sections for key, v in section.items()
        }


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _parsed(text: str) -> object:
    try:
        return yaml.safe_load(text)  # reads JSON too
    except yaml.YAMLError:
        return text  # the validation of the field will fail


def load_config(path: Path | None, overrides: tuple[str, ...] = ()) -> Config:
    """Return the configuration: the defaults, then the YAML file, then the overrides.

    Args:
        path: YAML file, or None for the defaults.
        overrides: each "section.field=value"; the value is parsed as YAML ("5", "true",
            "[0.1, 1]"). An empty value clears a text, a list or a table.

    Raises:
        ConfigError: the file does not exist or is not YAML, a key is unknown (the message suggests
            the closest key), or a value is invalid.

    >>> load_config(None, ("tune.epochs=3",)).tune.epochs
    3
    """
    raw = _read_yaml(path) if path else {}
    for override in overrides:
        raw = _with_override(raw, override)
    return _validated(raw, str(path) if path else "--set")


def fill_empty(config: Config, values: Mapping[str, str]) -> Config:
    """Return the configuration with {"section.field": value} set for each field that is empty.

    Raises:
        ConfigError: a value is invalid.
    """
    raw = config.model_dump()
    for dotted, value in values.items():
        section, field = dotted.split(".")
        raw[section][field] = raw[section][field] or value
    return _validated(raw, "command line")


def apply_overrides(config: Config, overrides: tuple[str, ...]) -> Config:
    """Return the configuration with `section.field=value` overrides, as in load_config().

    Raises:
        ConfigError: a key is unknown (the message suggests the closest key), or a value is invalid.
    """
    raw = config.model_dump()
    for override in overrides:
        raw = _with_override(raw, override)
    return _validated(raw, "--set")


def config_from_flat(flat: Mapping[str, str]) -> Config:
    """Return the configuration from the output of flat(); missing fields have their defaults.

    Args:
        flat: as stored in a model card; keys that no longer exist are ignored. The section notify
            is ignored too: flat() does not write it, and a target runs a command, so that a card
            from elsewhere could.

    Raises:
        ConfigError: a value is invalid.

    >>> config_from_flat(load_config(None, ("tune.head_l2=[0.1, 1]",)).flat()).tune.head_l2
    (0.1, 1.0)
    """
    raw: dict[str, Any] = {}
    defaults = Config()
    for dotted, text in flat.items():
        section, _, field = dotted.partition(".")
        if section != "notify" and field in _known_keys([section]):
            kind = type(getattr(defaults, section).model_dump(mode="json")[field])
            raw.setdefault(section, {})[field] = _parsed(text) if kind in (list, dict) else text
    return _validated(raw, "the model's card")


def _validated(raw: dict[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explain(error, where)) from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that rejects duplicate keys; PyYAML would silently use the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        duplicates = [key for key in keys if keys.count(key) > 1]
        if duplicates:
            problem = f"the key {duplicates[0]!r} occurs twice"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(
            f"Expected a YAML file at {path}, got none ({error.strerror}). For examples, see "
            f"configs/."
        ) from None
    except yaml.MarkedYAMLError as error:
        # str(error) would quote the line, and the line may contain a password.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            f"{path} is not valid YAML: line {line}, {error.problem}. Correct that line."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(
            f"Expected YAML in {path}, got binary content. Save the file as UTF-8."
        ) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"Expected sections such as 'tune:' in {path}, got {type(raw).__name__}.")
    return raw


def _with_override(raw: dict[str, Any], override: str) -> dict[str, Any]:
    dotted, equals, text = override.partition("=")
    section, dot, field = dotted.partition(".")
    if not (equals and dot):
        raise ConfigError(f"Expected --set section.field=value, got {dotted!r}.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"The value in --set {dotted}=... is not valid YAML; quote it.") from None
    if not text.strip():
        value = _cleared(section, field)
    inner = raw.get(section)
    return raw | {section: (inner if isinstance(inner, dict) else {}) | {field: value}}


def _cleared(section: str, field: str) -> object:
    """Return the empty value of a field; None for an unknown key, which validation refuses.

    Raises:
        ConfigError: the field has no empty value.
    """
    if field not in _known_keys([section]):
        return None
    default = getattr(getattr(Config(), section), field)
    if isinstance(default, str | tuple | dict):
        return type(default)()
    kind = "true or false" if isinstance(default, bool) else "a number"
    raise ConfigError(
        f"Expected {kind} in --set {section}.{field}=..., got nothing: only a text, a list or a "
        f"table can be cleared. For the default, --set {section}.{field}={_text(default)}."
    )


def _explain(error: ValidationError, where: str) -> str:
    return "\n".join(_explain_one(dict(item), where) for item in error.errors())


def _explain_one(item: dict[str, Any], where: str) -> str:
    location = [str(part) for part in item["loc"]]
    dotted = ".".join(location)
    if item["type"] != "extra_forbidden":
        message = item["msg"].removeprefix("Value error, ")
        # A notification target may contain a token; its errors may reach the journal.
        is_shown = item["type"] != "value_error" and location[:1] != ["notify"]
        got = f" (got {item.get('input')!r})" if is_shown else ""
        return f"{where}: {dotted}: {message}{got}."
    known = _known_keys(location[:-1])
    near = difflib.get_close_matches(location[-1], known, n=1)
    hint = f" Did you mean {'.'.join([*location[:-1], near[0]])}?" if near else ""
    return f"{where}: unknown key {dotted}.{hint} Known keys: {', '.join(known)}."


def _known_keys(location: list[str]) -> list[str]:
    if location:
        known = Config.model_fields.get(location[0])
        section = known.annotation if known else None
        return list(section.model_fields) if section and issubclass(section, Section) else []
    return list(Config.model_fields)
