"""Behaviour tests of a classifier: stability under perturbations, and must-pass photos.

After Ribeiro et al. 2020 (CheckList): invariance tests, and minimum functionality tests.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import torch
from torch import Tensor

from regraft.core.config import BehaviourConfig, EmbedConfig, IngestConfig
from regraft.core.errors import UnusablePhoto
from regraft.core.files import absolute
from regraft.data.ingest import n_cores, read_bytes
from regraft.data.ingest.facts import sha256_of
from regraft.data.ingest.manifest import DEFAULT_INGEST, is_manifest, list_manifest
from regraft.data.ingest.sources import Listed, Listing, Quarantined, list_folder
from regraft.data.split import stratified_head
from regraft.evaluation.behaviour_result import Behaviour, MustPass
from regraft.evaluation.predict import max_pixels_of
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import (
    NO_STORE,
    Perturbation,
    embeddings_for,
    head_scores,
    judging_compute,
    probabilities,
    spec_for,
    try_embeddings_for,
)
from regraft.model.pixels import Photo, photos_of

# A prediction is stable if no perturbation of the tuple changes it.
PERTURBATIONS: dict[str, tuple[Perturbation, ...]] = {
    "flip": ("flip",),
    "jpeg": ("jpeg",),
    "brightness": ("darker", "brighter"),
    "rotation": ("turned_left", "turned_right"),
}

logger = logging.getLogger("regraft.behaviour")


def check_behaviour(
    classifier: ImageClassifier,
    photos: pd.DataFrame,
    config: BehaviourConfig,
    store: EmbedConfig = NO_STORE,
    ingest: IngestConfig = DEFAULT_INGEST,
) -> Behaviour:
    """Return the results for perturbed test photos and for must-pass photos, computed in fp32.

    The prediction is the most probable class, even below the threshold for "unsure". The perturbed
    photos are about the same share of each class, see stratified_head().

    Args:
        photos: of the test split, with the columns path, sha256 and label.
        config: how many photos are perturbed, and the place of the must-pass photos.
        store: of embeddings; new ones are written to it.
        ingest: label_from for folders, schemes and roots for manifests of must-pass photos.

    Raises:
        NoPhotos, ManifestError, ClassVanished: must_pass cannot be listed, as in ingest.
        UnusablePhoto: a test photo cannot be read any more.
    """
    listing = _must_pass_listing(config.must_pass, ingest)
    chosen = photos_of(stratified_head(photos, config.n_photos))
    behaviour = Behaviour(
        n_photos=len(chosen),
        agreement=_agreement(classifier, chosen, store) if chosen else {},
        must_pass=_must_pass(classifier, listing, store),
    )
    logger.info("%s", behaviour)
    return behaviour


def _agreement(
    classifier: ImageClassifier, photos: Sequence[Photo], store: EmbedConfig
) -> dict[str, float]:
    predicted = _predicted(classifier, photos, store, None)  # (n,)
    agreement = {}
    for name, perturbations in PERTURBATIONS.items():
        is_stable = [
            _predicted(classifier, photos, store, perturbation) == predicted
            for perturbation in perturbations
        ]
        agreement[name] = float(torch.stack(is_stable).all(dim=0).double().mean())
    return agreement


def _predicted(
    classifier: ImageClassifier,
    photos: Sequence[Photo],
    store: EmbedConfig,
    perturbation: Perturbation | None,
) -> Tensor:
    """Return the position of the most probable class, (n,)."""
    spec = spec_for(classifier, judging_compute(), perturbation=perturbation)
    return head_scores(classifier, embeddings_for(spec, photos, store)).argmax(dim=1)


def _must_pass_listing(url: str, ingest: IngestConfig) -> Listing:
    """Return the photos as ingest lists them; here photos with contradicting labels stay."""
    if not url:
        return Listing(())
    place = absolute(url)
    if is_manifest(place):
        return list_manifest(place, ingest)
    return list_folder(place, label_from=ingest.label_from)


def _must_pass(
    classifier: ImageClassifier, listing: Listing, store: EmbedConfig
) -> tuple[MustPass, ...]:
    unlisted = [_unread(photo, f"{photo.reason}: {photo.detail}") for photo in listing.quarantined]
    results = [*unlisted, *_results(classifier, listing.photos, store)]
    return tuple(sorted(results, key=lambda result: (result.path, result.label)))


def _results(
    classifier: ImageClassifier, listed: Sequence[Listed], store: EmbedConfig
) -> list[MustPass]:
    """Return a result for each photo; an unreadable photo has an error."""
    if not listed:
        return []
    with ThreadPoolExecutor(n_cores()) as pool:
        opened = list(pool.map(_open, [entry.uri for entry in listed]))
    spec = spec_for(classifier, judging_compute(), max_pixels_of(classifier.card))
    photos = [photo for photo in opened if isinstance(photo, Photo)]
    embeddings = try_embeddings_for(spec, photos, store)
    scores = head_scores(classifier, embeddings.rows)  # (N, K)
    probs = probabilities(scores, classifier.card.temperature)  # (N, K)
    answers = iter(zip(probs.argmax(dim=1).tolist(), probs.amax(dim=1).tolist(), strict=True))
    results = []
    for entry, photo in zip(listed, opened, strict=True):
        if isinstance(photo, UnusablePhoto):
            results.append(_unread(entry, str(photo)))
            continue
        if error := embeddings.refused.get(photo.sha256):
            results.append(_unread(entry, str(error)))
            continue
        position, confidence = next(answers)
        predicted = classifier.card.classes[position]
        has_class = entry.label in classifier.card.classes
        error_text = "" if has_class else f"the model does not know the class {entry.label!r}"
        results.append(
            MustPass(entry.uri, entry.label, predicted, confidence, error_text, photo.sha256)
        )
    return results


def _unread(photo: Listed | Quarantined, error: str) -> MustPass:
    path = photo.uri if isinstance(photo, Listed) else photo.path
    return MustPass(path, photo.label, predicted="", confidence=0.0, error=error)


def _open(uri: str) -> Photo | UnusablePhoto:
    try:
        return Photo(uri, sha256_of(read_bytes(uri)))
    except UnusablePhoto as error:
        return error
