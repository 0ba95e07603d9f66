"""Alarms about labels: how many of the photos that the report shows have a wrong label."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from regraft.core.config import load_config
from regraft.data.ingest import ingest
from regraft.data.split import Splits, split
from regraft.evaluation.evaluate import (
    LabelledLogits,
    calibrate,
    class_codes,
    likely_label_errors,
)
from regraft.model.classifier import load_pretrained
from regraft.model.embed import logits, probabilities
from regraft.model.freeze import freeze
from regraft.model.pixels import photos_of
from regraft.training.tune import fine_tune
from tests.bench.measure import Row

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "DejaVuSans-Bold")


def alarms(
    photos: Path, seeds: list[int], folder: Path, rates: tuple[float, ...] = (0.0, 0.033, 0.05)
) -> Iterator[Row]:
    """Replace a share of all labels by another class, train a probe, and count what is shown.

    With "letters" as photos, the set is drawn here: 62 classes, some of which look alike.
    precision: the share of the shown photos whose label was replaced. recall: the share of the
    replaced labels of test and validation that is shown. Errors that the data already has count as
    false alarms.
    """
    if photos.name == "letters":
        photos = draw_letters(folder / "letters")
    settings = (f"ingest.photos={photos}", f"embed.store_url={folder}/embeddings")
    config = load_config(None, settings)
    splits = split(ingest(config.ingest), config.split)
    pretrained = load_pretrained(config.backbone, splits.classes)
    for rate in rates:
        for seed in seeds:
            flipped, is_flipped = flip_labels(splits, rate, seed)
            plan = freeze(pretrained, config.freeze)
            tune = config.tune.model_copy(update={"seed": seed})
            trained = fine_tune(pretrained, plan, flipped, tune, lambda _: None, config.embed)
            held_out = pd.concat([flipped.test, flipped.validation], ignore_index=True)
            scores = logits(trained.classifier, photos_of(held_out), config.embed)
            codes = class_codes(held_out.label, splits.classes)
            parts = [
                LabelledLogits(scores[rows], torch.from_numpy(codes[rows]))
                for rows in (held_out.split == "test", held_out.split == "validation")
                for rows in [np.flatnonzero(rows)]
            ]
            temperature = calibrate(parts[1], parts[0], config.evaluate.n_bins).temperature
            probs = probabilities(scores, temperature).numpy()
            shown = likely_label_errors(held_out, codes, probs, splits.classes)
            n_right = int(shown.path.isin(is_flipped).sum())
            n_flipped = int(held_out.path.isin(is_flipped).sum())
            accuracy = float((probs.argmax(axis=1) == codes).mean())
            figures = {"shown": float(len(shown)), "held_out": float(len(codes)), "right": accuracy}
            if len(shown):
                figures["expected"] = float(shown.expected_precision.iloc[-1])
            if rate and len(shown):
                figures["precision"] = n_right / len(shown)
            if rate:
                figures["recall"] = n_right / n_flipped
            who = f"{photos.name}, {rate:.1%} wrong"
            yield {"bench": "alarms", "who": who, "seed": seed} | figures


def flip_labels(splits: Splits, rate: float, seed: int) -> tuple[Splits, set[str]]:
    """Return the splits with a share of all labels replaced, and the paths of these photos."""
    rng = np.random.default_rng(seed)
    frame = splits.frame.copy()
    rows = np.flatnonzero(rng.random(len(frame)) < rate)
    codes = class_codes(frame.label, splits.classes)
    others = (codes[rows] + rng.integers(1, len(splits.classes), len(rows))) % len(splits.classes)
    labels = frame.label.to_numpy(object)
    labels[rows] = np.array(splits.classes, dtype=object)[others]
    return replace(splits, frame=frame.assign(label=labels)), set(frame.path.iloc[rows])


def draw_letters(folder: Path, n_each: int = 40) -> Path:
    """Draw letters and digits in several fonts, turned, blurred and noisy, a folder a class."""
    rng = np.random.default_rng(0)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for character in CHARACTERS:
        place = folder / f"{ord(character):03d}"
        place.mkdir(parents=True, exist_ok=True)
        for number in range(n_each):
            font = ImageFont.truetype(
                str(fonts / f"{rng.choice(FONTS)}.ttf"), int(rng.integers(60, 130))
            )
            shade = tuple(int(each) for each in rng.integers(150, 256, 3))
            image = Image.new("RGB", (192, 192), shade)
            ink = tuple(int(each) for each in rng.integers(0, 90, 3))
            spot = tuple(int(each) for each in rng.integers(80, 112, 2))
            ImageDraw.Draw(image).text(spot, character, ink, font=font, anchor="mm")
            image = image.rotate(float(rng.normal(0, 8)), fillcolor=shade)
            image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 4))))
            pixels = np.asarray(image) + rng.normal(0, 12, (192, 192, 1))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")
    return folder
