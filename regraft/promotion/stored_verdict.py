"""Verdicts and paired evaluations, stored as artifacts of the version's run."""

import io
import json
import shlex
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from regraft import registry
from regraft.core.config import Config, TrackingConfig, config_from_flat
from regraft.core.errors import ConfigError, ModelNotFound
from regraft.core.state import current_process
from regraft.promotion.pair import ModelPair, PairedEvaluation
from regraft.promotion.verdict import Verdict
from regraft.registry import RegisteredVersion
from regraft.registry.tracking import Run, attach_files, load_attachments

VERDICT_TAG, JUDGE_TAG = "verdict_id", "judged_by"
_CHAMPION_ACTIONS = ("promote", "rollback", "outside")
_FOLDER = "promotion"
_PHOTOS_FILE = "photos.parquet"
_PAIR_FILE = "pair.json"
_VERDICT_FILE = "verdict.json"
_CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class StoredVerdict:
    """A verdict, the paired evaluation it is based on, and the whole configuration."""

    verdict: Verdict
    evaluation: PairedEvaluation
    config: Config


def save_verdict(
    version: RegisteredVersion, stored: StoredVerdict, tracking: TrackingConfig
) -> None:
    """Write the verdict to the version's run, then tag the version with the verdict's id."""
    photos = io.BytesIO()
    stored.evaluation.photos.to_parquet(photos, index=False)
    files = {
        _PHOTOS_FILE: photos.getvalue(),
        _PAIR_FILE: _encode(ModelPair, stored.evaluation.pair),
        _VERDICT_FILE: _encode(Verdict, stored.verdict),
        _CONFIG_FILE: json.dumps(stored.config.flat(), indent=1).encode(),
    }
    attach_files(Run(version.run_id, tracking.uri), f"{_FOLDER}/{stored.verdict.id}", files)
    tags = {VERDICT_TAG: stored.verdict.id, JUDGE_TAG: current_process()}
    registry.set_tags(tracking, version, tags)


def load_stored_verdict(
    version: RegisteredVersion, tracking: TrackingConfig, verdict_id: str = ""
) -> StoredVerdict:
    """Return a verdict about the version, with its paired evaluation.

    Args:
        version: the challenger of the verdict.
        tracking: the store of the registry.
        verdict_id: "" for the latest verdict.

    Raises:
        ModelNotFound: the version has no verdict, its files are gone, or another version of Regraft
            wrote them.
    """
    verdict_id = verdict_id or registry.get_tags(tracking, version).get(VERDICT_TAG, "")
    run = Run(version.run_id, tracking.uri)
    files = load_attachments(run, f"{_FOLDER}/{verdict_id}") if verdict_id else {}
    if not files:
        problem = f"no files of {verdict_id}" if verdict_id else "none"
        raise ModelNotFound(
            f"Expected the verdict about {version.name}/{version.version} in its run, found "
            f"{problem}. Judge the version: regraft promote "
            f"{shlex.quote(f'{version.name}/{version.version}')}"
        )
    try:
        pair: ModelPair = _decode(ModelPair, files[_PAIR_FILE])
        photos = pd.read_parquet(io.BytesIO(files[_PHOTOS_FILE]))
        verdict: Verdict = _decode(Verdict, files[_VERDICT_FILE])
        config = config_from_flat(json.loads(files[_CONFIG_FILE]))
    except (KeyError, ValidationError, ConfigError):
        raise ModelNotFound(
            f"Expected the verdict {verdict_id} about {version.name}/{version.version} in the "
            "format of this version of Regraft, found the format of another version. Judge the "
            f"version again: regraft promote "
            f"{shlex.quote(f'{version.name}/{version.version}')}"
        ) from None
    return StoredVerdict(verdict, PairedEvaluation(pair, photos), config)


def load_verdict(tracking: TrackingConfig, version: RegisteredVersion) -> Verdict:
    """Return the latest verdict about the version.

    Raises:
        ModelNotFound: as load_stored_verdict().
    """
    return load_stored_verdict(version, tracking).verdict


def explain(tracking: TrackingConfig, version: RegisteredVersion) -> str:
    """Return the latest verdict as text, a line a guard, and the ledger entries about the version.

    Raises:
        ModelNotFound: as load_stored_verdict().
    """
    verdict = load_stored_verdict(version, tracking).verdict
    text = verdict.format_text(f"{version.name}/{version.version}")
    entries = [
        f"  {entry}"
        for entry in registry.list_entries(tracking, version.name)
        if entry.verdict == verdict.id
        or (entry.action in _CHAMPION_ACTIONS and version.version in (entry.before, entry.after))
    ]
    return "\n".join([text, "", "  In the ledger:", *entries]) if entries else text


def _encode(kind: type[Any], value: object) -> bytes:
    # pydantic's own JSON would write NaN and infinity as null.
    return json.dumps(TypeAdapter(kind).dump_python(value, mode="json"), indent=1).encode()


def _decode(kind: type[Any], content: bytes) -> Any:  # noqa: ANN401 - an instance of kind
    return TypeAdapter(kind).validate_python(json.loads(content))
