"""Weights between champion and challenger: as accurate, and fewer answers that change for worse."""

from regraft.registry.interpolate.blend import Blend, aligned, blend_of, blended, start_of
from regraft.registry.interpolate.interpolate import Interpolated, Interpolation, Trial, interpolate
from regraft.registry.interpolate.recorded import blended_as_recorded, champion_of

__all__ = [
    "Blend",
    "Interpolated",
    "Interpolation",
    "Trial",
    "aligned",
    "blend_of",
    "blended",
    "blended_as_recorded",
    "champion_of",
    "interpolate",
    "start_of",
]
