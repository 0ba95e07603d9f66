"""The whole configuration: frozen, strict, checked before torch or zenml is imported.

Every field has a unit, a range and the source of its default. Defaults live here only; a YAML file
in configs/ says what differs. No environment variable changes a result.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from regraft.errors import ConfigError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
BACKBONE_SOURCES = ("bundled", "torchvision", "timm", "file", "bundle")
Rule = tuple[str, Annotated[float, Field(ge=0.0, le=100.0)]]


def refuse_password(url: str) -> str:
    """The URL unchanged; a configuration is stored in plain text, so it may hold no password."""
    if re.search(r"(^|:)[\w+.-]+://[^/@\s]*:[^/@\s]+@", url):
        raise ValueError("holds a password; give it to the client library, not here")
    return url


Url = Annotated[str, AfterValidator(refuse_password), Field(description="local path or fsspec URL")]
_CANDIDATE = r"^((bundled|torchvision|timm|bundle):.+|file:.+@(timm|torchvision):.+@[0-9a-f]{64})$"
Candidate = Annotated[str, AfterValidator(refuse_password), Field(pattern=_CANDIDATE)]
INSTALLED = ("bundled:efficientnet_lite0", "bundled:efficientnet_lite2")


class Section(BaseModel):
    """A part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IngestConfig(Section):
    """What is read, and when the reading gives up.

    photos: folder, CSV/Parquet manifest, or torchvision:NAME; local path or fsspec URL.
    max_pixels: pixels a photo, >= 1. Source: Pillow's own decompression-bomb limit.
    max_quarantine_fraction: share of the photos that may be unusable, in [0, 1]. Guess.
    n_workers: threads that decode, 0 = one a core.
    images_url: where photos that are no files (torchvision arrays) are written as PNG.
    memory_url: folder that remembers what each photo was found to be: only new ones are decoded.
    torchvision_root: local folder, the `root` of its data sets; "" = the system's, then download.
    """

    photos: Url = ""
    max_pixels: Annotated[int, Field(ge=1)] = 89_478_485
    max_quarantine_fraction: Fraction = 0.1
    n_workers: Annotated[int, Field(ge=0, le=256)] = 0
    images_url: Url = ""
    memory_url: Url = ""
    torchvision_root: str = ""


class SplitConfig(Section):
    """Which photo is trained on, which chooses, which judges.

    test_fraction, validation_fraction: shares of each class, used where no split is given. Guess.
    salt: another salt, another split of the same photos; leave it alone where a memory is kept.
    on_leak: what becomes of a photo whose copy stands on another side: dropped from the side that
        judges less (train before validation before test), an error, or kept.
    near_duplicate_bits: perceptual hashes (64 bits) at most this far apart are candidates for
        "nearly the same photo", in [0, 16]; the thumbnails decide. 0: exact copies only. Guess.
    memory_url: folder that remembers which side a photo was given, so that it never moves.
    """

    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    salt: str = ""
    on_leak: Literal["drop", "error", "keep"] = "drop"
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = 4
    memory_url: Url = ""

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if self.test_fraction + self.validation_fraction >= 1.0:
            raise ValueError("test_fraction + validation_fraction must stay below 1")
        return self


class BackboneConfig(Section):
    """Where the pretrained weights come from.

    source: bundled:NAME | torchvision:NAME[/WEIGHTS] | timm:NAME | file:PATH | champion (warm
        start; the command turns it into bundle:URL before the run) | auto (the fastest of the
        candidates that is not shown to be worse than the best).
    candidates: of auto; a file as file:PATH@ARCHITECTURE@SHA256, or a cache would miss its change.
    architecture: for file: only, timm:NAME or torchvision:NAME.
    sha256: if given, the weights file must have it.
    """

    source: Annotated[str, AfterValidator(refuse_password)] = "bundled:efficientnet_lite0"
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)] = INSTALLED
    architecture: str = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _names_a_source(self) -> Self:
        kind, _, name = self.source.partition(":")
        named = kind in BACKBONE_SOURCES and name
        if self.source not in ("champion", "auto") and not named:
            raise ValueError(
                "expected source as bundled:NAME, torchvision:NAME[/WEIGHTS], timm:NAME, "
                f"file:PATH, champion or auto, got {self.source!r}"
            )
        if self.source == "auto" and self.sha256:
            raise ValueError("auto takes no backbone.sha256; give it with each file of candidates")
        if kind == "file" and not self.architecture:
            raise ValueError(
                "a file says not what it is for: set backbone.architecture to timm:NAME or "
                "torchvision:NAME"
            )
        return self


