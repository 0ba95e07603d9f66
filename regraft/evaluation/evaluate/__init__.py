"""Evaluation of a challenger on the test photos."""

from regraft.evaluation.evaluate.abstention import abstain_below, coverage_at, coverage_table
from regraft.evaluation.evaluate.calibration import (
    Calibration,
    LabelledLogits,
    calibrate,
    calibration_error,
    fit_temperature,
    mean_nll,
    reliability_table,
)
from regraft.evaluation.evaluate.evaluation import EvaluationReport, evaluate, evaluate_logits
from regraft.evaluation.evaluate.label_errors import likely_label_errors
from regraft.evaluation.evaluate.metrics import (
    class_codes,
    class_table,
    confusion_table,
    macro_f1,
    slice_table,
    top_k_interval,
)

__all__ = [
    "Calibration",
    "EvaluationReport",
    "LabelledLogits",
    "abstain_below",
    "calibrate",
    "calibration_error",
    "class_codes",
    "class_table",
    "confusion_table",
    "coverage_at",
    "coverage_table",
    "evaluate",
    "evaluate_logits",
    "fit_temperature",
    "likely_label_errors",
    "macro_f1",
    "mean_nll",
    "reliability_table",
    "slice_table",
    "top_k_interval",
]
