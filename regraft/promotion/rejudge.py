"""Judge stored paired evaluations again under another configuration, without running a model."""

from collections.abc import Callable, Iterator

import pandas as pd

from regraft import registry
from regraft.core.config import Config, TrackingConfig
from regraft.core.errors import ModelNotFound
from regraft.promotion.judgement import judge
from regraft.promotion.stored_verdict import StoredVerdict, load_stored_verdict

COLUMNS = ("version", "champion", "was", "would_be", "changed", "reason")


def what_if(
    tracking: TrackingConfig, name: str, changed: Callable[[Config], Config]
) -> pd.DataFrame:
    """Return the decision about every judged version, under another configuration.

    Each version is judged on the photos and predictions of its own paired evaluation, against the
    champion at that time. The effect of an earlier decision on later ones is not simulated. Golden
    photos that were not tested are not tested now.

    Args:
        tracking: the store of the registry.
        name: of the model.
        changed: maps the configuration of the original verdict to the one to judge by.

    Returns:
        A row a version, oldest first: version, champion ("" if none), was, would_be (promote, keep
        or hold), changed (bool), reason (of would_be).
    """
    rows = [
        _judge_again(stored, changed(stored.config)) for stored in _stored_verdicts(tracking, name)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _stored_verdicts(tracking: TrackingConfig, name: str) -> Iterator[StoredVerdict]:
    versions = registry.list_versions(tracking)
    for number in sorted(versions[versions.name == name].version):
        try:
            stored = load_stored_verdict(registry.find(tracking, name, str(number)), tracking)
        except ModelNotFound:  # the promotion was interrupted, or never started
            continue
        yield stored


def _judge_again(stored: StoredVerdict, config: Config) -> tuple[int, str, str, str, bool, str]:
    """Return the values of COLUMNS."""
    old, new = stored.verdict, judge(stored.evaluation, config)
    champion = "" if old.champion is None else str(old.champion)
    is_changed = old.decision != new.decision
    return old.challenger, champion, old.decision, new.decision, is_changed, new.reason