class FreezeConfig(Section):
    """What is thawed.

    policy: probe = the head only; last_block, last_n = the last 1 / n blocks too; all = everything;
        rules = your own.
    n_blocks: for last_n, >= 1.
    layer_decay: lr factor from a thawed block to the one before it, in (0, 1]. Source: BEiT (Bao et
        al. 2022) uses 0.65-0.75 for small models.
    norm_statistics: of thawed blocks: still = as pretrained; moving = they follow the new photos.
        Still: as Keras's guide to transfer learning advises; on 246 photos moving ones were worse
        (one trial).
    rules: for policy "rules": ordered (glob, lr_factor), first match wins, 0 = frozen.
    """

    policy: Literal["probe", "last_block", "last_n", "all", "rules"] = "probe"
    n_blocks: Annotated[int, Field(ge=1)] = 1
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    norm_statistics: Literal["still", "moving"] = "still"
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _rules_belong_to_their_policy(self) -> Self:
        if (self.policy == "rules") != bool(self.rules):
            raise ValueError(
                "policy rules needs freeze.rules and the others none, such as "
                "[['head.*', 1], ['backbone.blocks.6.*', 0.1], ['*', 0]]"
            )
        return self


class EmbedConfig(Section):
    """Where what the frozen network makes of each photo is kept, so that it is computed once.

    store_url: folder of the store; several projects and machines may share one.
    max_gb: what it may hold, in 1e9 bytes, > 0; what was not used longest goes first. Guess.
    """

    store_url: Url = ""
    max_gb: Annotated[float, Field(gt=0.0)] = 20.0


