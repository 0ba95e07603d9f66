"""The vocabulary of outcomes; each word has the same meaning in every file, page and log."""

from typing import Literal

Decision = Literal["promote", "keep", "hold"]
"""Decision of a verdict: promote the challenger, keep the champion, or hold (inconclusive)."""

VerdictStatus = Literal[Decision, "pending", "serving"]
"""Current status of a verdict; pending = waits for approval, serving = already the champion."""

CheckOutcome = Literal["passed", "failed", "inconclusive", "info"]
"""Outcome of a check in a verdict; inconclusive = too few photos, info = no effect."""

DriftOutcome = Literal["drifted", "stable", "inconclusive"]
"""Outcome of a drift test; inconclusive = too few photos."""

Advice = Literal["retrain", "revise", "skip", "postpone"]
"""Advice on retraining now; revise = the champion's weights under other names or settings."""

TrainedOutcome = Literal[Decision, "pending"]
"""Outcome of a retraining attempt that trained a model: the outcome of its verdict."""

AttemptOutcome = Literal[TrainedOutcome, "skip", "postpone", "failed", "killed"]
"""Outcome of a retraining attempt."""

ScheduledOutcome = Literal["", "running", "done", "skip", "failed", "stopped", "timeout", "killed"]
"""Outcome of a scheduled run; "" = never run."""

LedgerAction = Literal[Decision, "rollback", "reject", "outside"]
"""Action of a ledger entry; outside = the alias was moved without Regraft."""

EventType = Literal["promote", "keep", "pending", "skip", "failed", "drift"]
"""Type of a notification event; hold counts as keep, postpone as skip, killed as failed."""
