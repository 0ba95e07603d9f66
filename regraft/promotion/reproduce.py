"""A registered model trained again from its own record, and compared with what was registered."""

import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from regraft import registry
from regraft.core.config import BackboneConfig, Config, TrackingConfig, config_of, load_config
from regraft.core.errors import DataError, NotReproduced, WeightsNotFound
from regraft.core.files import absolute, filesystem
from regraft.core.relocate import rewriter
from regraft.data.ingest import ImageTable, ingest
from regraft.data.split import Splits, split
from regraft.evaluation.evaluate import abstain_below, class_codes, fit_temperature
from regraft.evaluation.predict import abstaining, answers
from regraft.model.classifier import Card, ImageClassifier, load_pretrained
from regraft.model.embed import logits, probabilities
from regraft.model.freeze import freeze
from regraft.model.pixels import photos_of
from regraft.registry import RegisteredVersion
from regraft.registry.interpolate import blended_as_recorded, start_of
from regraft.registry.package import git_sha
from regraft.registry.tracking import connect
from regraft.registry.tracking.runs import SQLITE
from regraft.registry.versions import tags, with_content
from regraft.training.tune import Challenger, fine_tune

_NO_EVICTION_GB = 1e6  # what the store holds is a training's to say
_SAME_PHOTO = ["sha256", "label", "copy"]

logger = logging.getLogger("regraft.reproduce")


@dataclass(frozen=True)
class Reproduction:
    """What came of training a version again.

    identical: whether the new model has the registered one's content hash: bit for bit the same.
    same_photos: whether all photos were there that it was trained and chosen on.
    weight_difference: the largest absolute one of any weight; infinite if they cannot be compared.
    n_test: today's test photos. agreement: share of them that both models answer alike.
    accuracy_then, accuracy_now: of the registered and of the new model on these photos.
    accuracy_recorded: as the registry has it, NaN if it has none. Shares in [0, 1].
    differences: what is not as it was then, a sentence each.
    """

    reference: str
    identical: bool
    same_photos: bool
    weight_difference: float
    n_test: int
    agreement: float
    accuracy_then: float
    accuracy_now: float
    accuracy_recorded: float
    differences: tuple[str, ...]

    @property
    def is_reproduced(self) -> bool:
        """Identical; or from the same photos, and not one test photo is answered otherwise."""
        return self.identical or (self.same_photos and self.agreement == 1.0)

    def __str__(self) -> str:
        if self.identical:
            what = "the same model, bit for bit"
        elif self.is_reproduced:
            what = "another model that answers every test photo alike"
        else:
            what = "another model"
        lines = [f"reproduce: {self.reference} trained again is {what}"]
        if not self.identical:
            lines.append(f"  weights    differ by up to {self.weight_difference:.2g}")
        lines += [
            f"  answers    {self.agreement:.1%} of {self.n_test} test photos alike",
            f"  accuracy   {self.accuracy_then:.1%} registered, {self.accuracy_now:.1%} trained "
            f"again, {self.accuracy_recorded:.1%} recorded",
        ]
        same = "nothing that is recorded"
        return "\n".join([*lines, f"  differs    {' '.join(self.differences) or same}"])


@dataclass(frozen=True)
class _Then:
    """What is recorded of the training."""

    reference: str
    classifier: ImageClassifier
    manifest: pd.DataFrame
    tags: dict[str, str]
    trained_as: str


@dataclass(frozen=True)
class _Now:
    """The training of today.

    splits: with the photos of then on the sides of then. n_gone: of those that are not here.
    """

    splits: Splits
    n_gone: int
    challenger: Challenger
    classifier: ImageClassifier


