"""configs/probe.yaml from photos to a report: what it promises of real weights on real photos.

The fast tier takes the same road with a tiny network, on photos that are coloured noise.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.core.config import Config, IngestConfig, load_config
from regraft.data.ingest import ingest
from regraft.data.split import Splits, split
from regraft.evaluation.evaluate import EvaluationReport, evaluate
from regraft.evaluation.predict import predict
from regraft.model.classifier import ImageClassifier, load_pretrained
from regraft.model.embed import NO_STORE, Compute, embed
from regraft.model.freeze import freeze
from regraft.model.pixels import photos_of
from regraft.training.transfer import measure_transfer
from regraft.training.tune import Challenger, fine_tune
from tests.unit.tiny import ARCHITECTURE, COLOURS, photo, write_weights

ROOT = Path(__file__).resolve().parents[2]
DATASETS = ROOT.parent / "shared" / "datasets"
PROBE = ROOT / "configs" / "probe.yaml"
EXPECT = re.compile(r"^# EXPECT (\w+) test_accuracy ([\d.]+) \+- ([\d.]+)$", re.MULTILINE)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Probed:
    """What the road up to the registry made of a data set."""

    config: Config
    splits: Splits
    pretrained: ImageClassifier
    challenger: Challenger
    report: EvaluationReport

    @property
    def served(self) -> ImageClassifier:
        """The classifier with the temperature that its evaluation found."""
        return self.challenger.classifier.with_card(temperature=self.report.temperature)


def probe(photos: Path, config: Config | None = None) -> Probed:
    """The stages from ingest to evaluate with configs/probe.yaml, without a pipeline."""
    config = config or load_config(PROBE)
    return probe_splits(split(ingest(IngestConfig(photos=str(photos))), config.split), config)


def probe_splits(splits: Splits, config: Config) -> Probed:
    pretrained = load_pretrained(config.backbone, splits.classes)
    plan = freeze(pretrained, config.freeze)
    transfer = measure_transfer(pretrained, splits, config.tune, NO_STORE)
    challenger = fine_tune(pretrained, plan, splits, config.tune, lambda record: None)
    report = evaluate(challenger, transfer, splits, config.evaluate)
    return Probed(config, splits, pretrained, challenger, report)


def assert_as_promised(name: str, report: EvaluationReport):
    stated = {found[1]: (float(found[2]), float(found[3])) for found in EXPECT.finditer(read())}
    assert name in stated, f"configs/probe.yaml states no result for {name}"
    middle, spread = stated[name]
    assert report.accuracy.value == pytest.approx(middle, abs=spread)


def read() -> str:
    return PROBE.read_text(encoding="utf-8")


def dataset(name: str) -> Path:
    if not (DATASETS / name).is_dir():
        pytest.skip(f"no photos at {DATASETS / name}")
    return DATASETS / name


@pytest.fixture(scope="module")
def clothes():
    return probe(dataset("clothes"))


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Photos that share a class's mean colour, which even random weights tell apart."""
    folder = tmp_path_factory.mktemp("colours")
    for first_seed, (label, colour) in zip((0, 20, 40), COLOURS.items(), strict=True):
        (folder / "photos" / label).mkdir(parents=True)
        for seed in range(first_seed, first_seed + 20):
            photo(seed, (48, 48), colour).save(folder / "photos" / label / f"{seed}.png")
    source = f"backbone.source=file:{write_weights(folder / 'weights.safetensors')}"
    settings = (source, f"backbone.architecture={ARCHITECTURE}", "split.near_duplicate_bits=0")
    return probe(folder / "photos", load_config(PROBE, settings))


@pytest.fixture(params=["colours", pytest.param("clothes", marks=pytest.mark.slow)])
def probed(request) -> Probed:
    return request.getfixturevalue(request.param)


def with_imagenet_normalisation(classifier: ImageClassifier) -> ImageClassifier:
    """A mutant that types the usual numbers instead of taking the backbone's own."""
    backbone = classifier.card.backbone
    wrong = backbone.preprocessing.model_copy(update=IMAGENET)
    return classifier.with_card(backbone=backbone.model_copy(update={"preprocessing": wrong}))


