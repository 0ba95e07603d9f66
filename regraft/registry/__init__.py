"""The MLflow model registry: versions, aliases, the champion and the ledger of decisions."""

from typing import TYPE_CHECKING

from regraft.core.lazy import lazy_exports
from regraft.registry.champion import (
    ChampionChange,
    DecisionRecord,
    last_champion,
    move_champion,
    reconcile,
    record_decision,
    roll_back,
    serving_bundle,
    serving_version,
)
from regraft.registry.champion_history import champion_at, promotion_stack
from regraft.registry.ledger import Entry, list_entries, list_faults, read_ledger
from regraft.registry.versions import (
    APPROVAL,
    CHALLENGER,
    CHAMPION,
    PENDING,
    PREVIOUS,
    RegisteredVersion,
    find,
    find_by_tag,
    get_aliases,
    get_tags,
    list_models,
    list_versions,
    load,
    load_ancestry,
    load_card,
    load_manifest,
    load_reference,
    require_reference,
    resolve,
    set_alias,
    set_tags,
)

if TYPE_CHECKING:
    from regraft.registry.registration import register
else:
    __getattr__ = lazy_exports(__name__, {"registration": ("register",)})

__all__ = [
    "APPROVAL",
    "CHALLENGER",
    "CHAMPION",
    "PENDING",
    "PREVIOUS",
    "ChampionChange",
    "DecisionRecord",
    "Entry",
    "RegisteredVersion",
    "champion_at",
    "find",
    "find_by_tag",
    "get_aliases",
    "get_tags",
    "last_champion",
    "list_entries",
    "list_faults",
    "list_models",
    "list_versions",
    "load",
    "load_ancestry",
    "load_card",
    "load_manifest",
    "load_reference",
    "move_champion",
    "promotion_stack",
    "read_ledger",
    "reconcile",
    "record_decision",
    "register",
    "require_reference",
    "resolve",
    "roll_back",
    "serving_bundle",
    "serving_version",
    "set_alias",
    "set_tags",
]