def reproduce(
    version: RegisteredVersion, tracking: TrackingConfig, overrides: tuple[str, ...] = ()
) -> Reproduction:
    """The version trained again from its card, in a scratch folder, and compared.

    Nothing is registered and no memory is written to. Only stores that go by content may grow: the
    embeddings, and the photos of a data set that come as arrays. Photos that were added since are
    left out of training, by the manifest in the bundle.

    Args:
        version: as registry.resolve() finds it.
        tracking: the store that holds it.
        overrides: "section.field=value", for what lies elsewhere today.

    Raises:
        ConfigError: an override, or the card, that cannot be meant.
        DataError: the photos of then are not there any more.
        WeightsError: the backbone or the parent model is not there any more.
    """
    then = _recorded(version, tracking)
    config = _config_of(then.classifier.card, tracking, overrides)
    with tempfile.TemporaryDirectory() as scratch:
        now = _train_again(then, _sheltered(config, Path(scratch)), version.name)
    identical = now.classifier.content_hash == then.classifier.content_hash
    test = now.splits.test
    alike, right_then, right_now = _compared(then.classifier, now.classifier, test, config)
    return Reproduction(
        reference=then.reference,
        identical=identical,
        same_photos=not now.n_gone,
        weight_difference=_largest_difference(then.classifier.weights, now.classifier.weights),
        n_test=len(test),
        agreement=alike,
        accuracy_then=right_then,
        accuracy_now=right_now,
        accuracy_recorded=float(then.tags.get("test_accuracy", "nan")),
        differences=(*_differences(then, now), *_overridden(overrides)),
    )


def refuse_another(reproduction: Reproduction) -> None:
    """Passes a reproduced model.

    Raises:
        NotReproduced: it is another one; says what is not as it was.
    """
    if reproduction.is_reproduced:
        return
    found = reproduction
    why = " ".join(found.differences) or (
        "Nothing that is recorded differs, so it is the machine, or a library that no card names. "
        "Try on the machine that trained it."
    )
    n_other = round((1 - found.agreement) * found.n_test)
    raise NotReproduced(
        f"Expected {found.reference} trained again to be the registered model, got one that "
        f"answers {n_other} of {found.n_test} test photos otherwise (accuracy "
        f"{found.accuracy_now:.1%}, not {found.accuracy_then:.1%}; weights differ by up to "
        f"{found.weight_difference:.2g}). {why}"
    )


def _recorded(version: RegisteredVersion, tracking: TrackingConfig) -> _Then:
    client = connect(tracking)
    experiment = client.get_experiment_by_name(version.name)
    wanted = f"attributes.run_id = '{version.run_id}'"
    runs = client.search_runs([experiment.experiment_id], wanted) if experiment else []
    return _Then(
        reference=f"{version.name}/{version.version}",
        classifier=registry.load(tracking, version),
        manifest=registry.load_manifest(tracking, version),
        tags=tags(tracking, version),
        trained_as=runs[0].data.tags.get("trained_as", "") if runs else "",
    )


def _config_of(card: Card, tracking: TrackingConfig, overrides: tuple[str, ...]) -> Config:
    """The card's configuration where things lie today, and with what is overridden."""
    recorded = config_of(_moved(card.config, tracking)).flat() | {"tracking.uri": tracking.uri}
    as_given = tuple(f"{key}={_yaml(text)}" for key, text in recorded.items())
    config = load_config(None, as_given + overrides)
    if config.backbone.source != "auto":
        return config
    info = card.backbone  # what was chosen then; today another one might be
    is_file = info.source.startswith("file:")
    architecture = info.architecture if is_file else ""
    chosen = BackboneConfig(source=info.source, architecture=architecture)
    return config.model_copy(update={"backbone": chosen})


def _yaml(text: str) -> str:
    """A flat value as --set takes it: lists and tables as they are, all else in quotes."""
    return text if text.startswith(("[", "{")) else json.dumps(text, ensure_ascii=False)


def _moved(flat: dict[str, str], tracking: TrackingConfig) -> dict[str, str]:
    """The flat configuration, of a state folder that stands elsewhere now."""
    uri = flat.get("tracking.uri", "")
    if uri == tracking.uri or not (uri.startswith(SQLITE) and tracking.uri.startswith(SQLITE)):
        return dict(flat)
    old, new = (Path(one.removeprefix(SQLITE)).parent for one in (uri, tracking.uri))
    rewrite = rewriter(old, new)
    return {key: str(rewrite(value)) for key, value in flat.items()}


