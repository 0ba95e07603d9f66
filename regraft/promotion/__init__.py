"""Promotion: a fair duel, guards with numbers, a verdict that says why, and the alias moved."""

from regraft.promotion.approval import carry_out, refuse, waiting_versions
from regraft.promotion.duel import Contenders, Duel, hold_duel
from regraft.promotion.guard import Guard
from regraft.promotion.kept import Kept, explain, kept_of, load_verdict
from regraft.promotion.promote import promote, rehearse
from regraft.promotion.rejudge import what_if
from regraft.promotion.verdict import Flip, Verdict, judge

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
