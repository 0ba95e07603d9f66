"""The workflow promote: a registered version, judged again on the current photos."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.config import Config, TrackingConfig, apply_overrides, load_config
from regraft.core.state import State, places
from regraft.operations.workflows.runner import PipelineRunner
from regraft.operations.workflows.settings import complete_config, config_of_model
from regraft.operations.workflows.train import request_pending_approval

if TYPE_CHECKING:
    from regraft.promotion import Verdict
    from regraft.registry import Entry, RegisteredVersion


def promotion_config(
    version: "RegisteredVersion",
    photos: str,
    file: Path | None,
    overrides: tuple[str, ...],
    state: State,
) -> Config:
    """Return the complete configuration of a promotion.

    Args:
        photos: to judge on; "" means those that the version was trained on.
        file: replaces the configuration that the version was made under, except for the photos.
        overrides: "section.field=value", applied last.
    """
    from regraft.registry import load_card

    card = load_card(places(state).tracking, version)
    config = config_of_model(card.config, state)
    if file is None:
        config = apply_overrides(config, overrides)
    else:
        trained_on = f"ingest.photos={json.dumps(config.ingest.photos)}"
        config = load_config(file, (trained_on, *overrides))
    if photos:
        config = apply_overrides(config, (f"ingest.photos={json.dumps(photos)}",))
    return complete_config(config, config.ingest.photos, version.name, state)


def promote(
    version: "RegisteredVersion", config: Config, state: State, runner: PipelineRunner
) -> "Verdict":
    """Judge a version against the champion, and move the alias champion if it proves better.

    Args:
        config: complete, see promotion_config().
        state: opened and activated.
    """
    from regraft.data.ingest import fingerprint
    from regraft.operations.status import rebuild

    listing = fingerprint(config.ingest)
    reference = f"{version.name}/{version.version}"
    run = runner.run("promote", config.tracking, config, listing, reference)
    verdict: Verdict = run.load("promote")
    request_pending_approval(verdict, config, runner)
    rebuild(state, datetime.now(UTC))
    return verdict


def dry_run_promotion(version: "RegisteredVersion", config: Config) -> "Verdict":
    """Judge a version against the champion, and change nothing."""
    from regraft.data.ingest import ingest
    from regraft.data.split import split
    from regraft.promotion import dry_run

    splits = split(ingest(config.ingest), config.split, should_remember=False)
    return dry_run(version, splits, config)


def answer_pending(
    version: "RegisteredVersion", approved: bool, reason: str, state: State, runner: PipelineRunner
) -> "Entry":
    """Approve or reject a pending verdict as the current user; return the ledger's entry.

    Raises:
        NothingPendingApproval: the verdict is not pending any more.
        ChampionMoved: another champion serves than the one of the verdict.
    """
    from regraft.core.state import current_user
    from regraft.operations.status import rebuild
    from regraft.promotion import load_verdict
    from regraft.promotion.answer import ApprovalDecision

    tracking = places(state).tracking
    decision = ApprovalDecision(approved=approved, who=current_user(), why=reason)
    entry = runner.answer(load_verdict(tracking, version), tracking, decision)
    rebuild(state, datetime.now(UTC))
    return entry


def find_pending(tracking: TrackingConfig, reference: str) -> "RegisteredVersion":
    """Return the version with a pending verdict that the reference names.

    Args:
        reference: "name/3", "name", or "" for the only one.

    Raises:
        NothingPendingApproval: there is none, or more than one.
    """
    from regraft.core.errors import NothingPendingApproval
    from regraft.promotion import pending_versions

    pending = {
        f"{version.name}/{version.version}": version for version in pending_versions(tracking)
    }
    matches = [name for name in pending if reference in ("", name, pending[name].name)]
    if len(matches) == 1:
        return pending[matches[0]]
    expected = f"a pending verdict about {reference}" if reference else "one pending verdict"
    remedy = "Name one of these." if pending else "See `regraft models`."
    raise NothingPendingApproval(
        f"Expected {expected}, got {', '.join(pending) or 'none'}. {remedy}"
    )
