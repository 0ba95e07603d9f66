"""The sections of a model card as plain text, shared by all output formats."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from regraft.core.files import is_url
from regraft.evaluation.report.numbers import bounds, percent, points
from regraft.registry import CHAMPION
from regraft.registry.blend_record import read_blend, training_start
from regraft.registry.model_card.facts import ModelCard
from regraft.registry.tracking.runs import SQLITE

NOT_RECORDED = "not recorded"
NOT_STATED = "not stated"
FEW_PHOTOS = 20  # guess: the limits list classes with fewer training photos
_PORT = 5001


@dataclass(frozen=True)
class Section:
    """A heading and its content, in the order of the fields; the text is not escaped.

    rows: (name, value). table: rows with the same number of cells; the first row is the header.
    code: (purpose, command).
    """

    title: str
    rows: tuple[tuple[str, str], ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    code: tuple[tuple[str, str], ...] = ()


def sections(card: ModelCard) -> tuple[Section, ...]:
    """Return the sections of the card in reading order."""
    return (
        _overview(card),
        _usage(card),
        _results(card),
        _limits(card),
        _classes(card),
        _data(card),
        _training(card),
        _calibration(card),
        _verdict(card),
        _licences(card),
        _reproduction(card),
    )


def _overview(card: ModelCard) -> Section:
    preprocessing = card.card.backbone.preprocessing
    champion = card.aliases.get(CHAMPION)
    if champion is None:
        serves = "no, there is no champion"
    elif champion == card.version:
        serves = "yes"
    else:
        serves = f"no, the champion is version {champion}"
    return Section(
        "Overview",
        (
            ("Task", f"one of {len(card.card.classes)} classes for each photo"),
            ("Serves", serves),
            ("Aliases", ", ".join(card.own_aliases) or "none"),
            ("Registered", f"{card.registered:%Y-%m-%d %H:%M} UTC"),
            ("Input", f"photos, cropped to {preprocessing.size} x {preprocessing.size} pixels"),
            ("Content hash", card.content_hash),
        ),
    )


def _usage(card: ModelCard) -> Section:
    model = shlex.quote(card.reference)
    uri, state = _portable_paths(card.tracking_uri)
    serve = f"mlflow models serve --model-uri {shlex.quote(f'models:/{card.reference}')}"
    # The request is sent through a pipe: as an argument, a photo would exceed the system's limit.
    body = '{"dataframe_split": {"columns": ["image"], "data": [["%s"]]}}'
    photo = "$(base64 < PHOTO | tr -d '\\n')"
    url = f"http://127.0.0.1:{_PORT}/invocations"
    folder = f"Run these commands in the folder that contains {state}." if state else ""
    return Section(
        "Usage",
        notes=tuple(filter(None, (folder, "PHOTO is the path of an image file."))),
        code=(
            ("Label a photo:", f"regraft predict PHOTO --model {model}" + _state_option(state)),
            (
                "Serve the model on this machine:",
                f"MLFLOW_TRACKING_URI={uri} {serve} --env-manager local --port {_PORT}",
            ),
            (
                "Send a request to the server:",
                f"printf '{body}' \"{photo}\" \\\n  | curl {url} --data-binary @- "
                "-H 'Content-Type: application/json'",
            ),
        ),
    )


def _state_option(state: str) -> str:
    return f" --state {shlex.quote(state)}" if state else ""


def _portable_paths(uri: str) -> tuple[str, str]:
    """Return MLflow's URI and the name of the state folder, both relative to its parent folder.

    A card may be published, so it must not contain the path of a private folder.
    """
    if not uri.startswith(SQLITE):
        return shlex.quote(uri), ""
    database = PurePosixPath(uri.removeprefix(SQLITE))
    folder = database.parent.name
    return shlex.quote(f"{SQLITE}{folder}/{database.name}"), folder


def _results(card: ModelCard) -> Section:
    metrics, level = card.metrics, percent(card.level, 0)
    accuracy = _with_interval(card.accuracy.value, card.accuracy.low, card.accuracy.high)
    rows = [("Test photos", str(card.n_test or NOT_RECORDED)), ("Test accuracy", accuracy)]
    labels = {"baseline": "Always the largest class", "macro_f1": "Macro-F1"}
    labels |= {key: f"Top-{key.split('_')[1]} accuracy" for key in metrics if _is_top_k(key)}
    for key, label in labels.items():
        value = metrics.get(key, float("nan"))
        low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
        rows.append((label, _with_interval(value, low, high)))
    rows.append(("Gain from the pretrained weights", _gain(card)))
    note = f"Brackets contain {level} intervals, over the sampling of the photos."
    return Section("Results", tuple(rows), notes=(note, *_older_metrics(card)))


def _is_top_k(name: str) -> bool:
    return name.startswith("top_") and name.endswith("_accuracy")


def _with_interval(value: float, low: float | None, high: float | None) -> str:
    if value != value:
        return NOT_RECORDED
    interval = f" ({bounds(low, high)})" if low is not None and high is not None else ""
    return f"{percent(value)}{interval}"


def _gain(card: ModelCard) -> str:
    metrics = card.metrics
    if "transfer_gain" not in metrics or "random_accuracy" not in metrics:
        return NOT_RECORDED
    random = percent(metrics["random_accuracy"])
    return f"{points(metrics['transfer_gain'])} points over random weights ({random})"


def _older_metrics(card: ModelCard) -> Iterator[str]:
    """Yield a note if the model was evaluated again on other photos.

    The metrics of its training run are those of the first evaluation.
    """
    n_first = card.metrics.get("n_test")
    if n_first is not None and n_first != card.n_test:
        yield (
            "The accuracy is from the last evaluation. The other numbers are from the first "
            f"evaluation, on {n_first:.0f} test photos."
        )


def _limits(card: ModelCard) -> Section:
    return Section("Limits", (("Intended use", NOT_STATED),), notes=tuple(_limit_notes(card)))


def _limit_notes(card: ModelCard) -> Iterator[str]:
    if not card.abstain_below:
        yield "Every photo gets one of these classes, whatever it shows."
    if card.n_test:
        width = 100 * (card.accuracy.high - card.accuracy.low)
        yield (
            f"{card.n_test} test photos leave the accuracy uncertain: the {percent(card.level, 0)} "
            f"interval is {width:.1f} points wide."
        )
    if card.accuracy.low <= card.metrics.get("baseline_high", 0.0):
        yield "The accuracy is not clearly higher than that of always predicting the largest class."
    if card.metrics.get("transfer_gain", 0.0) < 0:
        yield "On the sample, the pretrained weights were worse than random weights."
    small = card.counts[card.counts.train < FEW_PHOTOS]
    if len(small):
        listed = ", ".join(f"{row.label} ({row.train})" for row in small.itertuples())
        yield f"Classes with fewer than {FEW_PHOTOS} photos for training: {listed}."


def _classes(card: ModelCard) -> Section:
    header = ("Class", "Train", "Validation")
    rows = [(str(r.label), str(r.train), str(r.validation)) for r in card.counts.itertuples()]
    notes: tuple[str, ...] = ()
    if card.card.parent:
        notes = (f"Changes to the classes of the parent model: {card.card.contract}.",)
    return Section("Classes", table=(header, *rows), notes=notes)


def _data(card: ModelCard) -> Section:
    train, validation = card.counts.train.sum(), card.counts.validation.sum()
    source = _public_source(card.card.config.get("ingest.photos", ""))
    return Section(
        "Data",
        (
            ("Source", source or NOT_RECORDED),
            (
                "Photos",
                f"{train} for training, {validation} for validation, {card.n_test} for test",
            ),
            ("Digest", card.card.dataset_digest or NOT_RECORDED),
        ),
        notes=card.card.notes,
    )


def _training(card: ModelCard) -> Section:
    info, config = card.card.backbone, card.card.config
    task = info.source_task
    start = training_start(card.card)
    blend = read_blend(card.card)
    rows = [
        ("Backbone", f"{info.source} ({info.architecture})"),
        ("Source task", task.data + (f", {task.n_classes} classes" if task.n_classes else "")),
        ("Weights, sha256", info.sha256),
        ("Started from", f"the model {start}" if start else "these weights"),
    ]
    if blend:
        rows.append(("Blended with", f"{1 - blend.alpha:.0%} of the model {blend.champion}"))
    rows += [
        ("Freeze policy", config.get("freeze.policy", NOT_RECORDED)),
        ("Maximum of epochs", config.get("tune.epochs", NOT_RECORDED)),
        ("Seed", config.get("tune.seed", NOT_RECORDED)),
    ]
    tag_labels = {
        "selected_phase": "Selected phase",
        "stopped": "Stopped because",
        "trained_as": "Thawed part",
    }
    rows += [(label, card.run_tags[t]) for t, label in tag_labels.items() if card.run_tags.get(t)]
    rows += [
        ("Libraries", ", ".join(f"{n} {v}" for n, v in card.card.versions.items())),
        ("Commit of the code", card.tags.get("git_sha") or NOT_RECORDED),
        ("MLflow run", card.run_id or NOT_RECORDED),
    ]
    return Section("Training", tuple(rows))


def _calibration(card: ModelCard) -> Section:
    before = card.metrics.get("ece_before", float("nan"))
    after = card.metrics.get("ece_after", float("nan"))
    threshold = card.abstain_below
    return Section(
        "Calibration and abstention",
        (
            ("Temperature", f"{card.card.temperature:.3f}"),
            ("Calibration error", _with_interval(after, None, None)),
            ("Before temperature scaling", _with_interval(before, None, None)),
            (
                "Label is unsure below",
                percent(threshold) if threshold else "never: every photo gets a class",
            ),
        ),
    )


def _verdict(card: ModelCard) -> Section:
    return Section(
        "Verdict",
        (
            ("Decision", card.tags.get("verdict") or "no verdict yet"),
            ("Reason", card.tags.get("why") or NOT_RECORDED),
        ),
        notes=("This is the last verdict. The ledger contains all earlier decisions.",),
    )


def _licences(card: ModelCard) -> Section:
    weights = card.card.backbone.source_task.licence
    return Section(
        "Licences", (("Pretrained weights", weights or NOT_STATED), ("Photos", NOT_STATED))
    )


def _reproduction(card: ModelCard) -> Section:
    _, state = _portable_paths(card.tracking_uri)
    command = f"regraft reproduce {shlex.quote(card.reference)}{_state_option(state)}"
    purpose = "Train the model again from its record and compare; nothing is registered:"
    return Section("Reproduction", code=((purpose, command),))


def _public_source(source: str) -> str:
    """Return the name of a local folder, or a URL unchanged. A card may be published."""
    return source if is_url(source) else PurePosixPath(source).name
