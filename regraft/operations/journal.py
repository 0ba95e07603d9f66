"""The journal: what every call of `regraft retrain` and `regraft watch` came to, a file each.

<url>/attempts/<id>.json   an Attempt
<url>/watches/<id>.json    a Watch

Files are only ever added, each written whole and named after its time, so that any number of
processes may write, and a killed one leaves no half of a record. Nothing here needs MLflow or
torch: that nothing has changed must be said in seconds.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from regraft.core.errors import JournalBroken
from regraft.core.files import listed, write_once
from regraft.operations.advice import RetrainAdvice

Judged = Literal["promoted", "kept", "held", "waiting"]
Outcome = Literal[Judged, "skipped", "postponed", "failed", "killed"]


@dataclass(frozen=True)
class Attempt:
    """One call of `regraft retrain`, from its beginning to its end.

    name: of the model. began, ended: ISO 8601, UTC. who: user@host.
    reason: one sentence. fingerprint: of the photos and the configuration, 64 hex digits.
    advice: None if it did not come so far. run: of ZenML, "" if none.
    version, verdict: what was trained and judged, None and "" if nothing was.
    accuracy, accuracy_low, accuracy_high: of that version on today's n_test test photos.
    champion: who serves after it. n_photos: on all sides. n_waiting: in the inbox, without a label.
    started_from, interpolation: in a sentence, "" if nothing was trained.
    settings: what the configuration said other than the defaults, by "section.field".
    aliases: of the model when the attempt ended, as text; None if they could not be asked.
    flips, flips_saved: photos that the champion has right and the version wrong; how many fewer
        than without the interpolation (on the validation photos).
    """

    name: str
    began: str
    ended: str
    who: str
    outcome: Outcome
    reason: str
    fingerprint: str = ""
    advice: RetrainAdvice | None = None
    run: str = ""
    version: int | None = None
    verdict: str = ""
    champion: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    n_test: int = 0
    n_photos: int = 0
    n_waiting: int = 0
    started_from: str = ""
    interpolation: str = ""
    flips: int = 0
    flips_saved: int = 0
    settings: dict[str, str] = field(default_factory=dict)
    aliases: str | None = None

    def __str__(self) -> str:
        return f"retrain: {self.outcome}, {self.reason}"

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.began)) / _SECOND

    @property
    def was_trained(self) -> bool:
        """Whether a model was trained and judged."""
        return self.version is not None


@dataclass(frozen=True)
class Watch:
    """One look at new photos: whether they are of another kind than the champion's.

    when: ISO 8601, UTC. version: whose reference it was. photos: what the user named.
    p_value: the smallest one after the correction. reason: one sentence. page: the report's path.
    """

    name: str
    when: str
    who: str
    version: int
    photos: str
    n_photos: int
    drifted: bool
    p_value: float
    reason: str
    page: str = ""


_Record = TypeVar("_Record", Attempt, Watch)
_SECOND = timedelta(seconds=1)
_STAMP = "%Y%m%dT%H%M%S.%f"  # sorts as the time does
# Made once: to make one takes longer than to read fifty records.
_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Attempt, Watch)}
_KINDS: dict[type, str] = {Attempt: "attempts", Watch: "watches"}


def write(url: str, record: Attempt | Watch) -> str:
    """Adds the record to the journal; its id.

    Args:
        url: the journal's folder, local path or fsspec URL.
    """
    when = record.ended if isinstance(record, Attempt) else record.when
    text = json.dumps(asdict(record), indent=1, ensure_ascii=False)
    folder = f"{url}/{_KINDS[type(record)]}"
    moment = _after_all(folder, datetime.fromisoformat(when).astimezone(UTC))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    record_id = f"{moment.strftime(_STAMP)}-{digest}"
    write_once(f"{folder}/{record_id}.json", text.encode())
    return record_id


def attempts(url: str, name: str = "") -> list[Attempt]:
    """Every attempt, oldest first.

    Args:
        name: of the model; "" = of all.

    Raises:
        JournalBroken: a file there is no record.
    """
    return [one for one in _read(url, Attempt) if name in ("", one.name)]


def watches(url: str, name: str = "") -> list[Watch]:
    """Every look at new photos, oldest first; see attempts()."""
    return [one for one in _read(url, Watch) if name in ("", one.name)]


def last_attempt(url: str, name: str) -> Attempt | None:
    """The newest attempt, None if there is none; only what is needed is read.

    Raises:
        JournalBroken: as attempts().
    """
    fs, paths = listed(f"{url}/{_KINDS[Attempt]}", ".json")
    for path in reversed(paths):
        attempt = _parsed(fs.cat_file(path), path, Attempt)
        if attempt.name == name:
            return attempt
    return None


def last_settings(url: str, name: str) -> dict[str, str] | None:
    """The settings of the newest attempt that came to an end of its own, None if there is none.

    Those of a failed one may be why it failed.
    """
    for attempt in reversed(attempts(url, name)):
        if attempt.outcome not in ("failed", "killed"):
            return attempt.settings
    return None


def spent_s(past: list[Attempt], now: datetime, days: float = 7.0) -> float:
    """Seconds that trainings took in the days before now, the failed ones too.

    Nobody knows when a killed one stopped, only when it was found; it counts for nothing.
    """
    since = now - timedelta(days=days)
    recent = [one for one in past if since < datetime.fromisoformat(one.ended) <= now]
    idle = ("skipped", "postponed", "killed")
    return sum(max(0.0, one.seconds) for one in recent if one.outcome not in idle)


def _after_all(folder: str, moment: datetime) -> datetime:
    """The moment, or just after the newest record: a clock may have been wrong, or be set back."""
    _, paths = listed(folder, ".json")
    if not paths:
        return moment
    stamp = paths[-1].rpartition("/")[2].partition("-")[0]
    newest = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    return max(moment, newest + timedelta(microseconds=1))


def _read(url: str, kind: type[_Record]) -> list[_Record]:
    fs, paths = listed(f"{url}/{_KINDS[kind]}", ".json")
    return [_parsed(fs.cat_file(path), path, kind) for path in paths]


def _parsed(data: bytes, path: str, kind: type[_Record]) -> _Record:
    try:
        record: _Record = _ADAPTERS[kind].validate_json(data)
        return record
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise JournalBroken(
            f"Expected a record of Regraft in {path}, got something else ({where}: "
            f"{first['msg']}). Put it back from a backup, or move it away."
        ) from None
