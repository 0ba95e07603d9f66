"""What a classifier must do beyond the test photos: answers that stay, photos that must be right.

After Ribeiro et al. 2020 (CheckList): invariance tests, and minimum functionality tests.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from regraft.core.config import BehaviourConfig, EmbedConfig
from regraft.core.errors import UnusablePhoto
from regraft.core.files import absolute
from regraft.data.ingest import n_cores, read_bytes
from regraft.data.ingest.facts import sha256_of
from regraft.data.ingest.manifest import is_manifest, list_manifest
from regraft.data.ingest.sources import Listed, Listing, Quarantined, list_folder
from regraft.evaluation.predict import max_pixels_of
from regraft.model.classifier import ImageClassifier
from regraft.model.embed import (
    NO_STORE,
    Change,
    find_rows,
    head_scores,
    judging_compute,
    passage,
    probabilities,
    rows_of,
)
from regraft.model.pixels import Photo, photos_of
from regraft.training.transfer import lowest

# An answer stays if it stays under each of them.
CHANGES: dict[str, tuple[Change, ...]] = {
    "flip": ("flip",),
    "jpeg": ("jpeg",),
    "brightness": ("darker", "brighter"),
    "rotation": ("turned_left", "turned_right"),
}

logger = logging.getLogger("regraft.behaviour")


@dataclass(frozen=True)
class MustPass:
    """A photo that has to be answered rightly, and how it was.

    predicted, confidence: the most probable class, however unsure, in [0, 1]; "" and 0 if it could
        not be read.
    error: why it could not be asked about: it cannot be read, or the model lacks its class; "" = it
        could.
    sha256: of the file, "" if it could not be read. trained_on: whether it proves nothing because
        the model was trained on it; behave() does not know and says no.
    """

    path: str
    label: str
    predicted: str
    confidence: float
    error: str
    sha256: str = ""
    trained_on: bool = False

    @property
    def is_right(self) -> bool:
        """Whether it was answered rightly; a photo that cannot be read never is."""
        return not self.error and self.predicted == self.label


@dataclass(frozen=True)
class Behaviour:
    """What a classifier does when a photo changes a little, and with photos that must be right.

    Attributes:
        n_photos: test photos that were changed.
        agreement: share of them whose predicted class stays, in [0, 1], by the names in CHANGES; of
            brightness and rotation, whose class stays both ways. Empty if n_photos is 0.
        must_pass: in the order of their paths.
    """

    n_photos: int
    agreement: dict[str, float]
    must_pass: tuple[MustPass, ...]

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.agreement.items())
        stays = f"the answer stays under {shares} on {self.n_photos} photos" if shares else ""
        n_right = sum(photo.is_right for photo in self.must_pass)
        right = f"{n_right} of {len(self.must_pass)} must-pass photos right"
        told = [stays] * bool(stays) + [right] * bool(self.must_pass)
        return f"behaviour: {'; '.join(told) or 'nothing was asked'}"


def behave(
    classifier: ImageClassifier,
    photos: pd.DataFrame,
    config: BehaviourConfig,
    store: EmbedConfig = NO_STORE,
) -> Behaviour:
    """How the classifier answers changed photos and those that must be right, computed in fp32.

    It answers with the most probable class, whether or not it would say "unsure". The photos that
    are changed are taken without dice, of each class about the same share: see lowest().

    Args:
        photos: of the test side, with the columns path, sha256 and label.
        config: how many are changed, and where those are that must be right.
        store: where what the network sees may already be, and is kept.

    Raises:
        NoPhotos, ManifestError, ClassVanished: must_pass cannot be listed, as in ingest.
        UnusablePhoto: a test photo cannot be read any more.
    """
    listing = _must_pass_listing(config.must_pass)
    chosen = photos_of(lowest(photos, config.n_photos))
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
    said = _classes_said(classifier, photos, store, None)  # (n,)
    agreement = {}
    for name, changes in CHANGES.items():
        stays = [_classes_said(classifier, photos, store, change) == said for change in changes]
        agreement[name] = float(torch.stack(stays).all(dim=0).double().mean())
    return agreement


def _classes_said(
    classifier: ImageClassifier,
    photos: Sequence[Photo],
    store: EmbedConfig,
    change: Change | None,
) -> Tensor:
    """(n,) position of the most probable class."""
    rows = rows_of(passage(classifier, judging_compute(), change=change), photos, store)
    return head_scores(classifier, rows).argmax(dim=1)


def _must_pass_listing(url: str) -> Listing:
    """The photos as ingest lists them; ingest itself would leave out those that clash."""
    if not url:
        return Listing(())
    place = absolute(url)
    return list_manifest(place) if is_manifest(place) else list_folder(place)


def _must_pass(
    classifier: ImageClassifier, listing: Listing, store: EmbedConfig
) -> tuple[MustPass, ...]:
    aside = [_unread(one, f"{one.reason}: {one.detail}") for one in listing.quarantined]
    return tuple(sorted([*aside, *_answered(classifier, listing.photos, store)], key=_place))


def _answered(
    classifier: ImageClassifier, listed: Sequence[Listed], store: EmbedConfig
) -> list[MustPass]:
    """The answer to each photo; those that cannot be read stand among them, with the reason."""
    if not listed:
        return []
    with ThreadPoolExecutor(n_cores()) as pool:
        read = list(pool.map(_read, [one.uri for one in listed]))
    way = passage(classifier, judging_compute(), max_pixels_of(classifier.card))
    found = find_rows(way, [one for one in read if isinstance(one, Photo)], store)
    probs = probabilities(head_scores(classifier, found.rows), classifier.card.temperature)
    answers = iter(zip(probs.argmax(dim=1).tolist(), probs.amax(dim=1).tolist(), strict=True))
    judged = []
    for one, photo in zip(listed, read, strict=True):
        if isinstance(photo, UnusablePhoto):
            judged.append(_unread(one, str(photo)))
            continue
        if error := found.refused.get(photo.sha256):
            judged.append(_unread(one, str(error)))
            continue
        position, confidence = next(answers)
        said = classifier.card.classes[position]
        known = one.label in classifier.card.classes
        lacks = "" if known else f"the model does not know the class {one.label!r}"
        judged.append(MustPass(one.uri, one.label, said, confidence, lacks, photo.sha256))
    return judged


def _unread(photo: Listed | Quarantined, error: str) -> MustPass:
    path = photo.uri if isinstance(photo, Listed) else photo.path
    return MustPass(path, photo.label, predicted="", confidence=0.0, error=error)


def _place(photo: MustPass) -> tuple[str, str]:
    return photo.path, photo.label


def _read(uri: str) -> Photo | UnusablePhoto:
    try:
        return Photo(uri, sha256_of(read_bytes(uri)))
    except UnusablePhoto as error:
        return error
    except ValueError as error:  # no path or URL at all: a port of 99999, a zero byte
        return UnusablePhoto("unreadable", str(error))
