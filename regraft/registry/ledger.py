"""The ledger: every decision about what serves, in order, each entry sealed over the one before.

The ledger of a model NAME is a registered model of its own, NAME.ledger, and an entry is a version
of it. MLflow makes a version in one transaction, tags and all, and numbers versions without a gap,
a deleted one's number included. So the registry itself puts bids in order, on SQLite and on a
server, and no lock is needed: of two bids that name the same head, the one with the lower number is
the entry, and every reader passes over the other.

The hash is over what the entry says and the hash before it. It has no key: it finds what was
changed, deleted or cut off, not a forger who writes the whole ledger anew.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from regraft.core.config import TrackingConfig
from regraft.core.errors import ChampionMoved, LedgerBroken, ModelNotFound
from regraft.registry.tracking import connect
from regraft.registry.versions import LEDGER, all_versions, names

Action = Literal["promote", "keep", "hold", "rollback", "reject", "outside"]
SUFFIX = ".ledger"
ENTRY = "regraft.entry"  # on a version: what the entry says, as JSON
HASH = "regraft.hash"
APPLIED = "regraft.applied"  # written when the aliases are where the entry wants them
RECORDED = "regraft.recorded"  # on the model itself: it has a ledger, wherever that is now
HEAD = "regraft.head"  # on the registered model: the hash of the newest applied entry
# An entry is about no file. MLflow's server takes only sources that it need not look up, or such
# as belong to a run; one that named the version would die with it.
SOURCE = "regraft:/ledger"
MAX_REASON = 2000  # characters; older servers keep 5000 a tag, and every / and " counts twice


@dataclass(frozen=True)
class Draft:
    """What an entry will say.

    when: ISO 8601, UTC. who: "user@host".
    before, after: the champion's version before and after, None for none.
    verdict: its id, "" if there was none.
    """

    when: str
    who: str
    action: Action
    model: str
    before: int | None
    after: int | None
    verdict: str
    reason: str


@dataclass(frozen=True)
class Entry(Draft):
    """A line of the ledger: what the draft said, and its place.

    number: as MLflow numbered it, >= 1; bids that lost leave gaps.
    previous: the hash of the entry before, "" for the first. hash: of all but itself and number.
    """

    number: int
    previous: str
    hash: str

    def __str__(self) -> str:
        return sentence(self)


@dataclass(frozen=True)
class Ledger:
    """A ledger as it was read.

    entries: oldest first, without the bids that lost.
    faults: sentences; none if it is what was written.
    pending: whether the newest entry is not carried out to its end.
    """

    entries: tuple[Entry, ...] = ()
    faults: tuple[str, ...] = ()
    pending: bool = False

    @property
    def head(self) -> str:
        """The hash of the newest entry, "" if there is none."""
        return self.entries[-1].hash if self.entries else ""


def entries(tracking: TrackingConfig, name: str) -> tuple[Entry, ...]:
    """What was decided about the model, oldest first; whether it can be trusted, faults() says."""
    return read(tracking, name).entries


def faults(tracking: TrackingConfig, name: str) -> tuple[str, ...]:
    """What is not as it was written, a sentence each; none if the ledger verifies."""
    return read(tracking, name).faults


def verified(tracking: TrackingConfig, name: str) -> Ledger:
    """The ledger of the model, which is empty if nothing was ever decided.

    Raises:
        LedgerBroken: it is not what was written.
    """
    ledger = read(tracking, name)
    if ledger.faults:
        more = f" (and {len(ledger.faults) - 1} more)" if len(ledger.faults) > 1 else ""
        raise LedgerBroken(
            f"Expected the ledger {name}{SUFFIX} in {tracking.uri} as it was written, but: "
            f"{ledger.faults[0]}{more} What serves was not touched. Put MLflow's database back "
            f"from a backup; or keep what `regraft history {name}` still shows, delete the "
            f"registered model {name}{SUFFIX} and the tag {RECORDED} of {name}: the next decision "
            "begins a new ledger."
        )
    return ledger


def read(tracking: TrackingConfig, name: str) -> Ledger:
    """The ledger of the model, whatever its state; empty if there is none."""
    client = connect(tracking)
    book = _book(client, name)  # before the entries: an entry is always older than its mark
    if book is None:
        had_one = RECORDED in _tags_of(client, name)
        gone = f"Its registered model {name}{SUFFIX} is gone, though decisions were recorded there."
        return Ledger(faults=(gone,) * had_one)
    versions = sorted(all_versions(client, book.name), key=lambda version: int(version.version))
    found, faults = _linked(versions)
    if LEDGER not in book.tags:
        faults.append(f"{book.name} has lost its tag {LEDGER}, or is another model of that name.")
    head = book.tags.get(HEAD, "")
    if head and head not in {entry.hash for entry in found}:
        last = f"entry {found[-1].number}" if found else "no entry at all"
        faults.append(
            f"It ends with {last}, but it had an entry {head[:12]}: its tail was cut off."
        )
    applied = {int(version.version) for version in versions if APPLIED in version.tags}
    pending = bool(found) and found[-1].number not in applied
    return Ledger(tuple(found), tuple(faults), pending)


def append(tracking: TrackingConfig, draft: Draft, head: str) -> Entry:
    """The draft as the newest entry, not yet marked as applied.

    Args:
        draft: a reason above 2000 characters is cut.
        head: the hash of the entry that it shall follow, "" for the first.

    Raises:
        ChampionMoved: another entry follows that one already; the bid counts for nothing.
    """
    client = connect(tracking)
    draft = replace(draft, reason=_shortened(draft.reason))
    said = _canonical(asdict(draft) | {"previous": head})
    seal = _hash(said)
    _open_book(client, draft.model)
    if not head:
        client.set_registered_model_tag(draft.model, RECORDED, "1")
    client.create_model_version(
        f"{draft.model}{SUFFIX}",
        SOURCE,
        tags={ENTRY: said, HASH: seal},
        description=sentence(draft),
        await_creation_for=None,
    )
    ledger = read(tracking, draft.model)
    # By the hash, not the number: a client that heard no answer from its server asks twice.
    for entry in ledger.entries:
        if entry.hash == seal:
            return entry
    faster = " ".join(str(entry) for entry in ledger.entries if entry.previous == head)
    raise ChampionMoved(
        f"Expected to write the next entry into {draft.model}{SUFFIX}, but another was faster: "
        f"{faster} Nothing has moved; look at `regraft history {draft.model}` and try again."
    )


def mark_applied(tracking: TrackingConfig, entry: Entry) -> None:
    """Says that the aliases are where the entry, the newest one, wants them."""
    client, book = connect(tracking), f"{entry.model}{SUFFIX}"
    client.set_registered_model_tag(book, HEAD, entry.hash)
    client.set_model_version_tag(book, str(entry.number), APPLIED, "1")


def meant(tracking: TrackingConfig, name: str) -> str:
    """The registered model of that name; "" is the only one that there is.

    Raises:
        ModelNotFound: there is none of that name; or "" was asked, and there is none or several.
    """
    known = names(tracking)
    if name in known:
        return name
    if not name and len(known) == 1:
        return known[0]
    found = ", ".join(known) or "none"
    remedy = "Name one of these." if known else "Run `regraft train` first."
    wanted = f"the model {name}" if name else "one model"
    raise ModelNotFound(f"Expected {wanted} in {tracking.uri}, found {found}. {remedy}")


def sentence(said: Draft) -> str:
    """The entry as one readable sentence."""
    told = {
        "promote": f"{version_text(said.after)} became champion after {version_text(said.before)}",
        "rollback": f"went back from {version_text(said.before)} to {version_text(said.after)}",
        "outside": f"the champion was moved outside of Regraft, from {version_text(said.before)} "
        f"to {version_text(said.after)}",
    }
    what = told.get(said.action, f"{said.action}: {version_text(said.after)} serves on")
    return f"{said.when} {said.who}: {what}. {said.reason}".strip()


def version_text(version: int | None) -> str:
    """The version as it is told: "v3", or "none"."""
    return "none" if version is None else f"v{version}"


def _linked(versions: Iterable[ModelVersion]) -> tuple[list[Entry], list[str]]:
    """The entries that follow each other, and what is wrong."""
    found: list[Entry] = []
    faults: list[str] = []
    heads, number = {""}, 0
    for version in versions:
        gap = range(number + 1, int(version.version))
        faults += [f"Entry {missing} is missing: it was deleted." for missing in gap]
        number = int(version.version)
        entry = _entry(version)
        if entry is None:
            faults.append(f"Entry {number} cannot be read: it is not what was written.")
            continue
        head = found[-1].hash if found else ""
        has_lost = entry.previous != head and entry.previous in heads
        if entry.hash != _hash(version.tags[ENTRY]):
            faults.append(f"Entry {number} was changed: its hash is not that of what it says.")
        elif not has_lost and entry.previous != head:
            faults.append(f"Entry {number} follows an entry that is not there.")
        if not has_lost:
            found.append(entry)
            heads.add(entry.hash)
    return found, faults


def _entry(version: ModelVersion) -> Entry | None:
    """None where the text is none of ours."""
    try:
        said: dict[str, Any] = json.loads(version.tags.get(ENTRY, ""))
        return Entry(number=int(version.version), hash=version.tags.get(HASH, ""), **said)
    except (ValueError, TypeError):
        return None


def _canonical(said: dict[str, Any]) -> str:
    r"""One text for one content.

    With \/ for /, as JSON allows: paths in a moved state folder's databases are made to name the
    new place, and a reason that names one must stay as it was sealed.
    """
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("/", "\\/")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _shortened(reason: str) -> str:
    """One line that any database takes, of at most MAX_REASON characters."""
    line = " ".join(reason.encode(errors="replace").decode().replace("\0", " ").split())
    return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 1]}…"


def _book(client: MlflowClient, name: str) -> RegisteredModel | None:
    try:
        return client.get_registered_model(f"{name}{SUFFIX}")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _tags_of(client: MlflowClient, name: str) -> dict[str, str]:
    found = client.search_registered_models(f"name='{name}'")
    return dict(found[0].tags) if found else {}


def _open_book(client: MlflowClient, name: str) -> None:
    if _book(client, name):
        return
    told = f"What was decided about {name}, in order. Written by Regraft; no model is in it."
    try:
        client.create_registered_model(f"{name}{SUFFIX}", {LEDGER: "1"}, told)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
