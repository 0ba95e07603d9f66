"""The ledger: every decision about the champion, in order, each entry hashed over the entry before.

The ledger of a model NAME is a registered model NAME.ledger. Each entry is a version of it. MLflow
creates a version with its tags in one transaction, and numbers versions without gaps, including
deleted versions. So the registry itself orders concurrent entries, on SQLite and on a server, and
no lock is needed: if two entries follow the same head, the entry with the lower number is valid,
and every reader ignores the other.

The hash of an entry covers its content and the hash of the entry before. The hash has no key: it
detects changed, deleted or truncated entries, but not a forger who rewrites the whole ledger.
"""

import hashlib
import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved, LedgerBroken, ModelNotFound
from regraft.core.outcomes import LedgerAction
from regraft.core.pages.facts import format_version
from regraft.registry.tracking import connect
from regraft.registry.versions import LEDGER, all_versions, list_models

SUFFIX = ".ledger"
ENTRY = "regraft.entry"  # tag of a version: the content of the entry as JSON
HASH = "regraft.hash"
APPLIED = "regraft.applied"  # tag of a version: the aliases are set as the entry requires
RECORDED = "regraft.recorded"  # tag of the model itself: a ledger was created for it
HEAD = "regraft.head"  # tag of the ledger's registered model: hash of the newest applied entry
# MLflow requires a source for a version, but an entry has no file. MLflow's server accepts sources
# that it does not look up and sources of a run. The source of a run would be deleted with the run.
SOURCE = "regraft:/ledger"
MAX_REASON = 2000  # characters; older servers store 5000 in a tag, and / and " count twice


@dataclass(frozen=True)
class Draft:
    """The content of an entry that is not yet written.

    when: ISO 8601, UTC. who: "user@host".
    before, after: version of the champion before and after, None for no champion.
    verdict: id of the verdict, "" if there is none.
    """

    when: str
    who: str
    action: LedgerAction
    model: str
    before: int | None
    after: int | None
    verdict: str
    reason: str


@dataclass(frozen=True)
class Entry(Draft):
    """An entry of the ledger: the content of the draft and its position.

    number: the version number that MLflow gave it, >= 1; rejected entries leave gaps.
    previous: hash of the entry before, "" for the first entry.
    hash: over every field except `hash` and `number`.
    """

    number: int
    previous: str
    hash: str

    def __str__(self) -> str:
        return format_entry(self)


@dataclass(frozen=True)
class Ledger:
    """The ledger of a model at the time of reading.

    entries: valid entries, oldest first.
    faults: a sentence for each deviation from what was written; empty for an intact ledger.
    pending: whether the newest entry is not yet applied.
    """

    entries: tuple[Entry, ...] = ()
    faults: tuple[str, ...] = ()
    pending: bool = False

    @property
    def head(self) -> str:
        """Hash of the newest entry, "" if there is none."""
        return self.entries[-1].hash if self.entries else ""


def list_entries(tracking: TrackingConfig, name: str) -> tuple[Entry, ...]:
    """Return the entries about the model, oldest first, without verification; see list_faults()."""
    return read_ledger(tracking, name).entries


def list_faults(tracking: TrackingConfig, name: str) -> tuple[str, ...]:
    """Return a sentence for each fault of the ledger; empty if the ledger is intact."""
    return read_ledger(tracking, name).faults


def load_verified_ledger(tracking: TrackingConfig, name: str) -> Ledger:
    """Return the ledger of the model, empty if there is no decision about it yet.

    Raises:
        LedgerBroken: the ledger has faults.
    """
    ledger = read_ledger(tracking, name)
    if ledger.faults:
        more = f" (and {len(ledger.faults) - 1} more)" if len(ledger.faults) > 1 else ""
        raise LedgerBroken(
            f"Expected an intact ledger {name}{SUFFIX} in {tracking.uri}, but: "
            f"{ledger.faults[0]}{more} The champion was not changed. Restore MLflow's database "
            f"from a backup. Without a backup: save the output of `regraft history "
            f"{shlex.quote(name)}`, then delete the registered model {name}{SUFFIX} and the tag "
            f"{RECORDED} of {name}; the next decision creates a new ledger."
        )
    return ledger


def read_ledger(tracking: TrackingConfig, name: str) -> Ledger:
    """Return the ledger of the model with its faults; empty if there is no ledger."""
    client = connect(tracking)
    # Read before the entries: the head tag is always written after the entry that it names.
    model = _ledger_model(client, name)
    if model is None:
        if RECORDED not in _tags_of(client, name):
            return Ledger()
        fault = f"Its registered model {name}{SUFFIX} was deleted, with all recorded decisions."
        return Ledger(faults=(fault,))
    versions = sorted(all_versions(client, model.name), key=lambda version: int(version.version))
    linked, faults = _linked(versions)
    if LEDGER not in model.tags:
        faults.append(f"{model.name} has no tag {LEDGER}: it was removed, or this is no ledger.")
    head = model.tags.get(HEAD, "")
    if head and head not in {entry.hash for entry in linked}:
        last = f"entry {linked[-1].number}" if linked else "no entry"
        faults.append(
            f"It ends with {last}, but it had an entry {head[:12]}: its newest entries are missing."
        )
    applied = {int(version.version) for version in versions if APPLIED in version.tags}
    pending = bool(linked) and linked[-1].number not in applied
    return Ledger(tuple(linked), tuple(faults), pending)


