"""What a long life costs: thousands of attempts in the journal and entries in the ledger."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from regraft.core.config import TrackingConfig
from regraft.operations import journal
from regraft.operations.journal import Attempt
from regraft.operations.status import timeline
from regraft.registry import list_versions, read_ledger
from regraft.registry.ledger import (
    APPLIED,
    ENTRY,
    HASH,
    HEAD,
    RECORDED,
    SOURCE,
    Draft,
    _canonical,
    _hash,
)
from regraft.registry.versions import LEDGER
from tests.bench.measure import Row

BEGAN = datetime(2025, 1, 1, tzinfo=UTC)


def records(n_attempts: int, n_entries: int, folder: Path, trials: int = 3) -> Iterator[Row]:
    """The work of `regraft history`, beyond the imports, part by part.

    `regraft explain` and `regraft ledger verify` read the ledger once, the advice of a retraining
    the journal and the ledger once each, and `regraft models` lists the versions.
    """
    url, tracking = str(folder / "journal"), TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
    _write_journal(folder / "journal" / "attempts", n_attempts, n_entries)
    _write_ledger(tracking, n_entries)
    for trial in range(trials):
        began = time.perf_counter()
        attempts, journal_s = _timed(lambda: journal.read_attempts(url))
        ledger, ledger_s = _timed(lambda: read_ledger(tracking, "tiny"))
        _, timeline_s = _timed(partial(timeline, ledger.entries, attempts, ()))
        whole_s = time.perf_counter() - began
        _, models_s = _timed(lambda: list_versions(tracking))
        assert (len(attempts), len(ledger.entries)) == (n_attempts, n_entries)
        assert not ledger.faults
        figures = {"whole_s": whole_s, "journal_s": journal_s, "ledger_s": ledger_s}
        figures |= {"timeline_s": timeline_s, "models_s": models_s}
        who = f"{n_attempts} attempts, {n_entries} entries"
        yield {"bench": "records", "who": who, "seed": trial} | figures


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _write_journal(folder: Path, n_attempts: int, n_judged: int) -> None:
    """Write hourly attempts; the first n_judged trained and were judged, the others skipped."""
    folder.mkdir(parents=True)
    for number in range(n_attempts):
        when = BEGAN + timedelta(hours=number)
        started, ended = when.isoformat(), (when + timedelta(seconds=60)).isoformat()
        judged = {"version": number + 1, "verdict": f"verdict-{number}", "accuracy": 0.9}
        outcome, more = ("keep", judged) if number < n_judged else ("skip", {})
        attempt = Attempt("tiny", started, ended, "me@here", outcome, "No lead is shown.", **more)
        content = json.dumps({"format": journal.FORMAT, **asdict(attempt)})
        (folder / f"{when:%Y%m%dT%H%M%S.%f}-{number:08x}.json").write_text(content)


def _write_ledger(tracking: TrackingConfig, n_entries: int) -> None:
    """Write applied entries without append_entry(), which reads the ledger after each of them."""
    client = MlflowClient(tracking.uri, tracking.uri)
    client.create_registered_model("tiny", {RECORDED: "1"})
    client.create_registered_model("tiny.ledger", {LEDGER: "1"})
    head = ""
    for number in range(n_entries):
        when = (BEGAN + timedelta(hours=number)).isoformat()
        verdict = f"verdict-{number}"
        draft = Draft(when, "me@here", "keep", "tiny", 1, 1, verdict, "No lead is shown.")
        content = _canonical(asdict(draft) | {"previous": head})
        head = _hash(content)
        tags = {ENTRY: content, HASH: head, APPLIED: "1"}
        client.create_model_version("tiny.ledger", SOURCE, tags=tags, await_creation_for=None)
    client.set_registered_model_tag("tiny.ledger", HEAD, head)
