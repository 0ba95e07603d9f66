"""What the unit tests share: made once, never changed."""

import pytest
import torch
from tiny import classifier_of, draw_splits, write_weights
from torch.nn.modules.module import register_module_forward_hook


@pytest.fixture(scope="session")
def weights_path(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def start(weights_path):
    """The tiny classifier before any training."""
    return classifier_of(weights_path)


@pytest.fixture(scope="session")
def splits(tmp_path_factory):
    """Thirty photos of three colours."""
    return draw_splits(tmp_path_factory.mktemp("photos of colours"))


@pytest.fixture
def passed():
    """How many photos went through networks; a network tries itself with one, which counts not."""
    batches = []

    def count(module, inputs, output):
        is_pixels = isinstance(inputs[0], torch.Tensor) and inputs[0].shape[1:2] == (3,)
        if type(module) is torch.nn.Conv2d and is_pixels and len(inputs[0]) > 1:
            batches.append(len(inputs[0]))

    hook = register_module_forward_hook(count)
    yield batches
    hook.remove()
