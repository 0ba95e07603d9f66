"""What `regraft watch` promises: from the bundle of a registered model to the page and the code."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter
from tiny_challenger import draw_photos, put, tracking_in, trained
from tiny_train import NAME
from typer.testing import CliRunner

from commands import app
from regraft import journal, registry
from regraft.classifier import load_pretrained
from regraft.config import (
    BackboneConfig,
    Config,
    DriftConfig,
    EmbedConfig,
    FreezeConfig,
    IngestConfig,
    SplitConfig,
)
from regraft.drift import FOLDER, gather, look, make_reference, watch
from regraft.errors import ConfigError, DriftFound, ModelNotFound, RegistryError
from regraft.freeze import freeze
from regraft.ingest import ingest
from regraft.split import split
from regraft.status.page import PAGE
from regraft.tune import fine_tune

pytestmark = pytest.mark.pipeline
CLOTHES = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "clothes"
SETTINGS = ("--set", "drift.min_photos=15")  # there are thirty


def ask(world, photos: Path, *options: str):
    arguments = ["watch", str(photos), "--state", str(world.state.root), *SETTINGS, *options]
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def alike(tmp_path) -> Path:
    """Thirty photos of the three colours that the world's champion knows."""
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


def test_drift_is_told_in_a_few_lines_on_a_page_and_in_the_journal(world, dark):
    answer = ask(world, dark)
    assert answer.exit_code == 0, answer.exception
    assert answer.output.startswith(f"{NAME}/1: drifted. 30 new photos compared with ")
    assert "photos are darker: " in answer.output
    assert "1 not readable" in answer.output
    (record,) = journal.watches(str(world.state.journal))
    assert (record.name, record.version, record.n_photos, record.drifted) == (NAME, 1, 30, True)
    assert record.p_value <= 0.01
    assert "photos are darker" in record.reason
    assert Path(record.page).parent == world.state.reports
    page = Path(record.page).read_text(encoding="utf-8")
    assert "photos are darker" in page
    assert "empty file" in page


def test_fail_on_drift_ends_with_ten_after_everything_is_written(world, dark, alike, tmp_path):
    page = tmp_path / "pages" / "page.html"
    answer = ask(world, dark, "--fail-on-drift", "--out", str(page))
    assert isinstance(answer.exception, DriftFound)
    assert DriftFound.exit_code == 10
    assert str(answer.exception).startswith("30 new photos are of another kind: ")
    assert f"Look at {page}, then retrain" in str(answer.exception)
    assert page.is_file()
    assert len(journal.watches(str(world.state.journal))) == 1
    assert ask(world, alike, "--fail-on-drift").exit_code == 0


def test_json_holds_all_that_was_found(world, alike):
    place = alike.parent / "told.json"
    assert ask(world, alike, "--out", str(place)).exit_code == 0
    told = json.loads(place.read_text(encoding="utf-8"))
    assert Path(told["page"]).is_file()
    assert (told["name"], told["drifted"], told["n_photos"]) == (NAME, False, 30)
    assert {one["name"] for one in told["findings"]} >= {"content", "size", "class shares"}
    assert sum(row["estimated"] for row in told["shares"]) == pytest.approx(1)
    assert len(told["strangest"]) == 30


def test_settings_are_those_of_the_training_unless_set(world, alike):
    world.train("drift.level=0.02", "tune.head_l2=[7.0]")
    place = alike.parent / "told.json"
    ask(world, alike, "--model", f"{NAME}@challenger", "--out", str(place))
    assert json.loads(place.read_text(encoding="utf-8"))["level"] == 0.02
    ask(world, alike, "--set", "drift.level=0.03", "--out", str(place))
    assert json.loads(place.read_text(encoding="utf-8"))["level"] == 0.03


def test_a_place_for_nothing_known_is_refused_first(world, alike):
    answer = ask(world, alike, "--out", "page.pdf")
    assert isinstance(answer.exception, ConfigError)
    assert str(answer.exception) == (
        "Expected a file ending in .html or .json for --out, got 'page.pdf'."
    )
    assert "drift.levle" in str(ask(world, alike, "--set", "drift.levle=1").exception)


@pytest.mark.parametrize("command", [["watch"], ["predict-batch", "--out", "nowhere"]])
@pytest.mark.parametrize(
    ("place", "told"),
    [
        (
            "memory://user:s3cret@host/new",
            r"Expected a place without a password: memory://\.\.\.@host/new holds a password",
        ),
        ("caf\udce9", r"Expected a place whose name is UTF-8, got caf\\xe9\. Rename it"),
    ],
)
def test_a_place_that_must_not_be_written_down_is_refused_first(tmp_path, command, place, told):
    arguments = [*command, place, "--state", str(tmp_path / "no state")]
    answer = CliRunner().invoke(app, arguments)
    assert isinstance(answer.exception, ConfigError)
    assert re.match(told, str(answer.exception))
    assert "s3cret" not in str(answer.exception) + answer.output
    assert not any(tmp_path.iterdir())


