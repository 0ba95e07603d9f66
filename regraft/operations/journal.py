"""The journal: one file for each call of `regraft retrain` and `regraft watch`.

<url>/attempts/<id>.json   an Attempt
<url>/watches/<id>.json    a Watch

Files are only added, never changed. Each is written atomically and named after its time, so any
number of processes may write, and a killed process leaves no partial record. This module imports
neither MLflow nor torch, because `regraft retrain` has to report "nothing has changed" within
seconds.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from regraft.core.errors import JournalBroken
from regraft.core.files import list_files, read_files, try_read_files, write_if_absent
from regraft.core.outcomes import AttemptOutcome
from regraft.operations.advice import RetrainAdvice

FORMAT = 2
"""The format number in each file; raised when a field of a record changes. Format 1 had none."""


@dataclass(frozen=True)
class Attempt:
    """A call of `regraft retrain`, from its start to its end.

    name: of the model. started, ended: ISO 8601, UTC. who: user@host.
    reason: one sentence. fingerprint: of the photos and the configuration, 64 hex digits.
    advice: None if the attempt ended before the advice. run: ZenML run name, "" if there is none.
    version, verdict: the trained version and its verdict's id, None and "" without a training.
    accuracy, accuracy_low, accuracy_high: of that version on today's n_test test photos, in [0, 1].
    champion: the version that serves after the attempt.
    n_photos: in all splits. n_waiting: photos in the inbox without a label.
    started_from, interpolation: one sentence each, "" without a training.
    settings: settings that differ from the defaults, by "section.field".
    weakened: guards that were weaker than for the model judged before, as {setting: value before}.
    aliases: of the model at the end of the attempt, as text; None if they could not be read.
    flips: photos that the champion has right and the version wrong. flips_saved: how many fewer
        than without the interpolation (on the validation photos).
    """

    name: str
    started: str
    ended: str
    who: str
    outcome: AttemptOutcome
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
    weakened: dict[str, str] = field(default_factory=dict)
    aliases: str | None = None

    def __str__(self) -> str:
        return f"retrain: {self.outcome}, {self.reason}"

    @property
    def seconds(self) -> float:
        """The duration of the attempt."""
        started, ended = datetime.fromisoformat(self.started), datetime.fromisoformat(self.ended)
        return (ended - started) / _SECOND

    @property
    def was_trained(self) -> bool:
        """Whether a model was trained and judged."""
        return self.version is not None

    @property
    def awaits_revision(self) -> bool:
        """Whether the champion stayed, which lacks the class names or the threshold asked for."""
        if self.outcome not in ("keep", "hold") or self.advice is None:
            return False
        is_named = any(reason.name == "revision" for reason in self.advice.reasons)
        return is_named and self.advice.decision == "retrain"


@dataclass(frozen=True)
class Watch:
    """A drift check of new photos by `regraft watch`.

    when: ISO 8601, UTC. version: the version whose reference was used.
    photos: the folder or manifest that the user named.
    drifted: None if there were too few photos to tell.
    p_value: the smallest p-value after the correction. reason: one sentence.
    page: the report's path.
    """

    name: str
    when: str
    who: str
    version: int
    photos: str
    n_photos: int
    drifted: bool | None
    p_value: float
    reason: str
    page: str = ""


_Record = TypeVar("_Record", Attempt, Watch)
_SECOND = timedelta(seconds=1)
_STAMP = "%Y%m%dT%H%M%S.%f"  # text order is time order
# Module constants, because creating an adapter takes longer than reading fifty records.
_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Attempt, Watch)}
_FOLDERS: dict[type, str] = {Attempt: "attempts", Watch: "watches"}


def write_record(url: str, record: Attempt | Watch) -> str:
    """Write the record to the journal and return its id.

    Args:
        url: the journal's folder, local path or fsspec URL.
    """
    when = record.ended if isinstance(record, Attempt) else record.when
    fields = {"format": FORMAT, **asdict(record)}
    text = json.dumps(fields, indent=1, ensure_ascii=False)
    folder = f"{url}/{_FOLDERS[type(record)]}"
    timestamp = _next_timestamp(folder, datetime.fromisoformat(when).astimezone(UTC))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    record_id = f"{timestamp.strftime(_STAMP)}-{digest}"
    write_if_absent(f"{folder}/{record_id}.json", text.encode())
    return record_id


@dataclass(frozen=True)
class Journal:
    """All readable records, oldest first. broken: a sentence for each other file: path, remedy."""

    attempts: tuple[Attempt, ...]
    watches: tuple[Watch, ...]
    broken: tuple[str, ...]


def read_journal(url: str) -> Journal:
    """Return all records of all models, for readers; a broken file hides no other record."""
    attempts, broken_attempts = _read_valid(url, Attempt)
    watches, broken_watches = _read_valid(url, Watch)
    return Journal(tuple(attempts), tuple(watches), (*broken_attempts, *broken_watches))


def read_attempts(url: str, name: str = "") -> list[Attempt]:
    """Return all attempts, oldest first.

    Args:
        name: of the model; "" = all models.

    Raises:
        JournalBroken: a file is damaged or has another format.
    """
    return [attempt for attempt in _read_records(url, Attempt) if name in ("", attempt.name)]


def read_watches(url: str, name: str = "") -> list[Watch]:
    """Return all drift checks, oldest first.

    Args:
        name: of the model; "" = all models.

    Raises:
        JournalBroken: a file is damaged or has another format.
    """
    return [watch for watch in _read_records(url, Watch) if name in ("", watch.name)]


def last_attempt(url: str, name: str) -> Attempt | None:
    """Return the newest attempt of the model, None if there is none.

    Reads files from the newest backwards, only as far as necessary.

    Raises:
        JournalBroken: a file that was read is damaged or has another format.
    """
    fs, paths = list_files(f"{url}/{_FOLDERS[Attempt]}", ".json")
    for path in reversed(paths):
        attempt = _parse_record(fs.cat_file(path), path, Attempt)
        if attempt.name == name:
            return attempt
    return None


def last_judged(url: str, name: str) -> Attempt | None:
    """Return the newest attempt that trained and judged a model, None if there is none.

    The next attempt has its settings. Those of an attempt that did nothing are not passed on:
    nobody saw what they do.

    Raises:
        JournalBroken: a file is damaged or has another format.
    """
    judged = [attempt for attempt in read_attempts(url, name) if attempt.was_trained]
    return judged[-1] if judged else None


def spent_s(past: list[Attempt], now: datetime, days: float = 7.0) -> float:
    """Return the seconds of training in the days before now, failed attempts included.

    Killed attempts count 0, because their records hold when the kill was noticed, not when it
    happened. A record dated after now is from a clock that was set back since: it was written
    before the records that follow it, so it counts until one of those is too old.

    Args:
        past: oldest first, as read_attempts() returns them.
    """
    since, total, latest = now - timedelta(days=days), 0.0, now
    for each in reversed(past):
        ended = datetime.fromisoformat(each.ended)
        if ended > now:
            ended = latest
        else:
            latest = min(latest, ended)
        if ended > since and each.outcome not in ("skip", "postpone", "killed"):
            total += max(0.0, each.seconds)
    return total


def _next_timestamp(folder: str, moment: datetime) -> datetime:
    """Return the moment, or 1 microsecond after the newest record if that is later.

    Keeps the order of the files if a clock was wrong or was set back.
    """
    _, paths = list_files(folder, ".json")
    for path in reversed(paths):
        stamp = path.rpartition("/")[2].partition("-")[0]
        try:
            newest = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
        except ValueError:  # no record of Regraft; readers report the file
            continue
        return max(moment, newest + timedelta(microseconds=1))
    return moment


def _read_records(url: str, kind: type[_Record]) -> list[_Record]:
    fs, paths = list_files(f"{url}/{_FOLDERS[kind]}", ".json")
    records = zip(read_files(fs, paths), paths, strict=True)
    return [_parse_record(content, path, kind) for content, path in records]


def _read_valid(url: str, kind: type[_Record]) -> tuple[list[_Record], list[str]]:
    """Return the readable records of a kind, and a sentence for each other file."""
    fs, paths = list_files(f"{url}/{_FOLDERS[kind]}", ".json")
    records, broken = [], []
    for path, content in zip(paths, try_read_files(fs, paths), strict=True):
        if isinstance(content, Exception):
            broken.append(f"Expected a readable file {path}, got: {content}. Correct it.")
            continue
        try:
            records.append(_parse_record(content, path, kind))
        except JournalBroken as error:
            broken.append(str(error))
    return records, broken


def _parse_record(data: bytes, path: str, kind: type[_Record]) -> _Record:
    try:
        fields = json.loads(data)
    except ValueError as error:
        raise _broken(path, f"no JSON ({error})") from None
    number = fields.get("format") if isinstance(fields, dict) else None
    if number != FORMAT:
        raise _broken(path, f"format {number}")
    try:
        record: _Record = _ADAPTERS[kind].validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _broken(path, f"a wrong field ({where}: {first['msg']})") from None
    return record


def _broken(path: str, got: str) -> JournalBroken:
    return JournalBroken(
        f"Expected a journal record of format {FORMAT} in {path}, got {got}. Restore the file from "
        "a backup, or move it out of the journal's folder."
    )
