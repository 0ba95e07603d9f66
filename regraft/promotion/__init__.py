"""Promotion: compare challenger and champion, run the guards, decide, and move the alias."""

from regraft.promotion.approval import approve_verdict, pending_versions, reject_verdict
from regraft.promotion.guard import Guard
from regraft.promotion.paired_evaluation import ModelPair, PairedEvaluation, evaluate_pair
from regraft.promotion.promote import dry_run, promote
from regraft.promotion.rejudge import what_if
from regraft.promotion.stored_verdict import (
    StoredVerdict,
    explain,
    load_stored_verdict,
    load_verdict,
)
from regraft.promotion.verdict import Flip, Verdict, judge

__all__ = [
    "Flip",
    "Guard",
    "ModelPair",
    "PairedEvaluation",
    "StoredVerdict",
    "Verdict",
    "approve_verdict",
    "dry_run",
    "evaluate_pair",
    "explain",
    "judge",
    "load_stored_verdict",
    "load_verdict",
    "pending_versions",
    "promote",
    "reject_verdict",
    "what_if",
]
