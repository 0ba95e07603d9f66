"""What becomes of a changed setting while the photos stay the same (docs/retraining.md)."""

import shlex
from collections.abc import Mapping
from typing import Literal

from regraft.core.config import Config

Effect = Literal["revise", "judge", "evaluate", "train", "none"]
"""revise = a new version with the same weights; judge, evaluate, train = it takes effect when a
model is judged, evaluated or trained the next time; none = it changes no model and no verdict."""

_BY_SECTION: Mapping[str, Effect] = {
    "ingest": "train",
    "split": "train",
    "backbone": "train",
    "freeze": "train",
    "tune": "train",
    "evaluate": "evaluate",
    "registry": "judge",
    "classes": "judge",
    "behaviour": "judge",
    "predict": "revise",
    "promote": "judge",
}
_BY_SETTING: Mapping[str, Effect] = {
    "classes.renamed": "revise",
    "ingest.photos": "none",  # given by each call
    "ingest.n_workers": "none",
    "backbone.sha256": "none",  # noted by a training itself
}
_PLACES = ("_url", ".uri")


def effect_of(setting: str) -> Effect:
    """Return what a change of the setting "section.field" leads to while the photos stay."""
    if setting.endswith(_PLACES):
        return "none"
    return _BY_SETTING.get(setting) or _BY_SECTION.get(setting.partition(".")[0], "none")


def describe_effects(before: Mapping[str, str], after: Config, model: str) -> str:
    """Return what becomes of the settings that a call without a training changes, "" if none.

    Args:
        before: the settings without this call, as Config.flat() returns them.
        after: the settings of this call.
        model: the newest version as "name/version".
    """
    changed: dict[Effect, list[str]] = {}
    for setting, value in after.flat().items():
        if value != before.get(setting, value):
            changed.setdefault(effect_of(setting), []).append(f"{setting}={value}")
    texts: Mapping[Effect, str] = {
        "revise": f"changes nothing that {model} answers, or was judged with it before",
        "judge": f"judges the next model; to judge {model} by it: regraft promote {model}",
        "evaluate": "shows in the next evaluation; to evaluate the same model again: regraft train",
        "train": "takes effect in the next training; to train now: regraft train",
    }
    parts = []
    for effect, text in texts.items():
        if settings := changed.get(effect):
            options = " ".join(f"--set {shlex.quote(setting)}" for setting in settings)
            remedy = f"{text} {options}" if effect == "judge" else text
            parts.append(f"{', '.join(settings)} {remedy}")
    return "; ".join(parts)
