"""The history of a model: its decisions, retrainings and drift checks, and what served when."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from regraft.core.errors import ModelNotFound
from regraft.core.state import State, activate, places
from regraft.operations.journal import read_journal
from regraft.operations.status import timeline

if TYPE_CHECKING:
    from regraft.operations.status import Event
    from regraft.registry.ledger import Entry


@dataclass(frozen=True)
class ModelHistory:
    """The records of a model.

    champion: the version that served at the time of the question; None if there was none.
    entries: of the ledger, oldest first. faults: of the ledger's verification.
    is_unrecorded: whether another version serves than the ledger's last entry says.
    is_registered: whether the registry has the model.
    events: oldest first. broken: a sentence for each broken file of the journal.
    """

    name: str
    champion: int | None = None
    entries: "tuple[Entry, ...]" = ()
    faults: tuple[str, ...] = ()
    is_unrecorded: bool = False
    is_registered: bool = False
    events: "tuple[Event, ...]" = ()
    broken: tuple[str, ...] = ()


def model_history(name: str, moment: datetime | None, state: State) -> ModelHistory:
    """Return the history of a model up to a moment.

    The registry is not created, and MLflow not imported, where there is none yet.

    Args:
        name: of the model; "" means the only one.
        moment: None means now.
        state: opened; it is activated if there is a registry to read.

    Raises:
        ModelNotFound: there is no such model, or "" means several.
    """
    records = read_journal(places(state).journal)
    history = _registered(name, {each.name for each in records.attempts}, moment, state)
    attempts = [each for each in records.attempts if each.name == history.name]
    watches = [each for each in records.watches if each.name == history.name]
    events = timeline(history.entries, attempts, watches)
    events = tuple(event for event in events if not moment or event.moment <= moment)
    if not history.is_registered and events:
        history = replace(history, champion=events[-1].champion)
    entries = [
        entry
        for entry in history.entries
        if not moment or datetime.fromisoformat(entry.when) <= moment
    ]
    return replace(history, entries=tuple(entries), events=events, broken=records.broken)


def _registered(
    name: str, attempted: set[str], moment: datetime | None, state: State
) -> ModelHistory:
    """Return the registry's part of the history.

    Args:
        attempted: the models that the journal knows.
    """
    if not places(state).has_registry:
        return ModelHistory(_attempted_model(name, attempted, state))
    activate(state)
    from regraft.registry.champion import serving_version
    from regraft.registry.champion_history import champion_at
    from regraft.registry.ledger import read_ledger, resolve_model_name
    from regraft.registry.versions import list_models

    tracking = places(state).tracking
    registered = list_models(tracking)
    if name not in registered and (name in attempted or (not registered and attempted)):
        return ModelHistory(_attempted_model(name, attempted, state))
    name = resolve_model_name(tracking, name)
    ledger, serving = read_ledger(tracking, name), serving_version(tracking, name)
    champion = champion_at(ledger.entries, moment) if moment else serving
    is_unrecorded = bool(ledger.entries) and serving != ledger.entries[-1].after
    return ModelHistory(
        name, champion, ledger.entries, ledger.faults, is_unrecorded, is_registered=True
    )


def _attempted_model(name: str, attempted: set[str], state: State) -> str:
    """Return the model of that name that the journal knows; "" means the only one.

    Raises:
        ModelNotFound: there is none, or there are several.
    """
    if name in attempted:
        return name
    if not name and len(attempted) == 1:
        return next(iter(attempted))
    expected = f"the model {name}" if name else "one model"
    known = ", ".join(sorted(attempted)) or "none"
    remedy = "Name one of these." if attempted else "Run `regraft train` first."
    raise ModelNotFound(f"Expected {expected} in {state.root}, got {known}. {remedy}")
