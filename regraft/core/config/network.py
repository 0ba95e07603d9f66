"""Sections about the network: pretrained weights, frozen parameters, embeddings, training."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from regraft.core.config.section import Fraction, Section, Url, refuse_password

BACKBONE_SOURCES = ("bundled", "torchvision", "timm", "file", "bundle")
Rule = tuple[str, Annotated[float, Field(ge=0.0, le=100.0)]]
_CANDIDATE = r"^((bundled|torchvision|timm|bundle):.+|file:.+@(timm|torchvision):.+@[0-9a-f]{64})$"
Candidate = Annotated[str, AfterValidator(refuse_password), Field(pattern=_CANDIDATE)]
_NO_EVICTION_GB = 1e6
INSTALLED = ("bundled:efficientnet_lite0", "bundled:efficientnet_lite2")


class BackboneConfig(Section):
    """Source of the pretrained weights.

    source: bundled:NAME | torchvision:NAME[/WEIGHTS] | timm:NAME | file:PATH | champion (warm
        start; the command replaces it with bundle:URL before the run) | auto (the fastest candidate
        that is not significantly worse than the best candidate).
    candidates: for source auto. A file is given as file:PATH@ARCHITECTURE@SHA256, because the step
        cache would not notice a changed file without its checksum.
    architecture: for a file source only: timm:NAME or torchvision:NAME.
    sha256: expected checksum of the weights file, 64 hex digits; "" = not checked.
    """

    source: Annotated[str, AfterValidator(refuse_password)] = "bundled:efficientnet_lite0"
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)] = INSTALLED
    architecture: str = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        kind, _, name = self.source.partition(":")
        named = kind in BACKBONE_SOURCES and name
        if self.source not in ("champion", "auto") and not named:
            raise ValueError(
                "expected source as bundled:NAME, torchvision:NAME[/WEIGHTS], timm:NAME, "
                f"file:PATH, champion or auto, got {self.source!r}"
            )
        if self.source == "auto" and self.sha256:
            raise ValueError(
                "source auto takes no backbone.sha256; give it with each file in candidates"
            )
        if kind == "file" and not self.architecture:
            raise ValueError(
                "a weights file does not name its architecture: set backbone.architecture to "
                "timm:NAME or torchvision:NAME"
            )
        return self


class FreezeConfig(Section):
    """Which parameters are trained.

    policy: probe = the head only; last_block, last_n = the last 1 / n blocks too; all = all
        parameters; rules = user-defined rules.
    n_blocks: for policy last_n, >= 1.
    layer_decay: factor between the lr of a thawed block and the lr of the preceding block, in
        (0, 1]. Source: BEiT (Bao et al. 2022) uses 0.65-0.75 for small models.
    norm_statistics: normalisation statistics of thawed blocks: still = as pretrained; moving =
        updated by the new photos. Source of still: Keras's guide to transfer learning; on 246
        photos moving statistics were worse (a single trial).
    rules: for policy rules: ordered (glob, lr_factor) pairs; the first match wins, 0 = frozen.
    """

    policy: Literal["probe", "last_block", "last_n", "all", "rules"] = "probe"
    n_blocks: Annotated[int, Field(ge=1)] = 1
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75
    norm_statistics: Literal["still", "moving"] = "still"
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if (self.policy == "rules") != bool(self.rules):
            raise ValueError(
                "policy rules needs freeze.rules, and no other policy accepts them; example: "
                "[['head.*', 1], ['backbone.blocks.6.*', 0.1], ['*', 0]]"
            )
        return self


class EmbedConfig(Section):
    """The store of embeddings, so that each embedding is computed once.

    store_url: folder of the store; several projects and machines may share it.
    max_gb: size limit in 1e9 bytes, > 0; the least recently used partitions are evicted first.
        Guess.
    """

    store_url: Url = ""
    max_gb: Annotated[float, Field(gt=0.0)] = 20.0

    def without_eviction(self) -> Self:
        """Return the store for a command that only adds to it; a training limits its size."""
        return self.model_copy(update={"max_gb": _NO_EVICTION_GB})


class TuneConfig(Section):
    """Training of the thawed part, after the head is solved.

    seed: integer >= 0. The weights depend on the seed and on the recorded training setup only.
    epochs: passes over the training photos for the thawed part, >= 0.
    batch_size: photos per step, >= 2 (normalisation needs two). Source of 32: Masters & Luschi
        2018.
    lr: learning rate of the head, > 0; a block's rate is lr * its factor in the freeze plan. Guess,
        measured on two data sets.
    weight_decay: of AdamW, >= 0. Source: torch's default.
    warmup_fraction: share of the steps with a rising lr, in [0, 1]. Source: Goyal et al. 2017,
        rounded.
    label_smoothing: in [0, 1). Source: Szegedy et al. 2016 (0.1).
    mixup_alpha, cutmix_alpha: Beta parameters, >= 0; 0 = off, because both need long schedules.
    class_weights: balanced = the loss of a class is multiplied by N / (K * n_class).
    augment: light = random crop of half to all of the photo, mirrored with probability 0.5.
    cached_views: random views per training photo, >= 0. The outputs of the frozen part are computed
        once for these views, and the epochs alternate between them. 0 = a new view, and a full
        forward pass, in each epoch. 2: no loss compared with 4 or 0, see docs/performance.md.
    ema_decay: per step, in [0, 1); 0 = off. Guess for short schedules.
    clip_norm: maximum gradient norm, 0 = off. Source of 1.0: GPT-3's and timm's usual value.
    patience: epochs without a better validation loss before training stops, 0 = never.
    time_budget_s: seconds for the thawed part, 0 = no limit; training stops after the epoch that
        exceeds the limit.
    precision: auto = bf16 if the device supports it.
    device: auto = cuda if available.
    head_l2: candidate L2 penalties for the head, each > 0; the validation loss selects the value.
        Guess, a wide grid.
    checkpoint_url: folder of the checkpoints from which an interrupted training resumes.
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
