"""Between champion and challenger: every blend on test photos, and which one validation took."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from regraft.core.config import Config, load_config
from regraft.data.ingest import ingest
from regraft.data.split import Splits, split
from regraft.model.classifier import ImageClassifier, load_pretrained
from regraft.model.embed import logits
from regraft.model.freeze import freeze
from regraft.model.pixels import photos_of
from regraft.registry.interpolate import align_champion, blend_models, interpolate
from regraft.training.tune import Challenger, fine_tune
from tests.bench.measure import Row

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


def blends(photos: Path, policy: str, epochs: int, seeds: list[int], folder: Path) -> Iterator[Row]:
    """A champion of half of the training photos, a challenger of all; a line an alpha and seed.

    Both start from the pretrained weights. The photos, and so the test split, are the same for each
    seed; it draws the half and the order of training.
    """
    for seed in seeds:
        settings = (f"ingest.photos={photos}", f"freeze.policy={policy}", f"tune.seed={seed}")
        settings += (f"tune.epochs={epochs}", f"embed.store_url={folder}/embeddings")
        config = load_config(None, settings)
        splits = split(ingest(config.ingest), config.split)
        champion = _trained(_half(splits, seed), config).classifier
        challenger = _trained(splits, config)
        found = interpolate(challenger, champion, splits, config).interpolation
        validation = {t.alpha: {"validation_accuracy": t.accuracy} for t in found.trials}
        print(found, flush=True)
        known = align_champion(champion, challenger.classifier)
        was_right = _right(champion, splits, config)
        for alpha in GRID:
            model = {0.0: champion, 1.0: challenger.classifier}.get(alpha)
            is_right = _right(
                model or blend_models(known, challenger.classifier, alpha), splits, config
            )
            row: Row = {"bench": "interpolate", "who": f"alpha {alpha:g}", "seed": seed}
            row |= {"policy": policy, "test_accuracy": float(is_right.mean())}
            row |= {"negative_flips": float((was_right & ~is_right).mean())}
            row |= validation.get(alpha, {})
            yield row
            if alpha == found.alpha:
                yield row | {"who": "chosen on validation", "alpha": alpha}


def _half(splits: Splits, seed: int) -> Splits:
    """The same validation and test photos, and of each class half of the training photos."""
    train = splits.frame[splits.frame.split == "train"]
    gone = train.groupby("label").sample(frac=0.5, random_state=seed).index
    return replace(splits, frame=splits.frame.drop(gone).reset_index(drop=True))


def _trained(splits: Splits, config: Config) -> Challenger:
    start = load_pretrained(config.backbone, splits.classes)
    plan = freeze(start, config.freeze)
    return fine_tune(start, plan, splits, config.tune, lambda record: None, config.embed)


def _right(classifier: ImageClassifier, splits: Splits, config: Config) -> np.ndarray:
    said = logits(classifier, photos_of(splits.test), config.embed).argmax(dim=1).numpy()
    return np.array(splits.classes, dtype=object)[said] == splits.test.label.to_numpy(dtype=object)
