"""Past duels judged again by another rule, without asking a network."""

from collections.abc import Callable, Iterator

import pandas as pd

from regraft import registry
from regraft.config import Config, TrackingConfig
from regraft.errors import ModelNotFound
from regraft.promote.kept import kept_of
from regraft.promote.verdict import judge
from regraft.registry import RegisteredVersion

COLUMNS = ("version", "champion", "was", "would_be", "changed", "reason")


def what_if(
    tracking: TrackingConfig, name: str, changed: Callable[[Config], Config]
) -> pd.DataFrame:
    """What would have become of every version that was judged, under another rule.

    Each is judged on the photos and answers of its own duel, against the champion of that day; what
    the earlier verdicts would have changed for the later ones is not played through. Golden photos
    that were never tried are not tried now.

    Args:
        changed: makes the configuration to judge by from the one that it was judged by.

    Returns:
        version, champion ("" if none), was, would_be (promote, keep, hold), changed (bool), reason
        (of would_be); a row a version, oldest first.
    """
    rows = [_judged_again(version, tracking, changed) for version in _judged(tracking, name)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _judged(tracking: TrackingConfig, name: str) -> Iterator[RegisteredVersion]:
    known = registry.list_versions(tracking)
    for number in sorted(known[known.name == name].version):
        try:
            version = registry.find(tracking, name, str(number))
            kept_of(version, tracking)
        except ModelNotFound:  # interrupted, or never judged
            continue
        yield version


def _judged_again(
    version: RegisteredVersion, tracking: TrackingConfig, changed: Callable[[Config], Config]
) -> tuple[int, str, str, str, bool, str]:
    kept = kept_of(version, tracking)
    then, now = kept.verdict, judge(kept.duel, changed(kept.rule))
    champion = "" if then.champion is None else str(then.champion)
    is_other = then.decision != now.decision
    return version.version, champion, then.decision, now.decision, is_other, now.reason
