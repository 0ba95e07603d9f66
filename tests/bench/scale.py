"""What grows with the photos, and what does not: retraining, volume, throughput, overhead."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from regraft.core.config import EmbedConfig, load_config
from regraft.core.errors import NothingToDo
from regraft.data.ingest import ingest
from regraft.data.split import split
from regraft.model.classifier import load_pretrained
from regraft.model.embed import BATCH_SIZE, Compute, embeddings_for, prepared, spec_for
from regraft.model.freeze import freeze
from regraft.model.pixels import photos_of
from regraft.training.tune import fine_tune
from tests.bench.measure import Row, measured, regraft_retrain, regraft_train, told
from tests.bench.sides import lay_out

BF16 = Compute(torch.device("cpu"), torch.bfloat16)
FP32 = Compute(torch.device("cpu"), torch.float32)


def accuracy(photos: Path, config: str, seeds: list[int], folder: Path) -> Iterator[Row]:
    """A training a seed; where the photos come without a split, each with another one."""
    for seed in seeds:
        state = folder / f"accuracy-{seed}" / "state"
        command = [sys.executable, "-m", "regraft.cli", "train", str(photos), "--config", config]
        command += ["--state", str(state), "--set", f"tune.seed={seed}"]
        command += ["--set", f"split.salt='split-{seed}'"]
        state.parent.mkdir(parents=True)
        run = measured(command, state.parent / "log")
        yield {"bench": "accuracy", "who": Path(config).stem, "seed": seed} | told(run)
        shutil.rmtree(state.parent)


def retrain(photos: Path, folder: Path, trials: int = 3) -> Iterator[Row]:
    """`regraft retrain`: ten elevenths of the photos, then all (one tenth more), then nothing new.

    Each trial has a state folder of its own.
    """
    for trial in range(trials):
        place = folder / f"retrain-{trial}"
        sides = lay_out(photos, "retrain", place / "sides")
        everything = sorted(path for path in sides.rglob("*") if path.is_file())
        late = everything[::11]
        there, state = place / "photos", place / "state"
        for who, more in (("first", set(everything) - set(late)), ("10 % more", late)):
            for path in more:
                link = there / path.relative_to(sides)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())
            figures = told(regraft_retrain(there, state, 0))
            yield {"bench": "retrain", "who": who, "seed": trial} | figures
        for _ in range(3):
            figures = regraft_retrain(there, state, NothingToDo.exit_code).figures()
            yield {"bench": "retrain", "who": "nothing new", "seed": trial} | figures
        shutil.rmtree(place)


def volume(source: str, sizes: list[int], folder: Path) -> Iterator[Row]:
    """Trainings on N photos of one large set: seconds and memory against N."""
    config = load_config(None, (f"ingest.photos={source}", f"ingest.images_url={folder}/images"))
    frame = ingest(config.ingest).frame.sample(frac=1, random_state=0)
    for size in sizes:
        manifest = folder / f"{size}.csv"
        part = frame.head(size)
        pd.DataFrame({"image": part.path, "label": part.label}).to_csv(manifest, index=False)
        state = folder / f"volume-{size}" / "state"
        run = regraft_train(manifest, state, "split.near_duplicate_bits=0")
        yield {"bench": "volume", "who": f"{size} photos", "n": size} | told(run)
        shutil.rmtree(state.parent)


def throughput(photos: Path, folder: Path, trials: int = 5) -> Iterator[Row]:
    """Photos a second from files to kept embeddings, against forward passes on tensors.

    The passes: as anyone writes it, the same with freed memory kept, and ours (folded as well).
    """
    frame = ingest(load_config(None, (f"ingest.photos={photos}",)).ingest).frame
    classifier = load_pretrained(load_config(None).backbone, tuple(sorted(set(frame.label))))
    found = photos_of(frame)
    for precision, compute in (("bf16", BF16), ("fp32", FP32)):
        network = prepared(classifier.build().backbone, compute)
        size = classifier.card.backbone.preprocessing.size
        batch = torch.randn(BATCH_SIZE, 3, size, size).to(compute.dtype)
        batch = batch.to(memory_format=torch.channels_last)
        for trial in range(trials):
            plain, kept = (_bare(precision, memory, folder) for memory in ("given back", "kept"))
            began = time.monotonic()
            with torch.inference_mode():
                for _ in range(len(found) // BATCH_SIZE):
                    network(batch)
            bare = len(found) // BATCH_SIZE * BATCH_SIZE / (time.monotonic() - began)
            store = folder / f"throughput-{compute.dtype}-{trial}"
            began = time.monotonic()
            embeddings_for(spec_for(classifier, compute), found, EmbedConfig(store_url=str(store)))
            whole = len(found) / (time.monotonic() - began)
            figures = {"plain": plain, "kept": kept, "bare": bare, "from_files": whole}
            figures |= {"share": whole / bare, "share_of_plain": whole / plain}
            yield {"bench": "throughput", "who": str(compute), "seed": trial} | figures


def _bare(precision: str, memory: str, folder: Path) -> float:
    command = [sys.executable, "-m", "tests.bench.bare", precision, memory]
    return float(measured(command, folder / "bare.log").text)


def overhead(photos: Path, folder: Path, trials: int = 3) -> Iterator[Row]:
    """`regraft train` against a plain script that calls the core alone, in turns."""
    for trial in range(trials):
        place = folder / f"overhead-{trial}"
        (place / "plain").mkdir(parents=True)
        script = [sys.executable, "-m", "tests.bench.plain", str(photos), str(place / "plain")]
        for who in ("plain script", "plain script, all known"):
            run = measured(script, place / "plain.log")
            yield {"bench": "overhead", "who": who, "seed": trial} | run.figures()
        for who in ("regraft train, new state", "regraft train, all known"):
            figures = told(regraft_train(photos, place / "state", f"tune.seed={len(who)}"))
            yield {"bench": "overhead", "who": who, "seed": trial} | figures
        shutil.rmtree(place)


def views(photos: Path, seeds: list[int], folder: Path) -> Iterator[Row]:
    """What fewer cached views cost: the tuned phase's best epoch on validation, by its loss."""
    for seed in seeds:
        for n_views in (0, 1, 2, 4):
            settings = (f"ingest.photos={photos}", "freeze.policy=last_block")
            settings += (f"tune.cached_views={n_views}", f"tune.seed={seed}", "tune.patience=0")
            settings += (f"embed.store_url={folder}/views-{n_views}-{seed}",)
            config = load_config(None, settings)
            splits = split(ingest(config.ingest), config.split)
            pretrained = load_pretrained(config.backbone, splits.classes)
            plan, began = freeze(pretrained, config.freeze), time.monotonic()
            trained = fine_tune(pretrained, plan, splits, config.tune, lambda _: None, config.embed)
            seconds = time.monotonic() - began
            tuned = trained.history[trained.history.phase == "tune"]
            best = tuned.loc[tuned.validation_loss.idxmin()]
            figures = {"training_s": seconds, "validation_loss": float(best.validation_loss)}
            figures["validation_accuracy"] = float(best.validation_accuracy)
            yield {"bench": "views", "who": f"{n_views} cached", "seed": seed} | figures
