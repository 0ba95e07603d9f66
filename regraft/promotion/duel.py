"""The duel: champion and challenger answer the same photos. All is measured, nothing is judged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regraft import registry
from regraft.core.config import Config
from regraft.data.split import Splits, connected, find_near_pairs
from regraft.evaluation.behaviour import Behaviour, behave
from regraft.evaluation.compare.cost import serving_ms
from regraft.evaluation.evaluate.metrics import SLICE_PREFIX
from regraft.model.classifier import ClassContract, ImageClassifier, contract_of
from regraft.model.embed import logits, probabilities
from regraft.model.pixels import photos_of
from regraft.registry import RegisteredVersion
from regraft.registry.parity import WayParity


@dataclass(frozen=True)
class Contenders:
    """Two versions of the model "name", and what is known of them beyond their answers.

    champion: None if there is none.
    contract: how the challenger's classes relate to the champion's.
    majority: train's largest class.
    last_champion: who served last, where nobody serves now; None if nobody ever did.
    unknown_ancestor: a contender that started from a model which is gone, so that nobody knows what
        it has seen; None if all is known.
    abstain_below: of the challenger; it says "unsure" below this confidence, 0 = never.
    behaviour, ms, mb: of the challenger; ms of its network, one photo at a time, on the machine
        that judges; mb of its weights, 1e6 bytes.
    parity: golden photos through every way of serving; empty until they were tried.
    """

    name: str
    challenger: int
    champion: int | None
    contract: ClassContract
    majority: str
    behaviour: Behaviour
    ms: float
    mb: float
    last_champion: int | None = None
    unknown_ancestor: int | None = None
    abstain_below: float = 0.0
    parity: tuple[WayParity, ...] = ()

    @property
    def are_one(self) -> bool:
        """Whether the challenger serves already."""
        return self.champion == self.challenger


@dataclass(frozen=True)
class Duel:
    """The contenders, and the photos that they answered.

    photos: a row a test photo: path, sha256, label, every slice column, seen (whether a contender
        was trained or chosen on it or on a copy), unit (the same number for copies and near copies
        of one photo), challenger, champion (the class that each said;
        the champion's by today's name, "" if there is none), challenger_confidence,
        champion_confidence (in [0, 1], after each one's temperature; NaN if there is none).
    """

    contenders: Contenders
    photos: pd.DataFrame

    @property
    def fresh(self) -> pd.DataFrame:
        """The photos that neither contender has seen."""
        return self.photos[~self.photos.seen]

    @property
    def majority_share(self) -> float:
        """Of the fresh photos: what always naming train's largest class gets right; NaN if none."""
        return float((self.fresh.label == self.contenders.majority).mean())

    @property
    def compared(self) -> pd.DataFrame:
        """The fresh photos of classes that both know, one of each unit.

        Nine copies of one photo would count as nine proofs.
        """
        fresh = self.fresh
        is_shared = fresh.label.isin(self.contenders.contract.kept)
        return fresh[is_shared].sort_values(["sha256", "path"]).drop_duplicates("unit")


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
    lines = [registry.ancestry(config.tracking, one) for one in (version, champion) if one]
    manifests = [manifest for line in lines for manifest in line.manifests]
    n_bits = config.split.near_duplicate_bits
    kept = [column for column in test.columns if column.startswith(SLICE_PREFIX)]
    photos = test[["path", "sha256", "label", *kept]].assign(
        seen=seen_in(manifests, test, n_bits),
        unit=units_of(test, n_bits),
        **_columns("challenger", _asked(challenger, test, config)),
        **_columns("champion", _rival_answers(rival, contract, test, config)),
    )
    contenders = Contenders(
        name=version.name,
        challenger=version.version,
        champion=champion.version if champion else None,
        contract=contract,
        majority=str(splits.counts.train.idxmax()),
        behaviour=_behaviour(challenger, test, manifests, config),
        ms=serving_ms(challenger),
        mb=sum(tensor.nbytes for tensor in challenger.weights.values()) / 1e6,
        last_champion=None if champion else registry.last_champion(config.tracking, version.name),
        unknown_ancestor=next((line.version for line in lines if not line.is_whole), None),
        abstain_below=challenger.card.abstain_below,
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
    units = _near_units(both, n_bits)
    near = asked.sha256[np.isin(units[: len(asked)], units[len(asked) :])]
    return np.asarray(exact | photos.sha256.isin(near).to_numpy())


def units_of(photos: pd.DataFrame, n_bits: int) -> NDArray[np.int64]:
    """(N,) the same number for photos that are copies or near copies of each other.

    Args:
        photos: N of them, with the columns sha256, phash and thumbnail. n_bits: as in seen_in().
    """
    distinct = photos.drop_duplicates("sha256").reset_index(drop=True)
    unit = pd.Series(_near_units(distinct, n_bits), index=distinct.sha256)
    return np.asarray(unit.loc[photos.sha256])


def _near_units(photos: pd.DataFrame, n_bits: int) -> NDArray[np.int64]:
    """(N,) the number of each photo's unit: a chain of near copies is one, as in the split."""
    pairs = find_near_pairs(photos, n_bits)
    return connected(len(photos), pairs.first, pairs.second)


def _behaviour(
    challenger: ImageClassifier,
    test: pd.DataFrame,
    manifests: Sequence[pd.DataFrame],
    config: Config,
) -> Behaviour:
    seen = behave(challenger, test, config.behaviour, config.embed)
    trained = {sha256 for manifest in manifests for sha256 in manifest.sha256}
    judged = (replace(one, trained_on=one.sha256 in trained) for one in seen.must_pass)
    return replace(seen, must_pass=tuple(judged))


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
