"""Drift: do new photos come from another distribution than the photos of the training?"""

from regraft.drift.detect import DriftReport, detect_drift
from regraft.drift.hypothesis_tests import DriftTest, NewPhotos, run_drift_tests
from regraft.drift.photos import Gathered, gather
from regraft.drift.reference import (
    FOLDER,
    Reference,
    choose_reference_split,
    load_reference,
    make_reference,
)
from regraft.drift.watch import watch

__all__ = [
    "FOLDER",
    "DriftReport",
    "DriftTest",
    "Gathered",
    "NewPhotos",
    "Reference",
    "choose_reference_split",
    "detect_drift",
    "gather",
    "load_reference",
    "make_reference",
    "run_drift_tests",
    "watch",
]
