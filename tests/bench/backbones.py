"""Every kind of network: which of them Regraft can load, freeze, train and serve. Writes a table.

    python -m tests.bench.backbones --work FOLDER
    python -m tests.bench.backbones --work FOLDER timm:levit_128s torchvision:mnasnet0_5

Without names: the smallest network of each module of timm and torchvision. The network's own state
dict, of random weights, is given as file:PATH. Results are kept in FOLDER/results.json, so that the
sweep can be stopped and continued; docs/backbones.md is written from them. Each network runs in a
process of its own, with limits of memory and time. About an hour on one core.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import signal
import sys
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import timm
import torch
import torchvision

from regraft.core.config import BackboneConfig, FreezeConfig, TuneConfig
from regraft.core.errors import RegraftError
from regraft.model.backbone.architecture import whole_network
from regraft.model.classifier import load_classifier, load_pretrained
from regraft.model.embed import forward, judging_compute, prepared
from regraft.model.freeze import freeze
from regraft.training.tune import fine_tune
from tests.unit.tiny import CLASSES, draw_splits

TABLE = Path(__file__).parents[2] / "docs" / "backbones.md"
MAX_PARAMETERS = 150e6
MEMORY_GB, TIME_S = 8, 300  # limits of a process
PHOTOS = ("train", "train", "validation", "test")  # of each class
STEP = TuneConfig(epochs=1, batch_size=8, cached_views=1, precision="fp32", head_l2=(0.1,))
# Of folding the norms, relative to the largest logit. With random weights the linear attention of
# efficientvit_b0 amplifies rounding to 0.004; a norm folded wrongly differs by about 1. Guess.
TOLERANCE = 0.02
NOT_RUN = "not run"


@dataclass(frozen=True)
class Candidate:
    """An architecture, the library's module that defines it, and its parameters, millions."""

    architecture: str
    module: str
    million_parameters: float


def check_backbone(architecture: str, folder: Path) -> str:
    """Load, freeze, train and serve the network; return how its thawed part was trained.

    Raises:
        RegraftError: the network is refused.
        AssertionError: a promise is broken.
    """
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "whole.pth"
    torch.save(whole_network(architecture).state_dict(), path)
    config = BackboneConfig(source=f"file:{path}", architecture=architecture)
    start = load_pretrained(config, CLASSES)
    whole = torch.load(path, weights_only=True)
    for name, tensor in start.weights.items():
        own = name.removeprefix("backbone.")
        assert own == name or torch.equal(tensor, whole[own]), f"{name} is not that of the file"
    plan = freeze(start, FreezeConfig(policy="last_block"))
    records = []
    challenger = fine_tune(start, plan, draw_splits(folder, PHOTOS), STEP, records.append)
    assert [record.phase for record in records][-1] == "tune"
    tuned = challenger.classifier
    tuned.save(folder / "bundle")
    preprocessing, compute = tuned.card.backbone.preprocessing, judging_compute()
    side = preprocessing.size
    pixels = [torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)]
    plain, trained, served = (
        next(forward(network, pixels, preprocessing, compute))
        for network in (
            tuned.build().to(compute.device),
            prepared(tuned.build(), compute),
            prepared(load_classifier(folder / "bundle").build(), compute),
        )
    )
    assert torch.equal(served, trained), "the bundle that was read predicts something else"
    difference, largest = (served - plain).abs().max(), plain.abs().max()
    assert difference <= TOLERANCE * largest, f"folding changes logits by {difference:.1e}"
    return challenger.trained_as


def smallest_of_each_module() -> list[Candidate]:
    """Return the smallest network of each module of both libraries, the smallest first."""
    names = torchvision.models.list_models(module=torchvision.models)
    architectures = [f"torchvision:{name}" for name in names]
    architectures += [f"timm:{name}" for name in timm.list_models()]
    smallest: dict[str, Candidate] = {}
    for candidate in map(describe, architectures):
        rival = smallest.setdefault(candidate.module, candidate)
        if candidate.million_parameters < rival.million_parameters:
            smallest[candidate.module] = candidate
    return sorted(smallest.values(), key=lambda candidate: candidate.million_parameters)