class TuneConfig(Section):
    """How the thawed part is trained, after the head was solved.

    seed: any integer >= 0; with what a training says it was trained as, it decides the weights.
    epochs: passes over the training photos for the thawed part, >= 0.
    batch_size: photos a step, >= 2 (norms need two). 32: Masters & Luschi 2018.
    lr: of the head; a block's is lr * its factor in the plan. Guess, measured on two data sets.
    weight_decay: AdamW's. Source: torch's own default.
    warmup_fraction: share of the steps with a rising lr. Source: Goyal et al. 2017, rounded.
    label_smoothing: in [0, 1). Source: Szegedy et al. 2016 (0.1).
    mixup_alpha, cutmix_alpha: Beta parameters, 0 = off. Off: they need long schedules.
    class_weights: balanced = a class's loss weighs N / (K * n_class).
    augment: light = random crop of half to all of the photo, mirrored half of the time.
    cached_views: of each training photo, what the frozen part makes of this many random views is
        computed once, and the epochs take turns; 0 = a new view, and a whole pass, in each epoch.
        2: no loss was seen against 4 or 0, docs/performance.md.
    ema_decay: a step's, 0 = off. Guess for short schedules.
    clip_norm: gradient norm, 0 = off. 1.0: GPT-3's and timm's usual value.
    patience: epochs without a better validation loss before the phase stops, 0 = never.
    time_budget_s: seconds for the thawed part, 0 = none; stops after the epoch that passes it.
    precision: auto = bf16 where the device computes in it.
    device: auto = cuda if there is one.
    head_l2: candidate L2 penalties for the head, each > 0; the validation loss chooses. Guess, a
        wide grid.
    checkpoint_url: where an interrupted training is resumed from.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=0)] = 8
    batch_size: Annotated[int, Field(ge=2)] = 32
    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    warmup_fraction: Fraction = 0.1
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    mixup_alpha: Annotated[float, Field(ge=0.0)] = 0.0
    cutmix_alpha: Annotated[float, Field(ge=0.0)] = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    cached_views: Annotated[int, Field(ge=0)] = 2
    augment: Literal["none", "light"] = "light"
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    clip_norm: Annotated[float, Field(ge=0.0)] = 1.0
    patience: Annotated[int, Field(ge=0)] = 4
    time_budget_s: Annotated[float, Field(ge=0.0)] = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    head_l2: Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=1)] = (
        1e-3,
        1e-2,
        1e-1,
        1.0,
    )
    checkpoint_url: Url = ""


class EvaluateConfig(Section):
    """How the challenger is judged.

    top_k: a hit if the label is among the k most probable, >= 2.
    confidence: of every interval, in (0, 1).
    n_bins: of the calibration error. Source: Guo et al. 2017 (15).
    n_gallery: photos shown of each kind in the report, in [0, 60].
    max_slice_values: a manifest column with more values than this is no slice, >= 2. Guess.
    """

    top_k: Annotated[int, Field(ge=2)] = 3
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    n_bins: Annotated[int, Field(ge=2)] = 15
    n_gallery: Annotated[int, Field(ge=0, le=60)] = 12
    max_slice_values: Annotated[int, Field(ge=2)] = 20


class TrackingConfig(Section):
    """The MLflow store and what the model is called in it.

    uri: MLflow tracking URI, without a password (MLflow reads that from its own variables).
    artifacts_url: folder of the runs' files and of the models; "" = the server's own.
    name: of the experiment and of the registered model.
    """

    uri: Url = ""
    artifacts_url: Url = ""
    name: Annotated[str, Field(pattern=r"^([\w][\w. -]*)?$", max_length=100)] = ""


class RegistryConfig(Section):
    """What is checked before a registration counts.

    n_parity: test photos on which the reloaded model must answer as the trained one, >= 1.
    parity_tolerance: largest difference of a probability. Guess: far below any decision.
    """

    n_parity: Annotated[int, Field(ge=1)] = 8
    parity_tolerance: Annotated[float, Field(gt=0.0)] = 1e-4


class PromoteConfig(Section):
    """When the challenger replaces the champion.

    min_accuracy: floor for any champion, in [0, 1]; the majority-class share is always a floor.
    min_gain: the challenger must be more accurate by more than this; 0: a tie keeps the champion.
    reports_url: folder of the report pages.
    """

    min_accuracy: Fraction = 0.0
    min_gain: Fraction = 0.0
    reports_url: Url = ""


class Config(Section):
    """One training run."""

    ingest: IngestConfig = IngestConfig()
    split: SplitConfig = SplitConfig()
    backbone: BackboneConfig = BackboneConfig()
    freeze: FreezeConfig = FreezeConfig()
    embed: EmbedConfig = EmbedConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    registry: RegistryConfig = RegistryConfig()
    promote: PromoteConfig = PromoteConfig()
    tracking: TrackingConfig = TrackingConfig()

    def flat(self) -> dict[str, str]:
        """Every value as text, by "section.field"."""
        sections = self.model_dump(mode="json").items()
        return {f"{name}.{key}": str(v) for name, part in sections for key, v in part.items()}


def load_config(path: Path | None, overrides: tuple[str, ...] = ()) -> Config:
    """The defaults, changed by a YAML file, changed by `a.b=value` overrides.

    Args:
        path: YAML file, or None for the defaults.
        overrides: each "section.field=value"; the value is read as YAML ("5", "true", "[0.1, 1]").

    Raises:
        ConfigError: no such file, no YAML, an unknown key (with the nearest), a bad value.

    >>> load_config(None, ("tune.epochs=3",)).tune.epochs
    3
    """
    raw = _read_yaml(path) if path else {}
    for override in overrides:
        raw = _with_override(raw, override)
    return _validated(raw, str(path) if path else "--set")


def override_all(config: Config, values: Mapping[str, str]) -> Config:
    """The configuration with {"section.field": value} set where the field is still empty.

    Raises:
        ConfigError: a value that its field refuses.
    """
    raw = config.model_dump()
    for dotted, value in values.items():
        section, field = dotted.split(".")
        raw[section][field] = raw[section][field] or value
    return _validated(raw, "command line")


def _validated(raw: dict[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explain(error, where)) from None


class _OnceLoader(yaml.SafeLoader):
    """YAML in which a key stands once: PyYAML would keep the last and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            problem = f"the key {twice[0]!r} stands there twice"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(
            f"Expected a YAML file at {path}, found none ({error.strerror}). See configs/."
        ) from None
    except yaml.MarkedYAMLError as error:
        # str(error) would quote the line, and the line may hold a password.
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            f"{path} is not YAML: line {line}, {error.problem}. Mend that line."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{path} is not YAML but something binary. Save it as UTF-8.") from None
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
        raise ConfigError(f"The value in --set {dotted}=... is not YAML; quote it.") from None
    inner = raw.get(section)
    return raw | {section: (inner if isinstance(inner, dict) else {}) | {field: value}}


def _explain(error: ValidationError, where: str) -> str:
    return "\n".join(_explain_one(dict(item), where) for item in error.errors())


def _explain_one(item: dict[str, Any], where: str) -> str:
    location = [str(part) for part in item["loc"]]
    dotted = ".".join(location)
    if item["type"] != "extra_forbidden":
        message = item["msg"].removeprefix("Value error, ")
        got = "" if item["type"] == "value_error" else f" (got {item.get('input')!r})"
        return f"{where}: {dotted}: {message}{got}."
    known = _known_keys(location[:-1])
    near = difflib.get_close_matches(location[-1], known, n=1)
    hint = f"did you mean {'.'.join([*location[:-1], near[0]])}? " if near else ""
    return f"{where}: no key {dotted}; {hint}Known here: {', '.join(known)}."


def _known_keys(location: list[str]) -> list[str]:
    if location:
        section = Config.model_fields[location[0]].annotation
        return list(section.model_fields) if section and issubclass(section, Section) else []
    return list(Config.model_fields)
