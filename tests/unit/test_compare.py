"""The comparison of backbones on the same photos and folds: the table and the choice."""

import hashlib
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from safetensors.torch import load_file, save_file
from tiny import ARCHITECTURE, splits_of, write_weights

from regraft.core.config import BackboneConfig, EmbedConfig, SplitConfig, TuneConfig
from regraft.core.errors import ConfigError, UnusablePhoto, WeightsNotFound
from regraft.data.ingest import read_photo
from regraft.data.split import Splits
from regraft.evaluation.compare import (
    choose_backbone,
    compare,
    config_overrides,
    parse_candidate,
    plot,
)
from regraft.evaluation.compare import comparison as room
from regraft.evaluation.compare.candidate import short_name
from regraft.evaluation.compare.folds import make_folds
from regraft.evaluation.compare.measure import _embeddings, probe
from regraft.model.classifier import load_pretrained
from regraft.model.embed import choose_compute, embed, judging_compute
from regraft.model.pixels import photos_of

pytestmark = pytest.mark.usefixtures("prepared_once")
SPLIT = SplitConfig(near_duplicate_bits=0)
TUNE = TuneConfig(precision="fp32", head_l2=(0.1, 1.0))
NUMBERS = ["probe", "probe_low", "probe_high", "knn", "ms", "ms_low", "ms_high"]


def file_candidate(path, sha256: str = "") -> str:
    return f"file:{path}@{ARCHITECTURE}" + (f"@{sha256}" if sha256 else "")


