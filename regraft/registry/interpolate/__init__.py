"""Interpolate the weights of champion and challenger: same accuracy, fewer negative flips."""

from regraft.registry.interpolate.blend import align_champion, blend_models
from regraft.registry.interpolate.interpolate import (
    Interpolation,
    InterpolationResult,
    Trial,
    interpolate,
    unblended,
)
from regraft.registry.interpolate.recorded import load_champion, repeat_blend

__all__ = [
    "Interpolation",
    "InterpolationResult",
    "Trial",
    "align_champion",
    "blend_models",
    "interpolate",
    "load_champion",
    "repeat_blend",
    "unblended",
]
