"""Past duels judged again by another rule, without asking a network."""

from collections.abc import Callable, Iterator

import pandas as pd

from regraft import registry
from regraft.core.config import Config, TrackingConfig
from regraft.core.errors import ModelNotFound
from regraft.promotion.kept import Kept, kept_of
from regraft.promotion.verdict import judge

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
    rows = [_judged_again(kept, changed(kept.rule)) for kept in _kept(tracking, name)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _kept(tracking: TrackingConfig, name: str) -> Iterator[Kept]:
    known = registry.list_versions(tracking)
    for number in sorted(known[known.name == name].version):
        try:
            kept = kept_of(registry.find(tracking, name, str(number)), tracking)
        except ModelNotFound:  # interrupted, or never judged
            continue
        yield kept


def _judged_again(kept: Kept, rule: Config) -> tuple[int, str, str, str, bool, str]:
    then, now = kept.verdict, judge(kept.duel, rule)
    champion = "" if then.champion is None else str(then.champion)
    is_other = then.decision != now.decision
    return then.challenger, champion, then.decision, now.decision, is_other, now.reason