@pytest.fixture(scope="module", autouse=True)
def _two_small_batches():
    """How fast these networks are is no promise here; that it is measured is one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regraft.evaluation.cost.N_TIMED", 2)
        patch.setattr("regraft.evaluation.cost.BATCH_SIZE", 4)
        yield


@pytest.fixture(scope="session")
def photos(splits) -> Splits:
    """The photos of three colours; those of the test split cannot be opened."""
    frame = splits.frame.assign(group="")
    return splits_of(frame.assign(path=frame.path.where(frame.split != "test", "/nowhere.png")))


@pytest.fixture(scope="session")
def candidates(weights_path, tmp_path_factory):
    """A tiny network, one that computes no numbers, another, and two that nobody can have."""
    folder = tmp_path_factory.mktemp("candidates")
    other = write_weights(folder / "other.safetensors", seed=1)
    weights = load_file(weights_path)
    weights["bn2.bias"] = weights["bn2.bias"] * float("nan")
    save_file(weights, folder / "nan.safetensors")
    files = (weights_path, folder / "nan.safetensors", other, "/nowhere.safetensors")
    return (*map(file_candidate, files), "bundled:nothing")


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return EmbedConfig(store_url=str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def comparison(photos, candidates, store):
    return compare(photos, candidates, SPLIT, TUNE, store)


def test_every_backbone_has_a_row_and_numbers_that_can_be_meant(comparison, candidates):
    table = comparison.table
    assert set(table.source) == set(candidates)
    good = table[table.error == ""]
    assert len(good) == 2
    assert good[NUMBERS].notna().all(axis=None)
    assert (good.probe_low < good.probe).all()
    assert (good.probe <= good.probe_high).all()
    assert (good.ms_low <= good.ms).all()
    assert (good.ms <= good.ms_high).all()
    assert (good.embedding_dim == 256).all()
    assert (good.memory_mb > good.weights_mb).all()
    assert good.probe.is_monotonic_decreasing
    assert (good.probe > 0.6).all()  # three colours: chance is a third
    assert comparison.n_photos == 27


def test_a_backbone_that_cannot_be_had_is_a_row_with_its_error(comparison):
    bad = comparison.table[comparison.table.error != ""]
    assert bad.index.tolist() == [2, 3, 4]
    _, missing, unknown = bad.error
    assert "/nowhere.safetensors" in missing
    assert re.search(r"\bbundled:NAME\b.*\befficientnet_lite0\b.*'nothing'", unknown)
    assert not bad.on_front.any()
    assert not bad.is_chosen.any()


def test_the_chosen_one_is_one_row_and_said_with_its_reason(comparison):
    [chosen] = comparison.table[comparison.table.is_chosen].source
    assert chosen == comparison.chosen
    assert re.search(r"\b\d+\.\d% of 27\b.* ms\b", comparison.reason)
    assert str(comparison) == f"compare: {chosen}, {comparison.reason}"


def test_when_not_one_can_be_had_the_error_names_each(photos):
    pattern = r"\b2\b.* bundled:a: .*\befficientnet_lite0\b.*'a'.* bundled:b: .*'b'"
    with pytest.raises(WeightsNotFound, match=pattern):
        compare(photos, ("bundled:a", "bundled:b"), SPLIT, TUNE)


def test_test_photos_are_never_opened(comparison, photos):
    with pytest.raises(UnusablePhoto, match=r"^missing: .*/nowhere\.png"):
        read_photo(photos.test.path.iloc[0])
    assert comparison.n_photos == len(photos.train) + len(photos.validation) == 27


def test_a_training_finds_the_embeddings_computed(comparison, photos, candidates, store, caplog):
    classifier = load_pretrained(parse_candidate(candidates[0]), photos.classes)
    caplog.set_level("INFO", "regraft.embed")
    for side, compute in (
        (photos.train, choose_compute(TUNE)),
        (photos.validation, judging_compute()),
    ):
        caplog.clear()
        embed(classifier, photos_of(side), compute, store)
        [record] = caplog.records
        n, n_known, n_new = re.findall(r"\d+", record.getMessage())[:3]
        assert (int(n), int(n_known), int(n_new)) == (len(side), len(side), 0)


def test_weights_that_compute_no_numbers_do_not_end_it(comparison, candidates):
    table = comparison.table.set_index("source")
    _, broken, after, *_ = candidates
    assert re.search(r"\bfile:.*nan\.safetensors\b.*tune\.precision\b", table.error[broken])
    assert table.error[after] == ""


@pytest.mark.parametrize("n_draws", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_shuffled_labels_are_told_no_better_than_by_chance(photos, candidates, store, n_draws):
    task = room._task(photos, SPLIT, TUNE)
    classifier = load_pretrained(parse_candidate(candidates[0]), photos.classes)
    x = _embeddings(classifier, task.photos, TUNE, store)
    hits = []
    for seed in range(n_draws):
        y = np.random.default_rng(seed).permutation(task.y)
        for fold in make_folds(y, np.arange(27), seed=0):
            hits += list(probe(x, y, fold, TUNE) == y[fold.judge])
    assert len(hits) == 27 * n_draws
    assert abs(np.mean(hits) - 1 / 3) < 3 * np.sqrt(2 / 9 / len(hits))


def test_of_many_photos_each_class_gives_its_share_and_always_the_same(photos, monkeypatch):
    monkeypatch.setattr(room, "MAX_PHOTOS", 9)
    pool = pd.concat([photos.train, photos.validation], ignore_index=True)
    drawn = room._sample(pool)
    assert drawn.label.value_counts().to_dict() == {"amber": 3, "blue": 3, "green": 3}
    again = room._sample(pool.sample(frac=1, random_state=0).reset_index(drop=True))
    assert set(again.sha256) == set(drawn.sha256)


def test_any_source_but_auto_is_answered_unchanged_and_costs_nothing(photos, monkeypatch):
    def never(*arguments):
        raise AssertionError

    monkeypatch.setattr(room, "compare", never)
    for source in ("bundled:efficientnet_lite2", "champion", "timm:resnet18"):
        config = BackboneConfig(source=source)
        assert choose_backbone(config, photos, SPLIT, TUNE, EmbedConfig()) is config


def test_auto_is_answered_with_the_chosen_candidate(
    photos, weights_path, store, caplog, monkeypatch
):
    monkeypatch.setattr("regraft.evaluation.compare.folds.N_FOLDS", 2)
    sha256 = hashlib.sha256(weights_path.read_bytes()).hexdigest()
    caplog.set_level("INFO", "regraft.compare")
    config = BackboneConfig(source="auto", candidates=(file_candidate(weights_path, sha256),))
    chosen = choose_backbone(config, photos, SPLIT, TUNE, store)
    assert chosen.source == f"file:{weights_path}"
    assert (chosen.architecture, chosen.sha256) == (ARCHITECTURE, sha256)
    assert re.search(rf"{weights_path}\b.*\b\d+\.\d% of 27\b", caplog.text)


@pytest.mark.parametrize(
    "candidate", ["resnet18", "file:a.safetensors", "auto", "champion", "", "file:a@timm:b@beef"]
)
def test_a_candidate_that_cannot_be_meant_is_refused_with_the_forms(candidate):
    with pytest.raises(ConfigError) as refused:
        parse_candidate(candidate)
    for form in ("bundled:NAME", "timm:NAME", "torchvision:NAME", "bundle:URL", "file:PATH"):
        assert form in str(refused.value)
    assert repr(candidate) in str(refused.value)


def test_a_file_says_what_it_is_for_even_with_an_at_sign_in_its_path():
    config = parse_candidate("file:s3://me@host/a@b.safetensors@torchvision:resnet18")
    assert config.source == "file:s3://me@host/a@b.safetensors"
    assert config.architecture == "torchvision:resnet18"


def test_settings_for_a_training_start_from_the_same_backbone():
    assert config_overrides("timm:resnet18") == ("backbone.source=timm:resnet18",)
    sha256 = "0" * 64
    assert config_overrides(f"file:a@timm:b@{sha256}")[2] == f"backbone.sha256={sha256}"


def test_a_file_among_the_candidates_of_auto_needs_its_sha256():
    with pytest.raises(ValueError, match=r"(?s)candidates\.0\b.*'file:a@timm:b'"):
        BackboneConfig(source="auto", candidates=("file:a@timm:b",))
    with pytest.raises(ValueError, match=r"\bauto\b.*\bbackbone\.sha256\b"):
        BackboneConfig(source="auto", sha256="0" * 64)
    with pytest.raises(ValueError, match="at least 1 item"):
        BackboneConfig(source="auto", candidates=())


def test_the_picture_shows_each_backbone_that_could_be_had(comparison, tmp_path):
    figure = plot(comparison)
    [axes] = figure.axes
    assert {text.get_text() for text in axes.texts} == {
        *(f"tiny.safetensors ({ARCHITECTURE})", f"other.safetensors ({ARCHITECTURE})")
    }
    assert short_name(comparison.chosen) in axes.get_title()
    figure.savefig(tmp_path / "plot.png")
    assert not pyplot.get_fignums()
