"""The record of a state folder, state.json: its format, its path and the places it was given."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.core.errors import StateError
from regraft.core.files import write_atomic

FORMAT = 2
FILE = "state.json"


@dataclass(frozen=True)
class StateRecord:
    """The content of state.json.

    root: path of the folder when it was last opened.
    places: places outside the folder, by setting, such as {"tracking.uri": "http://mlflow:5000"}.
    """

    root: Path
    places: dict[str, str] = field(default_factory=dict)


def read_record(root: Path) -> StateRecord | None:
    """Return the record of the state folder at `root`, None if there is none.

    Raises:
        StateError: the file has other content, or another version of Regraft wrote it.
        OSError: the file cannot be read.
    """
    path = root / FILE
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, recorded = int(content["format"]), Path(content["root"])
        places = {str(key): str(place) for key, place in content.get("places", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StateError(
            f"Expected Regraft's record in {path}, got other content. Restore the file from a "
            "backup, or choose another folder with --state."
        ) from None
    if version != FORMAT:
        writer = "a newer" if version > FORMAT else "an older"
        raise StateError(
            f"Expected a state folder of format {FORMAT} at {root}, got {version}: {writer} "
            "Regraft wrote it. Use that version of Regraft, or choose another folder with --state."
        )
    return StateRecord(recorded, places)


def write_record(root: Path, record: StateRecord) -> None:
    """Write the record of the state folder at `root` in place of the last one."""
    content = {"format": FORMAT, "root": str(record.root), "places": record.places}
    write_atomic(str(root / FILE), json.dumps(content).encode())
