"""Drift: are new photos of another kind than those that a model learned from?"""

from regraft.drift.findings import Finding, NewPhotos, findings
from regraft.drift.look import DriftReport, look
from regraft.drift.photos import Gathered, gather
from regraft.drift.reference import FOLDER, Reference, load_reference, make_reference, side_for
from regraft.drift.watch import watch

__all__ = [
    "FOLDER",
    "DriftReport",
    "Finding",
    "Gathered",
    "NewPhotos",
    "Reference",
    "findings",
    "gather",
    "load_reference",
    "look",
    "make_reference",
    "side_for",
    "watch",
]
