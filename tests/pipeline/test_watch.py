"""`regraft watch`, from the bundle of a registered model to the page and the exit code."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageFilter
from tiny_challenger import TUNE, Trained, draw_photos, tracking_in, trained
from typer.testing import CliRunner

from regraft import registry
from regraft.cli import app
from regraft.core.config import (
    BackboneConfig,
    Config,
    DriftConfig,
    EmbedConfig,
    FreezeConfig,
    IngestConfig,
    RegistryConfig,
    SplitConfig,
    TrackingConfig,
)
from regraft.core.errors import ConfigError, DriftFound, ModelNotFound, RegistryError
from regraft.core.state import State, open_state
from regraft.data.ingest import ingest
from regraft.data.split import split
from regraft.drift import FOLDER, detect_drift, gather, make_reference, watch
from regraft.model.classifier import load_pretrained
from regraft.model.freeze import freeze
from regraft.operations import journal
from regraft.operations.journal import Watch
from regraft.operations.status.page import PAGE
from regraft.registry import RegisteredVersion
from regraft.training.tune import fine_tune
from tests.pipeline.conftest import enter, one_thread

pytestmark = pytest.mark.pipeline
CLOTHES = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "clothes"
NAME = "tiny"
SETTINGS = ("--set", "drift.min_photos=15")  # there are thirty


@dataclass(frozen=True)
class Store:
    """A state folder, and the registry in it."""

    state: State
    tracking: TrackingConfig

    def ask(self, photos: Path, *options: str):
        """`regraft watch PHOTOS OPTIONS`."""
        arguments = ["watch", str(photos), "--state", str(self.state.root), *SETTINGS, *options]
        return CliRunner().invoke(app, arguments)

    def watches(self) -> list[Watch]:
        return journal.read_watches(str(self.state.journal))

    def bundle(self, version: str = "champion") -> Path:
        url = registry.find(self.tracking, NAME, version).bundle_url
        return Path(url.removeprefix("file://"))

    @contextmanager
    def changed_reference(self) -> Iterator[Path]:
        """The champion's drift reference; restored at the end of the block."""
        here = self.bundle() / FOLDER
        before = shutil.copytree(here, self.state.root / "reference before")
        yield here
        shutil.rmtree(here, ignore_errors=True)
        shutil.move(before, here)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One state folder for the file, in which version 1 of a tiny model serves.

    Each test leaves the version and the aliases as they are.
    """
    folder = tmp_path_factory.mktemp("watch")
    opened = open_state(folder / "state folder")
    store = Store(opened, tracking_in(folder, NAME))
    with pytest.MonkeyPatch.context() as patched, one_thread():
        enter(opened, patched)
        version = register(trained(), store.tracking)
        registry.set_alias(store.tracking, version, registry.CHAMPION)
        yield store


def register(made: Trained, tracking: TrackingConfig, **sections) -> RegisteredVersion:
    """Registers it as if the run had this configuration."""
    sections = {"tune": TUNE, "registry": RegistryConfig(n_parity=1)} | sections
    config = Config(tracking=tracking, **sections)
    return registry.register(made.challenger, made.report, made.splits, config, {})


def another(nudge: float, parent: str = "") -> Trained:
    """The same probe as if it had started from parent; each nudge is a model of its own."""
    made = trained()
    classifier = made.challenger.classifier.with_card(parent=parent)
    bias = classifier.weights["head.bias"] + nudge
    classifier = replace(classifier, weights=classifier.weights | {"head.bias": bias})
    return replace(made, challenger=replace(made.challenger, classifier=classifier))


@pytest.fixture
def alike(tmp_path) -> Path:
    """Thirty photos of the three colours that the champion knows."""
    draw_photos(tmp_path / "alike", 10, seed=77)
    return tmp_path / "alike"


@pytest.fixture
def dark(alike, tmp_path) -> Path:
    """The same at night, with a broken one among them."""
    folder = shutil.copytree(alike, tmp_path / "dark")
    for path in folder.rglob("*.png"):
        Image.open(path).point(lambda level: level // 4).save(path)
    (folder / "broken.png").write_bytes(b"")
    return folder


def test_drift_is_told_in_a_few_lines_on_a_page_and_in_the_journal(store, dark):
    before = store.watches()
    answer = store.ask(dark)
    assert answer.exit_code == 0, answer.exception
    first, *lines = answer.output.splitlines()
    assert first.startswith(f"{NAME}/1: ")
    assert " 30 " in first
    assert "brightness" in {line.split()[0] for line in lines}
    (record,) = store.watches()[len(before) :]
    assert (record.name, record.version, record.n_photos, record.drifted) == (NAME, 1, 30, True)
    assert record.p_value <= 0.01
    assert "brightness: " in record.reason
    assert record.page in answer.output
    assert Path(record.page).parent == store.state.reports
    page = Path(record.page).read_text(encoding="utf-8")
    assert "broken.png" in page
    assert "brightness" in page


def test_fail_on_drift_ends_with_ten_after_everything_is_written(store, dark, alike, tmp_path):
    before = store.watches()
    page = tmp_path / "pages" / "page.html"
    answer = store.ask(dark, "--fail-on-drift", "--out", str(page))
    assert isinstance(answer.exception, DriftFound)
    assert DriftFound.exit_code == 10
    (record,) = store.watches()[len(before) :]
    for part in ("30 ", record.reason, str(page)):
        assert part in str(answer.exception)
    assert page.is_file()
    assert store.ask(alike, "--fail-on-drift").exit_code == 0


def test_json_holds_all_that_was_found(store, alike):
    (alike / "broken.png").write_bytes(b"")
    place = alike.parent / "told.json"
    assert store.ask(alike, "--out", str(place)).exit_code == 0
    told = json.loads(place.read_text(encoding="utf-8"))
    assert Path(told["page"]).is_file()
    assert (told["name"], told["drifted"], told["n_photos"]) == (NAME, False, 30)
    assert {one["name"] for one in told["tests"]} >= {"content", "size", "class shares"}
    assert sum(row["estimated"] for row in told["shares"]) == pytest.approx(1)
    assert len(told["most_distant"]) == 30
    assert [Path(one["path"]).name for one in told["unusable"]] == ["broken.png"]


def test_settings_are_those_of_the_training_unless_set(store, alike):
    version = register(another(0.5), store.tracking, drift=DriftConfig(level=0.02))
    place = alike.parent / "told.json"
    store.ask(alike, "--model", f"{NAME}/{version.version}", "--out", str(place))
    assert json.loads(place.read_text(encoding="utf-8"))["level"] == 0.02
    store.ask(alike, "--set", "drift.level=0.03", "--out", str(place))
    assert json.loads(place.read_text(encoding="utf-8"))["level"] == 0.03


def test_a_place_for_nothing_known_is_refused_first(store, alike):
    before = store.watches()
    answer = store.ask(alike, "--out", "page.pdf")
    assert isinstance(answer.exception, ConfigError)
    for part in (".html", ".json", "--out", "'page.pdf'"):
        assert part in str(answer.exception)
    assert "drift.levle" in str(store.ask(alike, "--set", "drift.levle=1").exception)
    assert store.watches() == before


@pytest.mark.parametrize("command", [["watch"], ["predict-batch", "--out", "nowhere"]])
@pytest.mark.parametrize(
    ("place", "named"),
    [("memory://user:s3cret@host/new", "memory://...@host/new"), ("caf\udce9", r"caf\xe9")],
)
def test_a_place_that_must_not_be_written_down_is_refused_first(store, command, place, named):
    before = store.watches()
    answer = CliRunner().invoke(app, [*command, place, "--state", str(store.state.root)])
    assert isinstance(answer.exception, ConfigError)
    assert named in str(answer.exception)
    assert "s3cret" not in str(answer.exception) + answer.output
    assert store.watches() == before


def test_drift_is_told_even_if_the_status_page_cannot_be_written(store, dark, tmp_path):
    page = store.state.reports / PAGE
    page.unlink(missing_ok=True)
    page.mkdir(parents=True)
    target = f'notify.targets=[{{kind: command, to: "tee {tmp_path}/told", of: [drift]}}]'
    assert isinstance(store.ask(dark, "--set", target).exception, OSError)
    page.rmdir()
    told = json.loads((tmp_path / "told").read_text(encoding="utf-8"))
    assert (told["event"], told["model"]) == ("drift", NAME)
    assert "brightness" in told["text"]


def test_what_the_model_was_trained_on_is_not_new(store):
    splits = trained().splits
    n_new = len(splits.test)
    before = store.watches()
    answer = store.ask(Path(splits.frame.path[0]).parents[1])
    (record,) = store.watches()[len(before) :]
    assert 0 < n_new < 15
    assert (record.n_photos, record.drifted, record.p_value) == (n_new, None, 1.0)
    assert "drift.min_photos=15" in record.reason
    first = answer.output.splitlines()[0]
    assert f" {n_new} " in first
    assert f" {len(splits.frame) - n_new} " in first


def test_a_model_older_than_references_says_what_to_do_and_a_training_completes_it(store, alike):
    version = registry.find(store.tracking, NAME, "champion")
    with store.changed_reference() as reference:
        shutil.rmtree(reference)
        assert registry.load_reference(store.tracking, version) is None
        answer = store.ask(alike)
        assert isinstance(answer.exception, ModelNotFound)
        for part in (f"{NAME}/1", "`regraft train`"):
            assert part in str(answer.exception)
        again = register(trained(), store.tracking)  # what the stage register of a training calls
        assert (again.version, again.created) == (version.version, False)
        assert registry.get_aliases(store.tracking, NAME)["champion"] == 1
        assert store.ask(alike).exit_code == 0


def test_a_damaged_reference_is_told(store, alike):
    with store.changed_reference() as reference:
        (reference / "reference.safetensors").write_bytes(b"?")
        answer = store.ask(alike)
    assert isinstance(answer.exception, RegistryError)
    assert f"/{FOLDER}" in str(answer.exception)


@pytest.fixture
def half_precision(monkeypatch):
    """A processor that computes in bf16."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})


