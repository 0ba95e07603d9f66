"""Which of two configurations has the weaker guards."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from regraft.core.config.load import Config


def _high(value: float) -> float:
    return float(value)


def _low(value: float) -> float:
    return -float(value)


def _low_or_off(value: float) -> float:
    return -float(value) if value else -math.inf  # 0 = no limit


def _order(*weakest_first: str) -> Callable[[str], float]:
    return weakest_first.index


# The strength of a guard by its setting: a larger number stops more models, photos or trainings.
_STRENGTHS: Mapping[str, Callable[[Any], float]] = {
    "ingest.max_quarantine_fraction": _low,
    "split.on_leak": _order("keep", "drop", "error"),
    "evaluate.max_slice_values": _high,  # a column with more values is no slice
    "registry.n_parity": _high,
    "registry.parity_tolerance": _low,
    "classes.allow_removal": _low,
    "behaviour.must_pass": bool,
    "behaviour.n_photos": _high,
    "behaviour.min_flip": _high,
    "behaviour.min_jpeg": _high,
    "behaviour.min_brightness": _high,
    "behaviour.min_rotation": _high,
    "promote.rule": _order("not_inferior", "superior"),
    "promote.level": _low,
    "promote.min_gain": _high,
    "promote.max_loss": _low,
    "promote.min_accuracy": _high,
    "promote.min_coverage": _high,
    "promote.min_photos": _high,
    "promote.min_class_photos": _high,
    "promote.max_recall_drop": _low,
    "promote.max_slice_drop": _low,
    "promote.max_negative_flips": _low,
    "promote.max_calibration_rise": _low,
    "promote.max_ms": _low_or_off,
    "promote.max_mb": _low_or_off,
    "promote.smoke_test": _high,
    "promote.approval": _order("automatic", "human"),
    "retrain.budget_h": _low_or_off,
}


def weaker_guards(before: Config, after: Config) -> dict[str, str]:
    """Return {setting: value before} of each guard that is weaker than before.

    A list of must-pass photos that was replaced by another one is not weaker: what they show cannot
    be compared.

    >>> from regraft.core.config import load_config
    >>> weaker_guards(load_config(None, ("promote.approval=human",)), load_config(None))
    {'promote.approval': 'human'}
    """
    flat = before.flat()
    return {
        setting: flat[setting]
        for setting, strength in _STRENGTHS.items()
        if strength(_value(after, setting)) < strength(_value(before, setting))
    }


def _value(config: Config, setting: str) -> Any:  # noqa: ANN401 - of the field's own type
    section, _, field = setting.partition(".")
    return getattr(getattr(config, section), field)
