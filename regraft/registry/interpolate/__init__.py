"""Interpolate the weights of champion and challenger: same accuracy, fewer negative flips."""

from regraft.registry.interpolate.blend import (
    Blend,
    align_champion,
    blend_models,
    read_blend,
    training_start,
)
from regraft.registry.interpolate.interpolate import (
    Interpolation,
    InterpolationResult,
    Trial,
    interpolate,
)
from regraft.registry.interpolate.recorded import load_champion, repeat_blend

__all__ = [
    "Blend",
    "Interpolation",
    "InterpolationResult",
    "Trial",
    "align_champion",
    "blend_models",
    "interpolate",
    "load_champion",
    "read_blend",
    "repeat_blend",
    "training_start",
]
