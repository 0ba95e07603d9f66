"""The paired evaluation: champion and challenger predict the same photos.

This module only measures. The decision is made in judgement.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft import registry
from regraft.core.config import Config
from regraft.data.split import Splits, unit_numbers
from regraft.evaluation.behaviour import check_behaviour
from regraft.evaluation.behaviour_result import Behaviour
from regraft.evaluation.cost import measure_serving_ms
from regraft.evaluation.evaluate.metrics import SLICE_PREFIX
from regraft.model.card import ClassContract
from regraft.model.classifier import ImageClassifier, contract_of, tensors_hash
from regraft.model.embed import logits, probabilities
from regraft.model.pixels import photos_of
from regraft.promotion.pair import ModelPair, PairedEvaluation
from regraft.registry import RegisteredVersion


@dataclass(frozen=True)
class _Predictions:
    """(N,) class names and confidences in [0, 1] after temperature scaling."""

    labels: NDArray[np.object_]
    confidence: NDArray[np.float64]


def evaluate_pair(
    version: RegisteredVersion, champion: RegisteredVersion | None, splits: Splits, config: Config
) -> PairedEvaluation:
    """Return the predictions of both models on today's test photos, and the other measurements.

    Both models are evaluated now; no stored scores are used. Embeddings in the store are used.

    Args:
        version: the challenger.
        champion: may be the challenger itself; None if there is none.
        splits: the test split is evaluated.
        config: the configuration of the promotion.

    Raises:
        ConfigError: classes.renamed or a must-pass photo is not valid.
        UnusablePhoto: a test photo can no longer be read.
    """
    test = splits.test
    challenger = registry.load(config.tracking, version)
    rival = registry.load(config.tracking, champion) if champion else None
    old_classes = rival.card.classes if rival else challenger.card.classes
    contract = contract_of(old_classes, challenger.card.classes, config.classes.renamed)
    models = [model for model in (version, champion) if model]
    ancestries = [registry.load_ancestry(config.tracking, model) for model in models]
    manifests = [manifest for ancestry in ancestries for manifest in ancestry.manifests]
    n_bits = config.split.near_duplicate_bits
    slices = [column for column in test.columns if column.startswith(SLICE_PREFIX)]
    photos = test[["path", "sha256", "label", *slices]].assign(
        seen=seen_in(manifests, test, n_bits),
        unit=unit_numbers(test, n_bits, by_group=False),
        **_columns("challenger", _predict(challenger, test, config)),
        **_columns("champion", _predict_champion(rival, contract, test, config)),
    )
    pair = ModelPair(
        name=version.name,
        challenger=version.version,
        champion=champion.version if champion else None,
        contract=contract,
        majority=str(splits.counts.train.idxmax()),
        behaviour=_measure_behaviour(challenger, test, manifests, config),
        ms=measure_serving_ms(challenger),
        mb=sum(tensor.nbytes for tensor in challenger.weights.values()) / 1e6,
        last_champion=None if champion else registry.last_champion(config.tracking, version.name),
        unknown_ancestor=next(
            (ancestry.version for ancestry in ancestries if not ancestry.is_complete), None
        ),
        abstain_below=challenger.card.abstain_below,
        revises=describe_difference(challenger, rival, contract) if rival else "",
    )
    return PairedEvaluation(pair, photos)


def describe_difference(
    challenger: ImageClassifier, champion: ImageClassifier, contract: ClassContract
) -> str:
    """Return what differs between two models with the same weights, in words.

    "" if their weights or their preprocessing differ, or if neither the names of the classes nor
    the threshold for "unsure" does.

    Args:
        contract: of the challenger's classes to the champion's.
    """
    new, old = challenger.card, champion.card
    names = {was: name for name, was in contract.old_names.items()}
    is_same = (
        new.classes == tuple(names.get(name, name) for name in old.classes)
        and new.backbone.preprocessing == old.backbone.preprocessing
        and tensors_hash(challenger.weights) == tensors_hash(champion.weights)
    )
    changes = [f"{was} is called {name}" for was, name in contract.renamed]
    if new.abstain_below != old.abstain_below:
        changes.append(
            f"photos below a confidence of {new.abstain_below:.3g} are answered unsure "
            f"(was {old.abstain_below:.3g})"
        )
    return ", ".join(changes) if is_same else ""


def seen_in(
    manifests: Sequence[pd.DataFrame], photos: pd.DataFrame, n_bits: int
) -> NDArray[np.bool_]:
    """Return (N,) whether each photo, or a copy or near copy of it, is in one of the manifests.

    Args:
        manifests: sha256, phash and thumbnail of the photos that each model was trained or selected
            on. An older bundle has no thumbnail; there equal perceptual hashes count.
        photos: N rows with the same columns.
        n_bits: as split.near_duplicate_bits; near copies are defined as in the split.
    """
    is_seen = np.logical_or.reduce([photos.sha256.isin(manifest.sha256) for manifest in manifests])
    for manifest in manifests:
        if "thumbnail" not in manifest:
            is_seen |= photos.phash.isin(manifest.phash).to_numpy()
    with_thumbnails = [manifest for manifest in manifests if "thumbnail" in manifest]
    if not with_thumbnails:
        return np.asarray(is_seen)
    columns = ["sha256", "phash", "thumbnail"]
    trained = pd.concat([manifest[columns] for manifest in with_thumbnails])
    trained = trained.drop_duplicates("sha256")
    candidates = photos.loc[~is_seen, columns].drop_duplicates("sha256")
    both = pd.concat([candidates, trained], ignore_index=True)
    units = unit_numbers(both, n_bits, by_group=False)
    is_near = np.isin(units[: len(candidates)], units[len(candidates) :])
    near = candidates.sha256[is_near]
    return np.asarray(is_seen | photos.sha256.isin(near).to_numpy())


def _measure_behaviour(
    challenger: ImageClassifier,
    test: pd.DataFrame,
    manifests: Sequence[pd.DataFrame],
    config: Config,
) -> Behaviour:
    behaviour = check_behaviour(challenger, test, config.behaviour, config.embed, config.ingest)
    trained = {sha256 for manifest in manifests for sha256 in manifest.sha256}
    must_pass = tuple(
        replace(photo, trained_on=photo.sha256 in trained) for photo in behaviour.must_pass
    )
    return replace(behaviour, must_pass=must_pass)


def _predict_champion(
    champion: ImageClassifier | None, contract: ClassContract, test: pd.DataFrame, config: Config
) -> _Predictions:
    """Return the champion's predictions, by today's names of the classes."""
    if champion is None:
        return _Predictions(np.full(len(test), "", dtype=object), np.full(len(test), np.nan))
    predictions = _predict(champion, test, config)
    new_names = {old: new for new, old in contract.old_names.items()}
    labels = [new_names.get(name, name) for name in predictions.labels]
    return _Predictions(np.array(labels, dtype=object), predictions.confidence)


def _predict(classifier: ImageClassifier, test: pd.DataFrame, config: Config) -> _Predictions:
    card = classifier.card
    scores = logits(classifier, photos_of(test), config.embed)  # (N, K)
    probs = probabilities(scores, card.temperature)  # (N, K)
    labels = np.array(card.classes, dtype=object)[probs.argmax(dim=1).numpy()]  # (N,)
    return _Predictions(labels, probs.amax(dim=1).numpy())


def _columns(
    who: str, predictions: _Predictions
) -> dict[str, NDArray[np.object_] | NDArray[np.float64]]:
    return {who: predictions.labels, f"{who}_confidence": predictions.confidence}