def _sheltered(config: Config, scratch: Path) -> Config:
    """The configuration with copies of what a training writes to."""
    memory = _copied(config.split.memory_url, scratch / "splits")
    known = _copied(config.ingest.memory_url, scratch / "photos")
    # There were no leaks where they were an error; today's are of photos that came later.
    on_leak = "drop" if config.split.on_leak == "error" else config.split.on_leak
    sides = {"memory_url": memory, "on_leak": on_leak}
    return config.model_copy(
        update={
            "ingest": config.ingest.model_copy(update={"memory_url": known}),
            "split": config.split.model_copy(update=sides),
            "tune": config.tune.model_copy(update={"checkpoint_url": ""}),
            "embed": config.embed.model_copy(update={"max_gb": _NO_EVICTION_GB}),
            # A file of other content is told, not refused.
            "backbone": config.backbone.model_copy(update={"sha256": ""}),
        }
    )


def _copied(url: str, folder: Path) -> str:
    """A copy of a memory's shards; of no memory none."""
    if not url:
        return ""
    files, root = filesystem(absolute(url))
    folder.mkdir()
    for path in files.find(root):
        if path.endswith(".parquet"):
            target = folder / path.removeprefix(root).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files.cat_file(path))
    return str(folder)


def _train_again(then: _Then, config: Config, name: str) -> _Now:
    card = then.classifier.card
    table = ingest(config.ingest)
    logger.info("%s", table)
    splits, n_gone = split(table, config.split), 0
    logger.info("%s", splits)
    if splits.digest != card.dataset_digest:
        splits, n_gone = _as_then(table, splits, then)
    pretrained = _pretrained(card, config, name)
    plan = freeze(pretrained, config.freeze)
    challenger = fine_tune(pretrained, plan, splits, config.tune, lambda _: None, config.embed)
    where = config.tracking.model_copy(update={"name": name})
    challenger = blended_as_recorded(challenger, card, where, config.classes.renamed)
    logger.info("%s", challenger)
    return _Now(splits, n_gone, challenger, _finished(challenger.classifier, splits, config))


def _as_then(table: ImageTable, splits: Splits, then: _Then) -> tuple[Splits, int]:
    """Splits whose train and validation are those of then, and how many of these are gone.

    The sides are the manifest's. The test photos of then are not in it, so today's stand for them.

    Raises:
        DataError: too few of the photos are left.
    """
    classes, manifest = then.classifier.card.classes, then.manifest
    wanted = _numbered(manifest)[[*_SAME_PHOTO, "side"]]
    known = _numbered(table.frame).merge(wanted, on=_SAME_PHOTO).drop(columns="copy")
    test = splits.test
    test = test[~test.sha256.isin(manifest.sha256) & test.label.isin(classes)]
    trained_on = set(known[known.side == "train"].label)
    lacking = [name for name in classes if name not in trained_on]
    n_gone = len(wanted) - len(known)
    if lacking or not (known.side == "validation").any():
        what = f"all of {', '.join(lacking)}" if lacking else "all that it was chosen on"
        raise DataError(
            f"{n_gone} of the {len(wanted)} photos that {then.reference} was trained or chosen on "
            f"are not in {table.source} any more, {what} among them. Put them back, or say where "
            "they are with --set ingest.photos=PLACE."
        )
    frame = pd.concat([known, test]).sort_values("path").reset_index(drop=True)
    return replace(splits, frame=frame), n_gone


def _numbered(photos: pd.DataFrame) -> pd.DataFrame:
    """With the column copy: which of several photos of the same content and label it is."""
    return photos.assign(copy=photos.groupby(["sha256", "label"]).cumcount())


