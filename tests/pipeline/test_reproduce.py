"""Reproduction: same photos and same code give the same bits, or the differences are listed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_challenger import ARCHITECTURE, tracking_in, weights_file
from typer.testing import CliRunner

from regraft import registry
from regraft.cli import app
from regraft.core.config import Config, load_config
from regraft.core.errors import ConfigError, DataError, NotReproduced, WeightsNotFound
from regraft.core.relocate import relocate_database
from regraft.core.state import environment, open_state
from regraft.data.ingest import ingest
from regraft.data.split import split
from regraft.evaluation.evaluate import evaluate
from regraft.model.classifier import load_pretrained
from regraft.model.freeze import freeze
from regraft.promotion.reproduce import Reproduction, check_reproduced, reproduce
from regraft.registry.model_card import html, load_model_card, markdown
from regraft.registry.tracking import connect, log_training, running
from regraft.training.transfer import measure_transfer
from regraft.training.tune import fine_tune

pytestmark = pytest.mark.pipeline


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Use one thread: the network is too small for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(folder: Path) -> Config:
    """A configuration with all paths in a state folder, and a partly thawed backbone."""
    tracking = tracking_in(folder)
    root = folder / "state folder"
    open_state(root)
    places = {
        "ingest.photos": folder / "photos",
        "ingest.memory_url": root / "photos",
        "split.memory_url": root / "splits" / "tiny",
        "embed.store_url": root / "embeddings",
        "tune.checkpoint_url": root / "checkpoints",
        "backbone.source": f"file:{folder / 'weights.safetensors'}",
        "backbone.architecture": ARCHITECTURE,
        "freeze.policy": "last_block",
        "tune.epochs": 2,
        "tune.lr": 0.01,
        "tune.head_l2": [0.1],
        "registry.n_parity": 1,
        "split.near_duplicate_bits": 0,
        "split.test_fraction": 0.3,
        "split.validation_fraction": 0.2,
    }
    config = load_config(None, tuple(f"{name}={value}" for name, value in places.items()))
    return config.model_copy(update={"tracking": tracking})


def train(config: Config):
    """Train and register as `regraft train` does, without ZenML."""
    splits = split(ingest(config.ingest), config.split)
    pretrained = load_pretrained(config.backbone, splits.classes)
    plan = freeze(pretrained, config.freeze)
    with running(config.tracking, "tiny") as run:
        challenger = fine_tune(pretrained, plan, splits, config.tune, print, config.embed)
        log_training(run, challenger)
    challenger = replace(challenger, run_id=run.run_id)
    transfer = measure_transfer(pretrained, splits, config.tune, config.embed)
    report = evaluate(challenger, transfer, splits, config.evaluate, config.embed)
    return registry.register(challenger, report, splits, config, {})


def draw_noise(folder: Path, n_per_class: int, seed: int = 0):
    """Write noise photos: only the thawed part can learn them, so its phase is selected."""
    generator = np.random.default_rng(seed)
    for label in ("amber", "blue", "green"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(n_per_class):
            pixels = generator.integers(0, 256, (24, 24, 3)).astype(np.uint8)
            image = Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST)
            image.save(folder / label / f"{seed}-{number}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A registered version and the folder with its sources; tests do not change them."""
    folder = tmp_path_factory.mktemp("made")
    draw_noise(folder / "photos", 12)
    weights_file(folder / "weights.safetensors")
    config = settings(folder)
    return folder, config, train(config)


@pytest.fixture
def photos(made, tmp_path):
    """A copy of the photos for tests that change them, and its option."""
    copied = shutil.copytree(made[0] / "photos", tmp_path / "photos")
    return copied, f"ingest.photos={copied}"


def photo_of(version, config: Config, folder: Path, side: str) -> Path:
    """One of the photos that the version was trained or selected on."""
    manifest = registry.load_manifest(config.tracking, version)
    frame = ingest(config.ingest.model_copy(update={"photos": str(folder)})).frame
    wanted = manifest[manifest.split == side].sha256
    return Path(frame[frame.sha256.isin(wanted)].path.iloc[0])


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a state except the embedding store and lock files."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "embeddings" not in path.parts and path.suffix != ".lock"
    }


def test_the_reproduced_model_has_a_trained_thawed_part(made):
    _, config, version = made
    run = connect(config.tracking).get_run(version.run_id)
    assert run.data.tags["selected_phase"] == "tune"


