"""Fixtures shared by the unit tests: made once, read-only."""

import os
import sys
from contextlib import contextmanager

import pytest
import torch
from tiny import classifier_of, draw_splits, write_weights
from torch.nn.modules.module import register_module_forward_hook

from regraft.model.classifier import tensors_hash
from regraft.model.embed import embedding


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
    """The networks of `prepared_once`, by structure or architecture, and weights."""
    return {}


@pytest.fixture(scope="module")
def prepared_once(known_networks):
    """Make embed() build each network once, and prepare it once per compute, in this module.

    fine_tune() then prepares it once too, but builds its own. Building and preparing take seven
    times as long as computing thirty photos with a tiny network. The preparation itself is tested
    in test_embed_network.py.
    """
    prepare = embedding.prepared

    def once(key, make):
        if key not in known_networks:
            known_networks[key] = make()
        return known_networks[key]

    class BuiltOnce(embedding.EmbeddingSpec):
        def __post_init__(self):
            build, key = self.build, (self.cache_key.architecture, self.cache_key.weights)
            object.__setattr__(self, "build", lambda: once(key, build))

    def prepared(network, compute):
        key = (str(network), tensors_hash(network.state_dict()), compute)
        return once(key, lambda: prepare(network, compute))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "EmbeddingSpec", BuiltOnce)
        patch.setattr(embedding, "prepared", prepared)
        patch.setattr(sys.modules["regraft.training.tune.batch_source"], "prepared", prepared)
        yield


@pytest.fixture
def passed():
    """The batch sizes of the networks' inputs; batches of one are trials and do not count."""
    batches = []

    def count(module, inputs, output):
        is_pixels = isinstance(inputs[0], torch.Tensor) and inputs[0].shape[1:2] == (3,)
        if type(module) is torch.nn.Conv2d and is_pixels and len(inputs[0]) > 1:
            batches.append(len(inputs[0]))

    hook = register_module_forward_hook(count)
    yield batches
    hook.remove()


@pytest.fixture
def list_folders_backwards(monkeypatch):
    """Call it, and the operating system lists every folder in reverse order from then on."""
    scandir = os.scandir

    @contextmanager
    def last_first(path):
        with scandir(path) as names:
            yield sorted(names, key=lambda name: name.name, reverse=True)

    return lambda: monkeypatch.setattr(os, "scandir", last_first)