def _pretrained(card: Card, config: Config, name: str) -> ImageClassifier:
    """Where training starts from; a parent model is looked up by its content: it may have moved."""
    backbone = config.backbone
    if start := start_of(card):
        parent = with_content(config.tracking.model_copy(update={"name": name}), start)
        if parent:
            source = {"source": f"bundle:{parent.bundle_url}"}
            backbone = backbone.model_copy(update=source)
        elif not backbone.source.startswith("bundle:"):
            raise WeightsNotFound(
                f"Expected the model {start[:12]} that training started from among the "
                f"versions of {name} in {config.tracking.uri}, found none. If its bundle lies "
                "elsewhere, give it with --set backbone.source=bundle:URL."
            )
    return load_pretrained(backbone, card.classes, config.classes.renamed)


def _finished(classifier: ImageClassifier, splits: Splits, config: Config) -> ImageClassifier:
    """With its temperature and its threshold, as evaluate() and register() set them."""
    held_out = pd.concat([splits.test, splits.validation], ignore_index=True)
    scores = logits(classifier, photos_of(held_out), config.embed)  # (N, K)
    classes = classifier.card.classes
    chosen = (held_out.side == "validation").to_numpy(copy=True)
    codes = torch.from_numpy(class_codes(held_out.label[chosen], classes))
    temperature = fit_temperature(scores[torch.from_numpy(chosen)], codes)
    predictions = held_out[["label", "side"]].assign(
        predicted=np.array(classes, dtype=object)[scores.argmax(dim=1).numpy()],
        confidence=probabilities(scores, temperature).amax(dim=1).numpy(),
    )
    finished = classifier.with_card(temperature=temperature)
    return abstaining(finished, abstain_below(predictions, config.predict))


def _compared(
    then: ImageClassifier, now: ImageClassifier, test: pd.DataFrame, config: Config
) -> tuple[float, float, float]:
    """Share of the test photos answered alike, and the accuracy of both; NaN for no photo."""
    if test.empty:
        return float("nan"), float("nan"), float("nan")
    both = [logits(one, photos_of(test), config.embed) for one in (then, now)]
    labels = [answers(scores, then.card).label for scores in both]
    alike = float((labels[0].to_numpy() == labels[1].to_numpy()).mean())
    codes = torch.from_numpy(class_codes(test.label, then.card.classes))
    right = [float((scores.argmax(dim=1) == codes).double().mean()) for scores in both]
    return alike, right[0], right[1]


def _largest_difference(then: dict[str, Tensor], now: dict[str, Tensor]) -> float:
    shapes = [{name: tensor.shape for name, tensor in one.items()} for one in (then, now)]
    if shapes[0] != shapes[1]:
        return float("inf")
    return max(
        float((then[n].double() - now[n].double()).abs().max()) for n in then if then[n].numel()
    )


def _differences(then: _Then, now: _Now) -> Iterator[str]:
    """What is not as it was, the gravest first."""
    card, info = then.classifier.card, now.classifier.card.backbone
    n = len(then.manifest)
    if now.n_gone:
        yield f"{now.n_gone} of the {n} photos that it was trained or chosen on are gone."
    elif now.splits.digest != card.dataset_digest:
        yield (
            f"The photos have changed, but all {n} that it was trained or chosen on are here, and "
            "only these were taken; the test photos are today's."
        )
    if info.sha256 != card.backbone.sha256:
        yield f"The backbone's weights were {card.backbone.sha256[:12]}, are {info.sha256[:12]}."
    told = now.challenger.trained_as
    if then.trained_as and told != then.trained_as:
        yield f"The thawed part was trained as {then.trained_as}, now as {told or 'nothing'}."
    for name, version in card.versions.items():
        if _installed(name) != version:
            yield f"{name} was {version}, is {_installed(name)}."
    sha, today = then.tags.get("git_sha", ""), git_sha()
    if sha != today:
        yield f"The code was at commit {sha[:12] or 'unknown'}, is at {today[:12] or 'unknown'}."


def _overridden(overrides: tuple[str, ...]) -> Iterator[str]:
    if overrides:
        yield f"Set for this run: {', '.join(overrides)}."


def _installed(name: str) -> str:
    try:
        return installed(name)
    except PackageNotFoundError:
        return "not installed"
