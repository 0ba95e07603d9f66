"""The duel: champion and challenger answer the same photos. All is measured, nothing is judged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft import registry
from regraft.behaviour import Behaviour, behave
from regraft.classifier import ClassContract, ImageClassifier, contract_of
from regraft.compare.cost import serving_ms
from regraft.config import Config
from regraft.embed import logits, probabilities
from regraft.evaluate.metrics import SLICE_PREFIX
from regraft.pixels import photos_of
from regraft.registry import RegisteredVersion
from regraft.registry.parity import WayParity
from regraft.split import Splits, find_near_pairs


@dataclass(frozen=True)
class Contenders:
    """Two versions of the model "name", and what is known of them beyond their answers.

    champion: None if there is none.
    contract: how the challenger's classes relate to the champion's.
    majority_share: of the test photos that always naming train's largest class gets right.
    behaviour, ms, mb: of the challenger; ms of its network, one photo at a time, on the machine
        that judges; mb of its weights, 1e6 bytes.
    parity: golden photos through every way of serving; empty until they were tried.
    """

    name: str
    challenger: int
    champion: int | None
    contract: ClassContract
    majority_share: float
    behaviour: Behaviour
    ms: float
    mb: float
    parity: tuple[WayParity, ...] = ()

    @property
    def are_one(self) -> bool:
        """Whether the challenger serves already."""
        return self.champion == self.challenger


@dataclass(frozen=True)
class Duel:
    """The contenders, and the photos that they answered.

    photos: a row a test photo: path, sha256, label, every slice column, seen (whether a contender
        was trained or chosen on it or on a copy), challenger, champion (the class that each said;
        the champion's by today's name, "" if there is none), challenger_confidence,
        champion_confidence (in [0, 1], after each one's temperature; NaN if there is none).
    """

    contenders: Contenders
    photos: pd.DataFrame

    @property
    def compared(self) -> pd.DataFrame:
        """The photos that neither has seen, of classes that both know."""
        is_shared = self.photos.label.isin(self.contenders.contract.kept)
        return self.photos[~self.photos.seen & is_shared]


@dataclass(frozen=True)
class Answers:
    """(N,) class names and how sure the model was of each, after its temperature."""

    said: NDArray[np.object_]
    confidence: NDArray[np.float64]


def hold_duel(
    version: RegisteredVersion, champion: RegisteredVersion | None, splits: Splits, config: Config
) -> Duel:
    """Both contenders' answers to today's test photos, and what else a verdict is made of.

    Nothing that was measured at another time is used: both are asked again. What the store of
    embeddings knows is not computed again.

    Args:
        version: the challenger.
        champion: who serves; may be the challenger itself.

    Raises:
        ConfigError: classes.renamed or a must-pass photo that cannot be meant.
        UnusablePhoto: a test photo cannot be read any more.
    """
    test = splits.test
    challenger = registry.load(config.tracking, version)
    rival = registry.load(config.tracking, champion) if champion else None
    old = rival.card.classes if rival else challenger.card.classes
    contract = contract_of(old, challenger.card.classes, config.classes.renamed)
    versions = [one for one in (version, champion) if one]
    manifests = [registry.load_manifest(config.tracking, one) for one in versions]
    kept = [column for column in test.columns if column.startswith(SLICE_PREFIX)]
    photos = test[["path", "sha256", "label", *kept]].assign(
        seen=seen_in(manifests, test, config.split.near_duplicate_bits),
        **_columns("challenger", _asked(challenger, test, config)),
        **_columns("champion", _rival_answers(rival, contract, test, config)),
    )
    contenders = Contenders(
        name=version.name,
        challenger=version.version,
        champion=champion.version if champion else None,
        contract=contract,
        majority_share=float((test.label == splits.counts.train.idxmax()).mean()),
        behaviour=behave(challenger, test, config.behaviour, config.embed),
        ms=serving_ms(challenger),
        mb=sum(tensor.nbytes for tensor in challenger.weights.values()) / 1e6,
    )
    return Duel(contenders, photos)


def seen_in(
    manifests: Sequence[pd.DataFrame], photos: pd.DataFrame, n_bits: int
) -> NDArray[np.bool_]:
    """(N,) whether each photo, or a copy or near copy of it, stands in one of the manifests.

    Args:
        manifests: sha256, phash and thumbnail of what each contender was trained or chosen on; an
            older bundle has no thumbnail, there equal perceptual hashes count.
        photos: N of them, with the same columns.
        n_bits: as split.near_duplicate_bits; the split's own rule decides what is a near copy.
    """
    exact = np.logical_or.reduce([photos.sha256.isin(known.sha256) for known in manifests])
    older = [known for known in manifests if "thumbnail" not in known]
    for known in older:
        exact |= photos.phash.isin(known.phash).to_numpy()
    with_looks = [known for known in manifests if "thumbnail" in known]
    if not with_looks:
        return np.asarray(exact)
    columns = ["sha256", "phash", "thumbnail"]
    trained = pd.concat([known[columns] for known in with_looks]).drop_duplicates("sha256")
    asked = photos.loc[~exact, columns].drop_duplicates("sha256")
    both = pd.concat([asked, trained], ignore_index=True)
    pairs = find_near_pairs(both, n_bits)
    is_across = (pairs.first < len(asked)) & (pairs.second >= len(asked))
    near = asked.sha256.iloc[pairs.first[is_across]]
    return np.asarray(exact | photos.sha256.isin(near).to_numpy())


def _rival_answers(
    rival: ImageClassifier | None, contract: ClassContract, test: pd.DataFrame, config: Config
) -> Answers:
    """The champion's answers, in today's names of the classes."""
    if rival is None:
        return Answers(np.full(len(test), "", dtype=object), np.full(len(test), np.nan))
    answers = _asked(rival, test, config)
    today = {old: new for new, old in contract.old_names.items()}
    said = [today.get(name, name) for name in answers.said]
    return Answers(np.array(said, dtype=object), answers.confidence)


def _asked(classifier: ImageClassifier, test: pd.DataFrame, config: Config) -> Answers:
    card = classifier.card
    probs = probabilities(logits(classifier, photos_of(test), config.embed), card.temperature)
    said = np.array(card.classes, dtype=object)[probs.argmax(dim=1).numpy()]  # (N,)
    return Answers(said, probs.amax(dim=1).numpy())


def _columns(who: str, answers: Answers) -> dict[str, NDArray[np.object_] | NDArray[np.float64]]:
    return {who: answers.said, f"{who}_confidence": answers.confidence}