def test_retraining_is_identical_and_leaves_the_state_unchanged(made):
    folder, config, version = made
    before = contents(folder / "state folder")
    found = reproduce(version, config.tracking)
    assert found.is_identical
    assert (found.weight_difference, found.agreement, found.differences) == (0.0, 1.0, ())
    assert found.accuracy_retrained == found.accuracy_registered
    assert found.accuracy_recorded == pytest.approx(found.accuracy_registered, abs=1e-6)
    assert "tiny/1" in str(found)
    check_reproduced(found)
    assert contents(folder / "state folder") == before


def test_without_the_embedding_store_every_photo_is_computed_again(made):
    _, config, version = made
    found = reproduce(version, config.tracking, ("embed.store_url=''",))
    assert found.is_reproduced
    assert found.weight_difference < 1e-4


def test_photos_that_were_added_since_are_left_out_of_training(made, photos):
    _, config, version = made
    folder, there = photos
    draw_noise(folder, 8, seed=1)
    found = reproduce(version, config.tracking, (there,))
    assert found.is_identical
    assert found.n_test > 12
    assert "24" in found.differences[0]


def test_missing_photos_are_reported_and_the_model_is_not_reproduced(made, photos):
    _, config, version = made
    folder, there = photos
    photo_of(version, config, folder, "train").unlink()
    photo_of(version, config, folder, "validation").unlink()
    found = reproduce(version, config.tracking, (there,))
    assert not found.has_all_photos
    assert not found.is_reproduced
    with pytest.raises(NotReproduced, match=r"the 24 photos .* 2 gone"):
        check_reproduced(found)


def test_a_photo_with_another_label_is_not_called_gone(made, photos):
    _, config, version = made
    folder, there = photos
    photo = photo_of(version, config, folder, "train")
    other = "green" if photo.parent.name != "green" else "blue"
    photo.rename(folder / other / "moved.png")
    photo_of(version, config, folder, "validation").unlink()
    found = reproduce(version, config.tracking, (there,))
    assert not found.has_all_photos
    assert "Of the 24 photos" in found.differences[0]
    assert "1 labelled otherwise today and 1 gone" in found.differences[0]


def test_a_class_without_photos_cannot_be_trained_again(made, photos):
    _, config, version = made
    folder, there = photos
    shutil.rmtree(folder / "blue")
    with pytest.raises(DataError, match=r"24 photos .*tiny/1.*8 gone.*\bblue\b.*ingest\.photos="):
        reproduce(version, config.tracking, (there,))


def test_without_validation_photos_the_model_cannot_be_selected_again(made, photos):
    _, config, version = made
    folder, there = photos
    for _ in range(6):
        photo_of(version, config, folder, "validation").unlink()
    draw_noise(folder, 8, seed=1)
    with pytest.raises(DataError, match=r"the 24 photos .*6 gone"):
        reproduce(version, config.tracking, (there,))


def test_other_backbone_weights_are_reported(made, tmp_path):
    _, config, version = made
    other = weights_file(tmp_path / "other.safetensors", seed=5)
    found = reproduce(version, config.tracking, (f"backbone.source=file:{other}",))
    assert not found.is_identical
    assert found.weight_difference > 1e-3
    assert any(told.startswith("The backbone's weights were ") for told in found.differences)


def test_a_model_with_equal_predictions_is_distinguished_from_an_identical_one(made):
    _, config, version = made
    found = reproduce(version, config.tracking, ("tune.head_l2=[0.11]", "tune.epochs=0"))
    assert not found.is_identical
    assert found.is_reproduced == (found.agreement == 1.0)
    assert any(told.startswith("The thawed part was trained as ") for told in found.differences)
    assert "tune.head_l2=[0.11], tune.epochs=0" in found.differences[-1]
    assert replace(found, agreement=1.0).is_reproduced


def test_an_unknown_override_is_an_error(made):
    _, config, version = made
    with pytest.raises(ConfigError, match=r"Did you mean tune\.epochs"):
        reproduce(version, config.tracking, ("tune.epoch=1",))


def test_a_state_that_was_moved_is_reproduced_where_it_stands(made, tmp_path):
    folder, config, _ = made
    old, new = folder / "state folder", tmp_path / "elsewhere"
    shutil.copytree(old, new)
    hidden = old.rename(folder / "hidden")
    try:
        relocate_database(new / "mlflow.db", old, new)
        moved = config.tracking.model_copy(update={"uri": f"sqlite:///{new / 'mlflow.db'}"})
        found = reproduce(registry.find(moved, "tiny", "1"), moved)
        assert found.is_identical
        assert not old.exists()
    finally:
        hidden.rename(old)