def test_drift_is_told_even_if_the_status_page_cannot_be_written(world, dark, tmp_path):
    (world.state.reports / PAGE).unlink(missing_ok=True)
    (world.state.reports / PAGE).mkdir(parents=True)
    target = f'notify.targets=[{{kind: command, to: "tee {tmp_path}/told", of: [drift]}}]'
    assert isinstance(ask(world, dark, "--set", target).exception, OSError)
    assert "photos are darker" in (tmp_path / "told").read_text(encoding="utf-8")


def test_what_the_model_was_trained_on_is_not_new(world):
    answer = ask(world, world.photos)
    assert "known ones left out" in answer.output
    assert answer.output.startswith(f"{NAME}/1: cannot say. 9 new photos")
    (record,) = journal.watches(str(world.state.journal))
    assert (record.drifted, record.p_value) == (False, 1.0)
    assert "say nothing about drift, it takes drift.min_photos=15" in record.reason


def bundle(tracking, version) -> Path:
    return Path(version.bundle_url.removeprefix("file://"))


def test_a_model_older_than_references_says_what_to_do_and_a_training_completes_it(world, alike):
    version = registry.find(world.tracking, NAME, "champion")
    shutil.rmtree(bundle(world.tracking, version) / FOLDER)
    assert registry.load_reference(world.tracking, version) is None
    answer = ask(world, alike)
    assert isinstance(answer.exception, ModelNotFound)
    assert str(answer.exception).startswith(f"{NAME}/1 was registered before models kept what")
    assert "Run `regraft train` on its photos once more" in str(answer.exception)
    world.train()
    assert registry.aliases(world.tracking, NAME)["champion"] == 1
    assert ask(world, alike).exit_code == 0


def test_a_damaged_reference_is_told(world, alike):
    version = registry.find(world.tracking, NAME, "champion")
    (bundle(world.tracking, version) / FOLDER / "reference.safetensors").write_bytes(b"?")
    answer = ask(world, alike)
    assert isinstance(answer.exception, RegistryError)
    assert "Expected the reference for drift of a model in" in str(answer.exception)


def test_the_side_of_a_reference_follows_the_line_of_warm_starts(tmp_path, monkeypatch, calm):
    monkeypatch.chdir(tmp_path)
    tracking, made = tracking_in(tmp_path), trained()

    def side(parent: str, nudge: float) -> str:
        """Of the same probe, as if it had started from another model."""
        classifier = made.challenger.classifier.with_card(parent=parent)
        bias = classifier.weights["head.bias"] + nudge
        classifier = replace(classifier, weights=classifier.weights | {"head.bias": bias})
        challenger = replace(made.challenger, classifier=classifier)
        version = put(replace(made, challenger=challenger), tracking)
        reference = registry.reference_of(tracking, version)
        return f"{reference.side} {version.content_hash}"

    first, parent = side("", 0.0).split()
    assert first == "train"
    assert side(parent, 0.1).startswith("train ")
    assert side("a model that nobody has", 0.2).startswith("validation ")


# real photos, a real network


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """A probe of lite0, trained on photos of clothes; and those that it has not seen."""
    if not CLOTHES.is_dir():
        pytest.skip("the photos of clothes are not here")
    folder = tmp_path_factory.mktemp("clothes")
    photos = sorted(CLOTHES.rglob("*.jpg"))
    table = pd.DataFrame({"image": map(str, photos), "label": [p.parent.name for p in photos]})
    table[table.label != "shoes"].to_csv(folder / "known.csv", index=False)
    config = Config(
        ingest=IngestConfig(photos=str(folder / "known.csv"), memory_url=str(folder / "photos")),
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


def test_photos_held_out_are_quiet(clothes):
    classifier, reference, splits, config, _ = clothes
    report = look(reference, classifier, splits.test, config, seed=0)
    assert report.drifted is False, report.reason
    assert report.n_photos > 100


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
    assert {one.name for one in report.found} >= expected


def test_a_class_that_the_model_does_not_know_is_loud(clothes, tmp_path):
    """Three of ten new photos show shoes, which nobody taught it."""
    classifier, reference, splits, config, shoes = clothes
    n_known = len(splits.test)
    strange = gather(_manifest(tmp_path, shoes[: n_known * 3 // 7]), config.ingest).photos
    report = look(reference, classifier, pd.concat([splits.test, strange]), config, seed=0)
    assert "content" in {one.name for one in report.found}


def _manifest(folder: Path, paths: list[str]) -> str:
    place = folder / "strange.csv"
    pd.DataFrame({"image": paths}).to_csv(place, index=False)
    return str(place)
