"""Sections about the served model: evaluation, registry, promotion and prediction."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from regraft.core.config.section import Fraction, Section, Url


class EvaluateConfig(Section):
    """Evaluation of the challenger on the test split.

    top_k: a prediction is a hit if the label is among the k most probable classes, >= 2.
    confidence: level of every confidence interval, in (0, 1).
    n_bins: bins of the calibration error, >= 2. Source: Guo et al. 2017 (15).
    n_gallery: photos per gallery in the report, in [0, 60].
    max_slice_values: a manifest column with more values than this is not a slice, >= 2. Guess.
    """

    top_k: Annotated[int, Field(ge=2)] = 3
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    n_bins: Annotated[int, Field(ge=2)] = 15
    n_gallery: Annotated[int, Field(ge=0, le=60)] = 12
    max_slice_values: Annotated[int, Field(ge=2)] = 20


class TrackingConfig(Section):
    """The MLflow store and the name of the model in it.

    uri: MLflow tracking URI, without a password (MLflow reads the password from its own environment
        variables).
    artifacts_url: folder of the runs' files and of the models; "" = the server decides, or the
        state folder if uri is a database.
    The first uri and artifacts_url are recorded in the state folder and apply to every command.
    name: name of the experiment and of the registered model.
    """

    uri: Url = ""
    artifacts_url: Url = ""
    name: Annotated[str, Field(pattern=r"^([\w][\w. -]*)?$", max_length=100)] = ""

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        if self.name.endswith(".ledger"):
            raise ValueError("tracking.name must not end in .ledger, which is reserved for ledgers")
        return self


class RegistryConfig(Section):
    """Checks of a registered model.

    n_parity: test photos on which the reloaded model must agree with the trained model, >= 1.
    parity_tolerance: largest difference of a probability, > 0. Guess: too small to change a
        decision.
    """

    n_parity: Annotated[int, Field(ge=1)] = 8
    parity_tolerance: Annotated[float, Field(gt=0.0)] = 1e-4


class BehaviourConfig(Section):
    """Behaviour tests that a model must pass before promotion.

    must_pass: photos that the model must predict correctly without exception: a folder with one
        folder per class, or a manifest; "" = none. A training photo is no evidence: if all of them
        are, the check is inconclusive.
    n_photos: test photos for the perturbations below, in [0, 1000]; 0 = none. Guess.
    min_flip, min_jpeg, min_brightness, min_rotation: minimum share of photos, in [0, 1], whose
        predicted class does not change when the photo is mirrored, compressed as a low-quality
        JPEG, made darker or brighter, or rotated slightly. A model whose share is significantly
        lower is not promoted. Guess: probes had 0.88 to 0.93 on clothes and 0.75 to 0.90 on waste.
        If left and right matter for the classes, set min_flip to 0.
    """

    must_pass: Url = ""
    n_photos: Annotated[int, Field(ge=0, le=1000)] = 40
    min_flip: Fraction = 0.7
    min_jpeg: Fraction = 0.7
    min_brightness: Fraction = 0.7
    min_rotation: Fraction = 0.7


class ClassesConfig(Section):
    """Allowed differences between the classes of the challenger and of the champion.

    renamed: {old name: new name}; a renamed class keeps its head row and is compared as the same
        class. If only names differ, nothing is trained (docs/retraining.md).
    allow_removal: whether a challenger may lack a class of the champion.
    """

    renamed: dict[str, str] = Field(default_factory=dict)
    allow_removal: bool = False

    @model_validator(mode="after")
    def _check_renamed(self) -> Self:
        new = list(self.renamed.values())
        if len(set(new)) < len(new):
            raise ValueError("two classes cannot be renamed to the same class")
        return self


class PredictConfig(Section):
    """When a model answers "unsure" instead of a class.

    abstain_below: minimum confidence of an answer, in [0, 1]; 0 = every photo is answered.
    target_risk: alternative to abstain_below: maximum share of wrong answers, in [0, 1). The
        minimum confidence is chosen on validation such that the share is lower with 95 %
        confidence; 0 = off.
    """

    abstain_below: Fraction = 0.0
    target_risk: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0

    @model_validator(mode="after")
    def _check_single_rule(self) -> Self:
        if self.abstain_below and self.target_risk:
            raise ValueError("set abstain_below or target_risk, not both")
        return self


class PromoteConfig(Section):
    """Conditions for the promotion of the challenger.

    rule: superior = the challenger must be significantly more accurate by more than min_gain;
        not_inferior = the challenger must not be less accurate by more than max_loss.
    level: error probability of the accuracy rule, and of a guard that stops a harmless challenger,
        each in (0, 0.5). 0.05: conventional.
    min_gain, max_loss: differences of accuracy, in [0, 1]. max_loss 0.02: guess.
    power: probability of detecting the reported "smallest detectable gain", in [0.5, 1). Source of
        0.8: Cohen 1988.
    min_accuracy: minimum accuracy of any champion, in [0, 1]; the majority-class share is always
        required.
    min_coverage: minimum share of photos that a model with abstention answers, in [0, 1]. Guess.
    min_photos, min_class_photos: minimum number of test photos, in total (>= 1) and per class
        (>= 0); with fewer the check is inconclusive. 20: guess.
    max_recall_drop, max_slice_drop: a significantly larger loss of accuracy on a class or on a
        slice stops the challenger, in [0, 1].
    max_negative_flips: maximum share of photos that the champion predicts correctly and the
        challenger does not, in [0, 1]. 0.1: guess; Yan et al. 2021 saw 4 to 5 % between equal
        models.
    max_calibration_rise: a significantly larger rise of the calibration error stops the
        challenger, in [0, 1]. Guess.
    max_ms, max_mb: limits on milliseconds per photo for the network on the evaluating machine, and
        on the size of the weights in 1e6 bytes, >= 0. 0 = no limit.
    smoke_test: whether a real server must answer the golden photos correctly before promotion.
    approval: automatic, or human = promotion waits for `regraft approve`.
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
