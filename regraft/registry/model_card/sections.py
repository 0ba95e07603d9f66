"""The card as sections of plain text: the same for every form that it is written in."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from regraft.core.files import is_url
from regraft.evaluation.report.findings import bounds, percent, points
from regraft.registry import CHAMPION
from regraft.registry.interpolate import blend_of, start_of
from regraft.registry.model_card.facts import ModelCard
from regraft.registry.tracking.runs import SQLITE

NOT_RECORDED = "not recorded"
NOT_STATED = "not stated"
FEW_PHOTOS = 20  # guess: a class with fewer is named among the limits
_PORT = 5001


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in this order; all of it text that is not yet escaped.

    rows: (name, value). table: rows of as many cells each, the first row its head.
    code: (what it does, command).
    """

    title: str
    rows: tuple[tuple[str, str], ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    code: tuple[tuple[str, str], ...] = ()


def sections(card: ModelCard) -> tuple[Section, ...]:
    """What there is to say of the model, in the order of reading."""
    return (
        _what(card),
        _use(card),
        _results(card),
        _limits(card),
        _classes(card),
        _data(card),
        _training(card),
        _calibration(card),
        _verdict(card),
        _licences(card),
        _reproduce(card),
    )


def _what(card: ModelCard) -> Section:
    preprocessing = card.card.backbone.preprocessing
    champion = card.aliases.get(CHAMPION)
    serves = "yes" if champion == card.version else f"no, version {champion} does"
    return Section(
        "What it is",
        (
            ("Task", f"one of {len(card.card.classes)} classes for each photo"),
            ("Serves", serves if champion else "no, and no other version does"),
            ("Aliases", ", ".join(card.called) or "none"),
            ("Registered", f"{card.made:%Y-%m-%d %H:%M} UTC"),
            ("Reads", f"photos, cropped to {preprocessing.size} x {preprocessing.size} pixels"),
            ("Content hash", card.content_hash),
        ),
    )


def _use(card: ModelCard) -> Section:
    model = shlex.quote(card.reference)
    place, state = _places(card.tracking_uri)
    serve = f"mlflow models serve --model-uri {shlex.quote(f'models:/{card.reference}')}"
    # By way of a pipe: as an argument, a photo would be too long for the system.
    body = '{"dataframe_split": {"columns": ["image"], "data": [["%s"]]}}'
    photo = "$(base64 < PHOTO | tr -d '\\n')"
    url = f"http://127.0.0.1:{_PORT}/invocations"
    where = f"Run them in the folder that holds {state}." if state else ""
    return Section(
        "How to use it",
        notes=tuple(filter(None, (where, "PHOTO is the path of an image file."))),
        code=(
            ("Label a photo:", f"regraft predict PHOTO --model {model}" + _option(state)),
            (
                "Serve it on this machine:",
                f"MLFLOW_TRACKING_URI={place} {serve} --env-manager local --port {_PORT}",
            ),
            (
                "Ask the server:",
                f"printf '{body}' \"{photo}\" \\\n  | curl {url} --data-binary @- "
                "-H 'Content-Type: application/json'",
            ),
        ),
    )


def _option(state: str) -> str:
    return f" --state {shlex.quote(state)}" if state else ""


def _places(uri: str) -> tuple[str, str]:
    """MLflow's address and the state folder's name, relative to the folder that holds it.

    A card is handed on, so it names no folder above.
    """
    if not uri.startswith(SQLITE):
        return shlex.quote(uri), ""
    database = PurePosixPath(uri.removeprefix(SQLITE))
    folder = database.parent.name
    return shlex.quote(f"{SQLITE}{folder}/{database.name}"), folder


def _results(card: ModelCard) -> Section:
    metrics, level = card.metrics, percent(card.level, 0)
    rows = [("Test accuracy", _shown(card.accuracy.value, card.accuracy.low, card.accuracy.high))]
    names = {"baseline": "Always the largest class", "macro_f1": "Macro-F1"}
    tops = {name: f"Top-{name.split('_')[1]} accuracy" for name in metrics if _is_top(name)}
    for key, name in (names | tops).items():
        value = metrics.get(key, float("nan"))
        low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
        rows.append((name, _shown(value, low, high)))
    rows.append(("Gain from the pretrained weights", _gain(card)))
    return Section(
        "Results",
        (("Test photos", str(card.n_test or NOT_RECORDED)), *rows),
        notes=(f"In brackets {level} intervals, over the drawing of the photos.", *_other(card)),
    )


def _is_top(name: str) -> bool:
    return name.startswith("top_") and name.endswith("_accuracy")


def _shown(value: float, low: float | None, high: float | None) -> str:
    if value != value:
        return NOT_RECORDED
    between = f" ({bounds(low, high)})" if low is not None and high is not None else ""
    return f"{percent(value)}{between}"


def _gain(card: ModelCard) -> str:
    metrics = card.metrics
    if "transfer_gain" not in metrics or "random_accuracy" not in metrics:
        return NOT_RECORDED
    random = percent(metrics["random_accuracy"])
    return f"{points(metrics['transfer_gain'])} points over random ones ({random})"


def _other(card: ModelCard) -> Iterator[str]:
    """Judged again later on other photos, its own run's numbers are of the first ones."""
    then = card.metrics.get("n_test")
    if then is not None and then != card.n_test:
        yield (
            f"The accuracy is of its last judgement; the other numbers are of its first one, on "
            f"{then:.0f} test photos."
        )


def _limits(card: ModelCard) -> Section:
    return Section("Limits", (("Intended use", NOT_STATED),), notes=tuple(_limits_of(card)))


def _limits_of(card: ModelCard) -> Iterator[str]:
    if not card.abstain_below:
        yield "Every photo gets one of these classes, whatever it shows."
    if card.n_test:
        wide = 100 * (card.accuracy.high - card.accuracy.low)
        yield (
            f"{card.n_test} test photos leave the accuracy uncertain: the {percent(card.level, 0)} "
            f"interval is {wide:.1f} points wide."
        )
    if card.accuracy.low <= card.metrics.get("baseline_high", 0.0):
        yield "Its accuracy is not clearly above that of always saying the largest class."
    if card.metrics.get("transfer_gain", 0.0) < 0:
        yield "On the sample, its pretrained weights were worse than random ones."
    few = card.counts[card.counts.train < FEW_PHOTOS]
    if len(few):
        told = ", ".join(f"{row.label} ({row.train})" for row in few.itertuples())
        yield f"Classes trained on fewer than {FEW_PHOTOS} photos: {told}."


def _classes(card: ModelCard) -> Section:
    rows = [(str(r.label), str(r.train), str(r.validation)) for r in card.counts.itertuples()]
    told = card.card.contract
    changed = (f"Compared with the model it started from: {told}.",) if card.card.parent else ()
    return Section("Classes", table=(("Class", "Train", "Validation"), *rows), notes=changed)


def _data(card: ModelCard) -> Section:
    train, validation = card.counts.train.sum(), card.counts.validation.sum()
    return Section(
        "Data",
        (
            ("Source", _last_name(card.card.config.get("ingest.photos", "")) or NOT_RECORDED),
            ("Photos", f"{train} to train, {validation} to validate, {card.n_test} to test"),
            ("Digest", card.card.dataset_digest or NOT_RECORDED),
        ),
    )


def _training(card: ModelCard) -> Section:
    info, config, tags = card.card.backbone, card.card.config, card.run_tags
    task = info.source_task
    start, blend = start_of(card.card), blend_of(card.card)
    tuned = {"Epochs at most": "tune.epochs", "Seed": "tune.seed"}
    told = {"Kept phase": "kept_phase", "Ended": "stopped", "Thawed part": "trained_as"}
    return Section(
        "Training",
        (
            ("Backbone", f"{info.source} ({info.architecture})"),
            ("Source task", task.data + (f", {task.n_classes} classes" if task.n_classes else "")),
            ("Weights, sha256", info.sha256),
            (
                "Started from",
                f"the model {start}" if start else "these weights",
            ),
            *(
                [("Blended with", f"{1 - blend.alpha:.0%} of the model {blend.champion}")]
                if blend
                else []
            ),
            ("Freeze policy", config.get("freeze.policy", NOT_RECORDED)),
            *((name, config.get(key, NOT_RECORDED)) for name, key in tuned.items()),
            *((name, tags[key]) for name, key in told.items() if tags.get(key)),
            ("Libraries", ", ".join(f"{n} {v}" for n, v in card.card.versions.items())),
            ("Commit of the code", card.tags.get("git_sha") or NOT_RECORDED),
            ("MLflow run", card.run_id or NOT_RECORDED),
        ),
    )


def _calibration(card: ModelCard) -> Section:
    before, after = (card.metrics.get(f"ece_{when}", float("nan")) for when in ("before", "after"))
    least = card.abstain_below
    return Section(
        "Calibration and abstention",
        (
            ("Temperature", f"{card.card.temperature:.3f}"),
            ("Calibration error", _shown(after, None, None)),
            ("Before the temperature", _shown(before, None, None)),
            ("Says unsure below", percent(least) if least else "never: every photo is answered"),
        ),
    )


def _verdict(card: ModelCard) -> Section:
    return Section(
        "Verdict",
        (
            ("Decision", card.tags.get("verdict") or "not judged yet"),
            ("Reason", card.tags.get("why") or NOT_RECORDED),
        ),
        notes=("Of its last judgement. What happened before stands in the ledger.",),
    )


def _licences(card: ModelCard) -> Section:
    weights = card.card.backbone.source_task.licence
    return Section(
        "Licences", (("Pretrained weights", weights or NOT_STATED), ("Photos", NOT_STATED))
    )


def _reproduce(card: ModelCard) -> Section:
    _, state = _places(card.tracking_uri)
    command = f"regraft reproduce {shlex.quote(card.reference)}"
    return Section(
        "How to reproduce it",
        code=(
            (
                "Train it again from its own record and compare; nothing is registered:",
                command + _option(state),
            ),
        ),
    )


def _last_name(place: str) -> str:
    """A local folder by its own name: a card is handed on. A URL as it is."""
    return place if is_url(place) else PurePosixPath(place).name