def test_the_configuration_states_a_result_for_each_data_set():
    stated = {found[1]: (float(found[2]), float(found[3])) for found in EXPECT.finditer(read())}
    assert set(stated) == {"clothes", "trash"}
    for middle, spread in stated.values():
        assert 0 < middle - spread < middle + spread < 1


def test_probe_is_better_than_the_largest_class_alone(probed):
    assert probed.report.n >= 9
    assert probed.report.accuracy.low > probed.report.baseline.high
    assert probed.challenger.audit.n_drifted == 0


@pytest.mark.slow
def test_probe_on_clothes_is_as_accurate_as_the_configuration_says(clothes):
    assert_as_promised("clothes", clothes.report)


@pytest.mark.slow
def test_probe_on_trash_is_as_accurate_as_the_configuration_says():
    made = probe(dataset("trash"))
    assert_as_promised("trash", made.report)
    assert set(made.splits.quarantine.reason) == {"clashing labels"}
    assert len(made.splits.quarantine) == 6  # three pairs of one photo under two labels


def test_new_photos_are_labelled_as_the_report_says(probed, tmp_path):
    answers = probed.report.predictions
    judged = answers[answers.split == "test"].head(40)
    copies = [
        str(shutil.copy(path, tmp_path / f"{number}{Path(path).suffix}"))
        for number, path in enumerate(judged.path)
    ]
    table = predict(probed.served, copies)
    assert table.label.tolist() == judged.predicted.tolist()
    assert np.allclose(table.confidence, judged.confidence, atol=1e-4)


@pytest.mark.slow  # fast, on a tiny network: test_pixels.py, test_embed.py
def test_wrong_normalisation_is_not_silent(clothes):
    """On few photos of few classes it may cost no accuracy, but the network sees other things."""
    photos = photos_of(clothes.splits.test)[:32]
    right, again, wrong = (
        embed(classifier, photos, Compute(torch.device("cpu"), dtype), NO_STORE).all().float()
        for classifier, dtype in (
            (clothes.served, torch.float32),
            (clothes.served, torch.bfloat16),
            (with_imagenet_normalisation(clothes.served), torch.float32),
        )
    )  # (N, D)
    assert torch.cosine_similarity(right, again).mean() > 0.99  # what rounding may do
    assert torch.cosine_similarity(right, wrong).mean() < 0.95


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Scikit-learn's handwritten digits as photos, 16 of each: there on every machine."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    scans, labels = load_digits(return_X_y=True)
    for label in range(10):
        (folder / str(label)).mkdir()
        for number, scan in enumerate(scans[labels == label][:16]):
            pixels = (255 - scan.reshape(8, 8) * 255 / 16).astype(np.uint8)
            photo = Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC)
            photo.save(folder / str(label) / f"{number}.png")
    return probe(folder)


@pytest.mark.slow
def test_probe_reads_digits_far_better_than_chance(digits):
    assert digits.report.n >= 20
    assert digits.report.accuracy.value > 0.6
    assert digits.challenger.audit.n_drifted == 0


def shuffled(probed: Probed, config: Config) -> EvaluationReport:
    """The report after the labels of all photos but the test photos were shuffled."""
    frame = probed.splits.frame.copy()
    learnt = frame.split != "test"
    frame.loc[learnt, "label"] = np.random.default_rng(0).permutation(frame.label[learnt])
    splits = Splits(**(vars(probed.splits) | {"frame": frame, "digest": "0" * 64}))
    return probe_splits(splits, config).report


def test_shuffled_labels_teach_less_than_right_ones(colours):
    report = shuffled(colours, colours.config)
    assert report.accuracy.value < 0.7 < colours.report.accuracy.value


@pytest.mark.slow
def test_shuffled_labels_teach_nothing(digits):
    quick = load_config(PROBE, ("tune.head_l2=[1.0]",))  # a weaker one takes long to learn by heart
    report = shuffled(digits, quick)
    assert report.accuracy.low <= 0.1 < digits.report.accuracy.low
    assert report.accuracy.value < 0.35
