"""How good the challenger is, on exactly the test photos, and what a reviewer should look at."""

from regraft.evaluation.evaluate.abstention import abstain_below, coverage_at, coverage_table
from regraft.evaluation.evaluate.calibration import (
    Answers,
    Calibration,
    calibrate,
    calibration_error,
    fit_temperature,
    mean_nll,
    reliability_table,
)
from regraft.evaluation.evaluate.evaluation import EvaluationReport, evaluate, judge
from regraft.evaluation.evaluate.label_errors import likely_label_errors
from regraft.evaluation.evaluate.metrics import (
    Interval,
    class_codes,
    class_table,
    confusion_table,
    macro_f1,
    slice_table,
    top_k_interval,
    wilson,
)

__all__ = [
    "Answers",
    "Calibration",
    "EvaluationReport",
    "Interval",
    "abstain_below",
    "calibrate",
    "calibration_error",
    "class_codes",
    "class_table",
    "confusion_table",
    "coverage_at",
    "coverage_table",
    "evaluate",
    "fit_temperature",
    "judge",
    "likely_label_errors",
    "macro_f1",
    "mean_nll",
    "reliability_table",
    "slice_table",
    "top_k_interval",
    "wilson",
]