def test_an_automatically_chosen_backbone_is_not_chosen_again(made):
    _, config, version = made
    overrides = ("backbone.source=auto", "backbone.architecture=''")
    assert reproduce(version, config.tracking, overrides).is_identical


def test_a_warm_start_finds_its_parent_by_content(made, tmp_path):
    folder, config, first = made
    root = shutil.copytree(folder / "state folder", tmp_path / "state folder")
    relocate_database(root / "mlflow.db", folder / "state folder", root)
    tracking = config.tracking.model_copy(
        update={"uri": f"sqlite:///{root / 'mlflow.db'}", "artifacts_url": str(root / "mlflow")}
    )
    bundle = shutil.copytree(Path(first.bundle_url), tmp_path / "bundle")
    backbone = config.backbone.model_copy(update={"source": f"bundle:{bundle}"})
    child = train(config.model_copy(update={"tracking": tracking, "backbone": backbone}))
    assert child.created
    shutil.rmtree(bundle)
    assert reproduce(child, tracking).is_identical

    registry.versions.delete(tracking, first)
    with pytest.raises(WeightsNotFound, match="Expected a bundle at"):
        reproduce(child, tracking)
    with pytest.raises(WeightsNotFound, match=first.content_hash[:12]):
        reproduce(child, tracking, ("backbone.source=bundled:efficientnet_lite0",))


def test_without_a_recorded_difference_the_error_names_the_numbers():
    found = Reproduction("tiny/1", False, True, 0.25, 10, 0.9, 0.8, 0.7, 0.8, ())
    with pytest.raises(NotReproduced) as caught:
        check_reproduced(found)
    for part in ("tiny/1", "1 of 10", "70.0%", "80.0%", "0.25"):
        assert part in str(caught.value)


def test_card_is_written_from_what_is_recorded(made):
    folder, config, version = made
    registry.set_tags(config.tracking, version, {"note": "of nobody's interest"})
    card = load_model_card(version, config.tracking)
    splits = split(ingest(config.ingest), config.split)
    counts = splits.counts[["train", "validation"]]
    assert card.counts.set_index("label").to_numpy().tolist() == counts.to_numpy().tolist()
    assert (card.reference, card.own_aliases, card.n_test) == ("tiny/1", ("challenger",), 12)
    assert card.card.dataset_digest == splits.digest
    assert card.metrics["test_accuracy"] == pytest.approx(card.accuracy.value)
    assert card.metrics["test_accuracy_low"] == pytest.approx(card.accuracy.low)
    assert card.run_tags["selected_phase"] == "tune"
    written = markdown(card)
    assert splits.digest in written
    assert "| Source | photos |" in written
    assert str(folder / "photos") not in written  # a card is handed on
    assert "nan" not in written.split()


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_command_card_prints_or_writes_the_card(made, monkeypatch, tmp_path, form):
    folder, config, version = made
    root = folder / "state folder"
    for name, value in environment(open_state(root), debug=False).items():
        monkeypatch.setenv(name, value)
    options = ["card", "tiny@challenger", "--format", form, "--state", str(root)]
    printed = CliRunner().invoke(app, options).output
    write = markdown if form == "markdown" else html
    assert printed == write(load_model_card(version, config.tracking))
    out = tmp_path / "card"
    done = CliRunner().invoke(app, [*options, "--out", str(out)])
    assert done.output == f"The card of tiny/1: {out}\n"
    assert out.read_text(encoding="utf-8") == printed


def test_command_prints_the_comparison_and_exits_with_five_for_another_model(
    made, photos, monkeypatch
):
    folder, config, version = made
    root = folder / "state folder"
    for name, value in environment(open_state(root), debug=False).items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["reproduce", "tiny/1", "--state", str(root)])
    assert (done.exit_code, done.exception) == (0, None)
    assert "the same model, bit for bit" in done.output
    photo_of(version, config, photos[0], "train").unlink()
    done = CliRunner().invoke(
        app, ["reproduce", "tiny/1", "--state", str(root), "--set", photos[1]]
    )
    assert isinstance(done.exception, NotReproduced)
    assert done.exception.exit_code == 5
