"""The price of a run in passes through a backbone: counted, since a clock says little here."""

import re
from contextlib import contextmanager

import pytest
from test_retrain import PROBE, add_photos
from tiny_train import last_run, output
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

pytestmark = pytest.mark.pipeline

SAID = re.compile(r"embed: (\d+) photos.*: (\d+) known, (\d+) new")
# registry.n_parity photos: by the trained model, and by the reloaded one in three forms.
N_CHECKED = 3 * 4


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
    assert counted(seen) == n_new + N_CHECKED


def test_another_head_on_the_same_photos_pushes_none(world, capsys):
    world.train(PROBE)
    capsys.readouterr()
    with photos_seen() as seen:
        run = world.train(PROBE, "tune.head_l2=[5.0]")
    assert last_run().id == run.id
    assert sum(new_photos(capsys.readouterr().err)) == 0
    assert counted(seen) == N_CHECKED