def append_entry(tracking: TrackingConfig, draft: Draft, head: str) -> Entry:
    """Write the draft as the newest entry, not yet marked as applied, and return the entry.

    Args:
        draft: a reason of more than 2000 characters is truncated.
        head: hash of the entry to follow, "" for the first entry.

    Raises:
        ChampionMoved: another entry follows that entry already; every reader ignores this one.
    """
    client = connect(tracking)
    draft = replace(draft, reason=_shortened(draft.reason))
    content = _canonical(asdict(draft) | {"previous": head})
    hash_ = _hash(content)
    _create_ledger_model(client, draft.model)
    if not head:
        client.set_registered_model_tag(draft.model, RECORDED, "1")
    client.create_model_version(
        f"{draft.model}{SUFFIX}",
        SOURCE,
        tags={ENTRY: content, HASH: hash_},
        description=format_entry(draft),
        await_creation_for=None,
    )
    ledger = read_ledger(tracking, draft.model)
    # By hash, not by number: a client that gets no answer from the server sends the request again.
    for entry in ledger.entries:
        if entry.hash == hash_:
            return entry
    faster = " ".join(str(entry) for entry in ledger.entries if entry.previous == head)
    raise ChampionMoved(
        f"Expected to write the next entry of {draft.model}{SUFFIX}, but another process wrote it "
        f"first: {faster} Nothing was changed. See `regraft history "
        f"{shlex.quote(draft.model)}` and try again."
    )


def mark_applied(tracking: TrackingConfig, entry: Entry) -> None:
    """Record that the aliases are set as the newest entry requires."""
    client, ledger_name = connect(tracking), f"{entry.model}{SUFFIX}"
    client.set_registered_model_tag(ledger_name, HEAD, entry.hash)
    client.set_model_version_tag(ledger_name, str(entry.number), APPLIED, "1")


def resolve_model_name(tracking: TrackingConfig, name: str) -> str:
    """Return the name of a registered model, checked; "" selects the only registered model.

    Raises:
        ModelNotFound: there is no model of that name; or the name is "" and the number of
            registered models is not one.
    """
    registered = list_models(tracking)
    if name in registered:
        return name
    if not name and len(registered) == 1:
        return registered[0]
    listed = ", ".join(registered) or "none"
    remedy = "Name one of these." if registered else "Run `regraft train` first."
    expected = f"the model {name}" if name else "exactly one model"
    raise ModelNotFound(f"Expected {expected} in {tracking.uri}, got {listed}. {remedy}")


def format_entry(entry: Draft) -> str:
    """Return the entry as one line of text."""
    before, after = format_version(entry.before), format_version(entry.after)
    changes = {
        "promote": f"{after} became champion after {before}",
        "rollback": f"rolled back from {before} to {after}",
        "outside": f"the champion was changed outside of Regraft, from {before} to {after}",
    }
    change = changes.get(entry.action, f"{entry.action}: {after} stays champion")
    return f"{entry.when} {entry.who}: {change}. {entry.reason}".strip()


def _linked(versions: Iterable[ModelVersion]) -> tuple[list[Entry], list[str]]:
    """Return the valid entries in order, and the faults."""
    linked: list[Entry] = []
    faults: list[str] = []
    heads, number = {""}, 0
    for version in versions:
        gap = range(number + 1, int(version.version))
        faults += [f"Entry {missing} is missing: it was deleted." for missing in gap]
        number = int(version.version)
        entry = _entry(version)
        if entry is None:
            faults.append(f"Entry {number} cannot be read: its content was changed.")
            continue
        head = linked[-1].hash if linked else ""
        # Another process was faster: the entry follows an older head. This is no fault.
        is_rejected = entry.previous != head and entry.previous in heads
        if entry.hash != _hash(version.tags[ENTRY]):
            faults.append(f"Entry {number} was changed: its hash does not match its content.")
        elif not is_rejected and entry.previous != head:
            faults.append(f"Entry {number} follows an entry that does not exist.")
        if not is_rejected:
            linked.append(entry)
            heads.add(entry.hash)
    return linked, faults


def _entry(version: ModelVersion) -> Entry | None:
    """Return the entry of a version, None if its content is not an entry."""
    try:
        content: dict[str, Any] = json.loads(version.tags.get(ENTRY, ""))
        return Entry(number=int(version.version), hash=version.tags.get(HASH, ""), **content)
    except (ValueError, TypeError):
        return None


def _canonical(content: dict[str, Any]) -> str:
    r"""Return the only JSON text of a content.

    Each / is written as \/, as JSON allows. When a state folder is moved, its path is replaced in
    the databases. The escape keeps a path in a reason as it was hashed.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("/", "\\/")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _shortened(reason: str) -> str:
    """Return the reason as one line that any database accepts, at most MAX_REASON characters."""
    line = " ".join(reason.encode(errors="replace").decode().replace("\0", " ").split())
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 1]}…"


def _ledger_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    try:
        return client.get_registered_model(f"{name}{SUFFIX}")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _tags_of(client: MlflowClient, name: str) -> dict[str, str]:
    models = client.search_registered_models(f"name='{name}'")
    return dict(models[0].tags) if models else {}


def _create_ledger_model(client: MlflowClient, name: str) -> None:
    if _ledger_model(client, name):
        return
    description = f"Decisions about {name}, in order. Written by Regraft. It contains no model."
    try:
        client.create_registered_model(f"{name}{SUFFIX}", {LEDGER: "1"}, description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
