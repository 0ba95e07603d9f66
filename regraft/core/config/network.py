"""The sections about the network: where it comes from, what is thawed, how it is trained."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from regraft.core.config.section import Fraction, Section, Url, refuse_password

BACKBONE_SOURCES = ("bundled", "torchvision", "timm", "file", "bundle")
Rule = tuple[str, Annotated[float, Field(ge=0.0, le=100.0)]]
_CANDIDATE = r"^((bundled|torchvision|timm|bundle):.+|file:.+@(timm|torchvision):.+@[0-9a-f]{64})$"
Candidate = Annotated[str, AfterValidator(refuse_password), Field(pattern=_CANDIDATE)]
INSTALLED = ("bundled:efficientnet_lite0", "bundled:efficientnet_lite2")


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
