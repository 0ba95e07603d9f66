"""What the unit tests share: made once, never changed."""

import sys

import pytest
import torch
from tiny import classifier_of, draw_splits, write_weights
from torch.nn.modules.module import register_module_forward_hook

from regraft.model.classifier import tensors_hash


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


@pytest.fixture(scope="session")
def known_networks():
    """What `prepared_once` has built and prepared, by structure or architecture, and weights."""
    return {}


@pytest.fixture(scope="module")
def prepared_once(known_networks):
    """For the module: embed() builds a network once, and prepares it once for a compute.

    fine_tune() prepares it once too, and builds its own. Both steps take seven times as long as
    thirty photos take to pass a tiny network. test_embed_network.py tests the preparation itself,
    which this leaves as it is.
    """
    embed = sys.modules["regraft.model.embed.embed"]  # the package gives its name to the function
    prepare = embed.prepared

    def once(key, make):
        if key not in known_networks:
            known_networks[key] = make()
        return known_networks[key]

    class BuiltOnce(embed.Passage):
        def __post_init__(self):
            build, key = self.build, (self.recipe.architecture, self.recipe.weights)
            object.__setattr__(self, "build", lambda: once(key, build))

    def prepared(network, compute):
        key = (str(network), tensors_hash(network.state_dict()), compute)
        return once(key, lambda: prepare(network, compute))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "Passage", BuiltOnce)
        patch.setattr(embed, "prepared", prepared)
        patch.setattr(sys.modules["regraft.training.tune.feed"], "prepared", prepared)
        yield


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
