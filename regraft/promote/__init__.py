"""Promotion: a fair duel, guards with numbers, a verdict that says why, and the alias moved."""

from regraft.promote.approval import carry_out, refuse, waiting_versions
from regraft.promote.duel import Contenders, Duel, hold_duel
from regraft.promote.guard import Guard
from regraft.promote.kept import Kept, explain, kept_of, load_verdict
from regraft.promote.promote import promote, rehearse
from regraft.promote.rejudge import what_if
from regraft.promote.verdict import Flip, Verdict, judge

__all__ = [
    "Contenders",
    "Duel",
    "Flip",
    "Guard",
    "Kept",
    "Verdict",
    "carry_out",
    "explain",
    "hold_duel",
    "judge",
    "kept_of",
    "load_verdict",
    "promote",
    "refuse",
    "rehearse",
    "waiting_versions",
    "what_if",
]
