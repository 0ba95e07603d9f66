"""Verdicts and duels with the run of the version, so that they can be told and judged again."""

import io
import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from regraft import registry
from regraft.core.config import Config, TrackingConfig, config_of
from regraft.core.errors import ConfigError, ModelNotFound
from regraft.core.state import this_process
from regraft.promotion.duel import Contenders, Duel
from regraft.promotion.verdict import Verdict
from regraft.registry import RegisteredVersion
from regraft.registry.tracking import Run, attach, attached

VERDICT_TAG, JUDGE_TAG = "verdict_id", "judged_by"
_MOVES = ("promote", "rollback", "outside")
_FOLDER = "promotion"
_PHOTOS, _CONTENDERS, _VERDICT, _CONFIG = "photos.parquet", "duel.json", "verdict.json", "rule.json"


@dataclass(frozen=True)
class Kept:
    """A verdict, what it was made of, and the whole configuration that it was made under."""

    verdict: Verdict
    duel: Duel
    rule: Config


def keep(version: RegisteredVersion, kept: Kept, tracking: TrackingConfig) -> None:
    """Stores it with the version's run; the version's tag then says which verdict is its last."""
    photos = io.BytesIO()
    kept.duel.photos.to_parquet(photos, index=False)
    files = {
        _PHOTOS: photos.getvalue(),
        _CONTENDERS: _written(Contenders, kept.duel.contenders),
        _VERDICT: _written(Verdict, kept.verdict),
        _CONFIG: json.dumps(kept.rule.flat(), indent=1).encode(),
    }
    attach(Run(version.run_id, tracking.uri), f"{_FOLDER}/{kept.verdict.id}", files)
    said = {VERDICT_TAG: kept.verdict.id, JUDGE_TAG: this_process()}
    registry.set_tags(tracking, version, said)


def kept_of(version: RegisteredVersion, tracking: TrackingConfig, verdict_id: str = "") -> Kept:
    """A verdict about the version, and its duel.

    Args:
        verdict_id: which; "" is the last one.

    Raises:
        ModelNotFound: it was never judged, or what was stored is gone.
    """
    verdict_id = verdict_id or registry.tags(tracking, version).get(VERDICT_TAG, "")
    run = Run(version.run_id, tracking.uri)
    files = attached(run, f"{_FOLDER}/{verdict_id}") if verdict_id else {}
    if not files:
        found = f"{verdict_id}, whose files are gone" if verdict_id else "none"
        raise ModelNotFound(
            f"Expected the verdict about {version.name}/{version.version} with its run, found "
            f"{found}. Judge it: regraft promote {version.name}/{version.version}"
        )
    try:
        contenders: Contenders = _read(Contenders, files[_CONTENDERS])
        photos = pd.read_parquet(io.BytesIO(files[_PHOTOS]))
        verdict: Verdict = _read(Verdict, files[_VERDICT])
        rule = config_of(json.loads(files[_CONFIG]))
    except (KeyError, ValidationError, ConfigError):
        raise ModelNotFound(
            f"Expected the verdict {verdict_id} about {version.name}/{version.version} as this "
            "Regraft writes it, found another form: an older or newer one judged it. Judge it "
            f"again: regraft promote {version.name}/{version.version}"
        ) from None
    return Kept(verdict, Duel(contenders, photos), rule)


def load_verdict(tracking: TrackingConfig, version: RegisteredVersion) -> Verdict:
    """The last verdict about the version.

    Raises:
        ModelNotFound: as kept_of().
    """
    return kept_of(version, tracking).verdict


def explain(tracking: TrackingConfig, version: RegisteredVersion) -> str:
    """The last verdict about the version, a line a guard, and what the ledger says of it since.

    Raises:
        ModelNotFound: as kept_of().
    """
    verdict = kept_of(version, tracking).verdict
    told = verdict.told(f"{version.name}/{version.version}")
    since = [
        f"  {entry}"
        for entry in registry.entries(tracking, version.name)
        if entry.verdict == verdict.id
        or (entry.action in _MOVES and version.version in (entry.before, entry.after))
    ]
    return "\n".join([told, "", "  In the ledger:", *since]) if since else told


def _written(kind: type[Any], value: object) -> bytes:
    # Not pydantic's own JSON, which would write NaN and infinity as null.
    return json.dumps(TypeAdapter(kind).dump_python(value, mode="json"), indent=1).encode()


def _read(kind: type[Any], content: bytes) -> Any:  # noqa: ANN401 - of the kind that is asked for
    return TypeAdapter(kind).validate_python(json.loads(content))