def describe(architecture: str) -> Candidate:
    """Return the architecture with its module and size; no weights are made."""
    library, _, name = architecture.partition(":")
    if library == "torchvision":
        module = torchvision.models.get_model_builder(name).__module__
        n_parameters = torchvision.models.get_model_weights(name)["DEFAULT"].meta["num_params"]
    else:
        module = timm.models.model_entrypoint(name).__module__
        with torch.device("meta"):
            n_parameters = sum(p.numel() for p in whole_network(architecture).parameters())
    return Candidate(architecture, module, n_parameters / 1e6)


def run_in_process(candidate: Candidate, folder: Path) -> dict[str, str]:
    """Return result (works, refused, broken, not run) and reason of the check, within limits."""
    if candidate.million_parameters * 1e6 > MAX_PARAMETERS:
        return {"result": NOT_RUN, "reason": f"larger than {MAX_PARAMETERS / 1e6:.0f} M"}
    context = multiprocessing.get_context("fork")  # torch and timm are imported once
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(candidate.architecture, folder, sender))
    process.start()
    sender.close()
    if not receiver.poll(TIME_S):
        process.kill()
    try:
        outcome = receiver.recv()
    except EOFError:
        outcome = {"result": NOT_RUN, "reason": f"over {TIME_S} s or {MEMORY_GB} GB"}
    process.join()
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _report(architecture: str, folder: Path, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_DATA, (int(MEMORY_GB * 1e9),) * 2)
    try:
        outcome = {"result": "works", "reason": check_backbone(architecture, folder)}
    except RegraftError as error:
        outcome = {"result": "refused", "reason": f"{type(error).__name__}: {error}"}
    except Exception as error:
        traceback.print_exc()
        reason = (str(error).splitlines() or [""])[0][:200]
        is_memory = isinstance(error, MemoryError) or "allocate memory" in reason
        outcome = {"result": "broken", "reason": f"{type(error).__name__}: {reason}"}
        if is_memory:
            outcome = {"result": NOT_RUN, "reason": f"over {MEMORY_GB} GB"}
    sender.send({name: text.replace(str(folder), "FOLDER") for name, text in outcome.items()})


def format_table(rows: list[dict[str, str]]) -> str:
    """Return the page: a line for each network, those that do not work first."""
    counts = Counter(row["result"] for row in rows)
    summary = ", ".join(f"{n} {result}" for result, n in counts.most_common())
    lines = [
        "# Backbones that were tried",
        "",
        "Written by `python -m tests.bench.backbones`, not by hand. A small network of a "
        "module of timm or torchvision, with random weights: its own whole state dict is given as "
        "`file:PATH`, the last block is thawed, one step is trained, the bundle is written, read "
        "back and served, and must give the same logits. Versions: "
        f"timm {timm.__version__}, torchvision {torchvision.__version__.partition('+')[0]}. A "
        "module that is not in the table was not run; nothing is known about it.",
        "",
        f"{len(rows)} networks: {summary}.",
        "",
        "| module | network | parameters | result | reason, or how the thawed block was trained |",
        "|---|---|---|---|---|",
    ]
    order = sorted(rows, key=lambda row: (row["result"] == "works", row["module"]))
    for row in order:
        size = f"{float(row['million_parameters']):.1f} M"
        reason = row["reason"].replace("|", "\\|")
        cells = (row["module"], f"`{row['architecture']}`", size, row["result"], reason)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the sweep; return 1 if a network is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="left out: the smallest of each module")
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    stored = arguments.work / "results.json"
    rows = json.loads(stored.read_text()) if stored.exists() else {}
    if arguments.names:
        candidates = [describe(name) for name in arguments.names]
        rows = {name: row for name, row in rows.items() if name not in arguments.names}
    else:
        candidates = smallest_of_each_module()
    for candidate in candidates:
        if candidate.architecture not in rows:
            outcome = run_in_process(candidate, arguments.work / "network")
            rows[candidate.architecture] = asdict(candidate) | outcome
            stored.write_text(json.dumps(rows, indent=1))
            print(candidate.architecture, outcome, flush=True)
    TABLE.write_text(format_table(list(rows.values())), encoding="utf-8")
    return int(any(row["result"] == "broken" for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
