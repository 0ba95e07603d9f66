"""Promotion: compare challenger and champion, run the guards, decide, and move the alias."""

from typing import TYPE_CHECKING

from regraft.core.lazy import lazy_exports

if TYPE_CHECKING:
    from regraft.promotion.approval import approve_verdict, pending_versions, reject_verdict
    from regraft.promotion.decision import dry_run, promote
    from regraft.promotion.guard import Guard
    from regraft.promotion.judgement import judge
    from regraft.promotion.pair import ModelPair, PairedEvaluation
    from regraft.promotion.paired_evaluation import evaluate_pair
    from regraft.promotion.rejudge import what_if
    from regraft.promotion.stored_verdict import (
        StoredVerdict,
        explain,
        load_stored_verdict,
        load_verdict,
    )
    from regraft.promotion.verdict import Flip, Verdict
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "approval": (
                "approve_verdict",
                "pending_versions",
                "reject_verdict",
            ),
            "guard": ("Guard",),
            "judgement": ("judge",),
            "pair": (
                "ModelPair",
                "PairedEvaluation",
            ),
            "paired_evaluation": ("evaluate_pair",),
            "decision": (
                "dry_run",
                "promote",
            ),
            "rejudge": ("what_if",),
            "stored_verdict": (
                "StoredVerdict",
                "explain",
                "load_stored_verdict",
                "load_verdict",
            ),
            "verdict": (
                "Flip",
                "Verdict",
            ),
        },
    )

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