def test_the_side_of_a_reference_follows_the_line_of_warm_starts(store, half_precision):
    """On any processor, because the training is configured to compute in fp32."""
    assert TUNE.precision == "fp32"

    def side(nudge: float, parent: str) -> tuple[str, str]:
        version = register(another(nudge, parent), store.tracking)
        return registry.require_reference(store.tracking, version).split, version.content_hash

    first, parent = side(0.1, "")
    assert first == "train"
    assert side(0.2, parent)[0] == "train"
    assert side(0.3, "a model that nobody has")[0] == "validation"


def test_a_training_in_half_precision_is_compared_by_its_validation_photos(store, half_precision):
    by_processor = TUNE.model_copy(update={"precision": "auto", "device": "cpu"})
    version = register(another(0.4), store.tracking, tune=by_processor)
    assert registry.require_reference(store.tracking, version).split == "validation"


# real photos, a real network


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """A probe of lite0 that was trained on photos of clothes, and the unseen photos."""
    if not CLOTHES.is_dir():
        pytest.skip("the photos of clothes are not here")
    folder = tmp_path_factory.mktemp("clothes")
    photos = sorted(CLOTHES.rglob("*.jpg"))
    table = pd.DataFrame({"image": map(str, photos), "label": [p.parent.name for p in photos]})
    table[table.label != "shoes"].to_csv(folder / "known.csv", index=False)
    config = Config(
        ingest=IngestConfig(
            photos=str(folder / "known.csv"),
            roots=(str(CLOTHES),),
            memory_url=str(folder / "photos"),
        ),
        embed=EmbedConfig(store_url=str(folder / "embeddings")),
        drift=DriftConfig(),
    )
    splits = split(ingest(config.ingest), SplitConfig())
    start = load_pretrained(BackboneConfig(), splits.classes)
    plan = freeze(start, FreezeConfig(policy="probe"))
    made = fine_tune(start, plan, splits, config.tune, lambda record: None, config.embed)
    reference = make_reference(made.classifier, splits, config, "train")
    shoes = [str(path) for path in photos if path.parent.name == "shoes"]
    return made.classifier, reference, splits, config, shoes


