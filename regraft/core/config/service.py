"""The sections about what serves: how it is judged, registered, promoted and asked."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from regraft.core.config.section import Fraction, Section, Url


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

    @model_validator(mode="after")
    def _is_no_ledger(self) -> Self:
        if self.name.endswith(".ledger"):
            raise ValueError("tracking.name may not end in .ledger: so the ledgers are called")
        return self


class RegistryConfig(Section):
    """What is checked before a registration counts.

    n_parity: test photos on which the reloaded model must answer as the trained one, >= 1.
    parity_tolerance: largest difference of a probability. Guess: far below any decision.
    """

    n_parity: Annotated[int, Field(ge=1)] = 8
    parity_tolerance: Annotated[float, Field(gt=0.0)] = 1e-4


class BehaviourConfig(Section):
    """What a model must do beyond the test photos, before it may serve.

    must_pass: photos that have to be answered rightly, all of them: a folder with a folder a class,
        or a manifest; "" = none. They must be none that were trained on.
    n_photos: test photos that the changes below are tried on, in [0, 1000]; 0 = none. Guess.
    min_flip, min_jpeg, min_brightness, min_rotation: least share of photos whose answer stays the
        same when the photo is mirrored, saved as a poor JPEG, made darker or brighter, turned a
        little; a model stops that is shown to have less. Guess: probes on clothes had 0.88 to 0.93,
        on waste 0.75 to 0.90. Where left and right mean something, set min_flip to 0.
    """

    must_pass: Url = ""
    n_photos: Annotated[int, Field(ge=0, le=1000)] = 40
    min_flip: Fraction = 0.7
    min_jpeg: Fraction = 0.7
    min_brightness: Fraction = 0.7
    min_rotation: Fraction = 0.7


class ClassesConfig(Section):
    """How the classes may differ from those of the model that serves.

    renamed: {old name: new name}; such a class keeps its head row and is compared as the same one.
    allow_removal: whether a model may replace one that knows a class more.
    """

    renamed: dict[str, str] = Field(default_factory=dict)
    allow_removal: bool = False

    @model_validator(mode="after")
    def _is_one_to_one(self) -> Self:
        new = list(self.renamed.values())
        if len(set(new)) < len(new):
            raise ValueError("two classes cannot be renamed to the same one")
        return self


class PredictConfig(Section):
    """When a model says "unsure" instead of a class.

    abstain_below: least confidence of an answer, in [0, 1]; 0 = every photo is answered.
    target_risk: instead, the share of answers that may be wrong: the confidence is chosen on
        validation so that the share is shown (95 %) to be lower; 0 = off.
    """

    abstain_below: Fraction = 0.0
    target_risk: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0

    @model_validator(mode="after")
    def _has_one_rule(self) -> Self:
        if self.abstain_below and self.target_risk:
            raise ValueError("set abstain_below or target_risk, not both")
        return self


class PromoteConfig(Section):
    """When the challenger replaces the champion.

    rule: superior = it must be shown to be more accurate by more than min_gain; not_inferior =
        shown to be less accurate by no more than max_loss.
    level: chance of promoting a model that is not so, and of a guard that stops a model which harms
        nothing, each in (0, 0.5). 0.05: the usual one.
    min_gain, max_loss: of accuracy, in [0, 1]. max_loss 0.02: guess.
    power: chance with which the "smallest gain that could have been shown" would have been, in
        [0.5, 1). 0.8: Cohen 1988.
    min_accuracy: floor for any champion, in [0, 1]; the majority-class share is always a floor.
    min_coverage: least share of the photos that a model which may say "unsure" answers. Guess.
    min_photos, min_class_photos: fewer photos, in all or of a class, decide nothing. 20: guess.
    max_recall_drop, max_slice_drop: a class or a slice that is shown to have lost more accuracy
        than this stops the challenger, in [0, 1].
    max_negative_flips: largest share of photos that the champion had right and the challenger has
        wrong, in [0, 1]. 0.1: guess; Yan et al. 2021 saw 4 to 5 % between equal models.
    max_calibration_rise: by how much the calibration error may be shown to have grown. Guess.
    max_ms, max_mb: milliseconds that the network takes for one photo on the machine that judges,
        and 1e6 bytes of weights. 0 = no limit.
    smoke_test: whether a real server must answer the golden photos before the model serves.
    approval: automatic, or human = somebody has to say `regraft approve`.
    reports_url: folder of the report pages.
    """

    rule: Literal["superior", "not_inferior"] = "superior"
    level: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    min_gain: Fraction = 0.0
    max_loss: Fraction = 0.02
    power: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.8
    min_accuracy: Fraction = 0.0
    min_coverage: Fraction = 0.5
    min_photos: Annotated[int, Field(ge=1)] = 20
    min_class_photos: Annotated[int, Field(ge=0)] = 1
    max_recall_drop: Fraction = 0.0
    max_slice_drop: Fraction = 0.0
    max_negative_flips: Fraction = 0.1
    max_calibration_rise: Fraction = 0.05
    max_ms: Annotated[float, Field(ge=0.0)] = 0.0
    max_mb: Annotated[float, Field(ge=0.0)] = 0.0
    smoke_test: bool = True
    approval: Literal["automatic", "human"] = "automatic"
    reports_url: Url = ""
