"""The workflow schedule: entries that this machine or the orchestrator runs."""

import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from regraft.core.config import Config
from regraft.core.errors import ScheduleError
from regraft.core.state import State
from regraft.operations.schedule import (
    ScheduleEntry,
    add,
    default_name,
    find,
    remove,
    split_command,
    with_settings,
)
from regraft.operations.workflows.retrain import RetrainRequest, retrain_config
from regraft.operations.workflows.runner import Dag


class Scheduler(Protocol):
    """An orchestrator that may run a DAG at fixed times. Its database exists."""

    def can_schedule(self) -> bool:
        """Return whether the active orchestrator can schedule."""

    def hand_over(self, entry: ScheduleEntry, dag: Dag, config: Config) -> None:
        """Let the orchestrator run the DAG at the entry's times.

        Raises:
            ScheduleError: the name is taken, or the orchestrator cannot express the times.
        """

    def take_back(self, name: str) -> None:
        """Delete the orchestrator's schedule of this name, if there is one."""


@dataclass(frozen=True)
class ParsedCommand:
    """What the command line's own parser found in a scheduled command.

    takes_state: whether the command has an option --state that is not set.
    retraining: the request if the command is nothing but a retraining, which an orchestrator can
        run as a pipeline; None for every other command.
    """

    takes_state: bool
    retraining: RetrainRequest | None = None


def new_entry(
    command: str, cron: str, timezone: str, name: str, settings: Sequence[str], now: datetime
) -> ScheduleEntry:
    """Return an entry that runs a command in the working directory.

    Args:
        command: what follows `regraft`, quoted as in a shell.
        name: of the entry; "" means one made of the command.
        settings: FIELD=VALUE each.

    Raises:
        ScheduleError: a quote is not closed, or a setting is unknown or invalid.
    """
    entry = ScheduleEntry(
        name=name or default_name(command),
        cron=cron,
        timezone=timezone,
        command=shlex.join(split_command(command)),
        folder=str(Path.cwd()),
        added=now.isoformat(),
        host=socket.gethostname(),
    )
    return with_settings(entry, settings)


def add_entry(
    entry: ScheduleEntry, parsed: ParsedCommand, is_chosen: bool, state: State, scheduler: Scheduler
) -> ScheduleEntry:
    """Store an entry, handed over to the orchestrator where that is possible; return it as stored.

    Args:
        entry: checked, see schedule.check().
        is_chosen: whether the user has set the backend.

    Raises:
        ScheduleError: the user chose zenml, and the orchestrator cannot run the entry.
    """
    entry = replace(entry, takes_state=parsed.takes_state)
    if is_chosen and entry.backend == "local":
        reason = "the backend local was chosen"
    else:
        reason = _hand_over(entry, parsed.retraining, state, scheduler)
        if reason and is_chosen:
            raise ScheduleError(
                f"Expected to hand {entry.name} over to ZenML, but {reason}. Leave backend=zenml "
                "out; `regraft schedule run` then runs the entry on this machine."
            )
    stored = replace(entry, backend="local" if reason else "zenml")
    add(state, stored)
    return stored


def remove_entry(name: str, state: State, scheduler: Scheduler) -> None:
    """Remove an entry; a run that is active continues to its end.

    Raises:
        ScheduleError: there is no entry of this name.
    """
    if find(state, name).backend == "zenml":
        scheduler.take_back(name)  # first: without the entry it could not be found again
    remove(state, name)


def _hand_over(
    entry: ScheduleEntry, retraining: RetrainRequest | None, state: State, scheduler: Scheduler
) -> str:
    """Hand the entry over to the orchestrator; return the reason if that is not possible."""
    if not state.zenml_database.exists():
        return "ZenML has no database in this state folder yet"
    if not scheduler.can_schedule():
        return "the active orchestrator cannot schedule"
    if retraining is None:
        return f"{entry.arguments[0]} is more than a pipeline"
    config = retrain_config(retraining, state)
    if not all(target.is_storable for target in config.notify.targets):
        return "ZenML would store the addresses of its notification targets"
    scheduler.hand_over(entry, "retrain", config)
    return ""
