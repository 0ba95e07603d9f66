"""The price of a run in passes, decodings and imports: counted, since a clock says little here."""

import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_retrain import PROBE, add_photos
from tiny_train import SETTINGS as TINY
from tiny_train import last_run, output
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from regraft.compare.cost import N_SERVED

pytestmark = pytest.mark.pipeline

SAID = re.compile(r"embed: (\d+) photos.*: (\d+) known, (\d+) new")
# registry.n_parity photos: by the trained model, and by the reloaded one in three forms.
N_CHECKED = 3 * 4
N_TIMED = 1 + N_SERVED  # grey photos whose milliseconds the promotion measures
N_MODULES = 7000  # 6758 when this was written; ZenML, MLflow and torch bring nearly all


@contextmanager
def photos_seen():
    """How many photos pass through a first convolution; the zeros that measure a width do not."""
    seen = []

    def count(module, inputs, output):
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and inputs[0].any():
            seen.append(inputs[0])

    hook = register_module_forward_hook(count)
    try:
        yield seen
    finally:
        hook.remove()


def counted(seen) -> int:
    """Without the one photo of 96 pixels by which a folded network is compared with the plain."""
    return sum(len(pixels) for pixels in seen if pixels.shape[-1] != 96)


def new_photos(text: str) -> list[int]:
    return [int(new) for _, _, new in SAID.findall(text)]


def test_a_retrain_pushes_exactly_the_photos_that_it_has_not_seen(world, capsys):
    world.train(PROBE)
    add_photos(world, 2)
    capsys.readouterr()
    with photos_seen() as seen:
        run = world.train(PROBE)
    n_new = 6
    assert len(output(run, "split").frame) == 66
    said = new_photos(capsys.readouterr().err)
    # The tiny network's weights are the random ones that transfer is measured against: known too.
    assert sum(said) == n_new
    assert counted(seen) == n_new + N_CHECKED + N_TIMED


def test_another_head_on_the_same_photos_pushes_none(world, capsys):
    world.train(PROBE)
    capsys.readouterr()
    with photos_seen() as seen:
        run = world.train(PROBE, "tune.head_l2=[5.0]")
    assert last_run().id == run.id
    assert sum(new_photos(capsys.readouterr().err)) == 0
    assert counted(seen) == N_CHECKED + N_TIMED


@pytest.fixture
def decoded(monkeypatch):
    """How often each content is decoded, by sha256."""
    seen = Counter()
    decode, facts = (sys.modules[f"regraft.ingest.{room}"] for room in ("decode", "facts"))
    unpack = decode.unpack

    def counting(data, *arguments):
        seen[facts.sha256_of(data)] += 1
        return unpack(data, *arguments)

    monkeypatch.setattr(decode, "unpack", counting)
    monkeypatch.setattr(facts, "unpack", counting)
    return seen


def test_a_photo_is_decoded_twice_in_its_life(world, decoded):
    """By ingest and by its pass; what else is decoded are the registry's few to check."""
    first = world.train(PROBE, "ingest.n_workers=1")
    known = set(output(first, "split").frame.sha256)
    decoded.clear()
    add_photos(world, 2)
    world.train(PROBE, "ingest.n_workers=1")
    new = {sha256: n for sha256, n in decoded.items() if sha256 not in known}
    assert list(new.values()) == [2] * 6
    assert sum(n for sha256, n in decoded.items() if sha256 in known) <= N_CHECKED


def test_a_run_imports_no_more_than_it_did(world):
    command = [sys.executable, "-X", "importtime", "-m", "commands", "train", str(world.photos)]
    command += ["--state", str(world.folder / "other state"), "--set", PROBE]
    for setting in (f"backbone.source=file:{world.weights}", *TINY):
        command += ["--set", setting]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    modules = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert {"torch", "zenml", "mlflow"} <= modules
    assert not {"matplotlib.pyplot", "torch._inductor.compile_fx", "transformers"} & modules
    assert len(modules) <= N_MODULES