def changed(splits, folder: Path, change) -> str:
    for row in splits.test.itertuples():
        photo = Image.open(row.path).convert("RGB")
        change(photo).save(folder / f"{row.sha256}.jpg", "JPEG", quality=92)
    return str(folder)


def noisy(photo):
    generator = np.random.default_rng(0)
    levels = np.asarray(photo) + generator.normal(0, 15, (photo.height, photo.width, 3))
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def blurred(photo):
    return photo.filter(ImageFilter.GaussianBlur(2))


def other_camera(photo):
    """Warmer and smaller."""
    levels = np.asarray(photo.resize((photo.width * 2 // 3, photo.height * 2 // 3)))
    return Image.fromarray((levels * np.array([1, 0.95, 0.8])).astype(np.uint8))


@pytest.mark.slow
def test_photos_held_out_are_quiet(clothes):
    classifier, reference, splits, config, _ = clothes
    report = detect_drift(reference, classifier, splits.test, config, seed=0)
    assert report.drifted is False, report.reason
    assert report.n_photos > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (blurred, {"content", "sharpness"}),
        (noisy, {"content"}),
        (other_camera, {"content", "size", "brightness"}),
    ],
)
def test_real_photos_that_were_changed_are_loud(clothes, tmp_path, change, expected):
    classifier, reference, splits, config, _ = clothes
    place = changed(splits, tmp_path, change)
    report = watch(place, reference, classifier, frozenset(), config)
    assert {one.name for one in report.drifted_tests} >= expected


@pytest.mark.slow
def test_a_class_that_the_model_does_not_know_is_loud(clothes, tmp_path):
    """Three of ten new photos show shoes, a class that the model does not have."""
    classifier, reference, splits, config, shoes = clothes
    n_known = len(splits.test)
    strange = gather(_manifest(tmp_path, shoes[: n_known * 3 // 7]), config.ingest).photos
    report = detect_drift(reference, classifier, pd.concat([splits.test, strange]), config, seed=0)
    assert "content" in {one.name for one in report.drifted_tests}


def _manifest(folder: Path, paths: list[str]) -> str:
    place = folder / "strange.csv"
    pd.DataFrame({"image": paths}).to_csv(place, index=False)
    return str(place)
