"""Weights files as training scripts write them: wrapped, with other things, of other networks."""

import argparse
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from tiny import ARCHITECTURE, CLASSES, write_weights

from regraft.core.config import BackboneConfig
from regraft.core.errors import UnknownBackbone, UnsafeWeights, WeightsMismatch
from regraft.model.backbone import (
    build_body,
    load_backbone,
    preprocessing_of,
    read_weights,
    tensor_specs,
)
from regraft.model.classifier import load_classifier, load_pretrained


@pytest.fixture(scope="module")
def tensors(weights_path):
    return read_weights(str(weights_path)).tensors


def load(path, architecture=ARCHITECTURE):
    return load_backbone(BackboneConfig(source=f"file:{path}", architecture=architecture))


def refused(error, path, architecture=ARCHITECTURE):
    with pytest.raises(error) as caught:
        load(path, architecture)
    assert str(path) in str(caught.value)
    return str(caught.value)


def below(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


OLD_HEAD = {"classifier.weight": torch.zeros(7, 256), "classifier.bias": torch.zeros(7)}
PREFIXES = ("_orig_mod.", "module.", "model.", "backbone.", "net._orig_mod.module.")
MAPPINGS = ("model", "model_ema", "state_dict_ema", "model_state_dict")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_network_inside_of_another_is_read_from_safetensors(tmp_path, tensors, prefix):
    path = tmp_path / "w.safetensors"
    others = {"loss.weight": torch.ones(3), "n_averaged": torch.tensor(5)}
    save_file(below(prefix, tensors | OLD_HEAD) | others, path)
    loaded = load(path).module.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("key", MAPPINGS)
def test_a_network_in_a_training_checkpoint_is_read(tmp_path, tensors, key):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    content = {key: below("module.", tensors), "epoch": 3, "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "w.pth")
    loaded = load(tmp_path / "w.pth").module.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_two_networks_that_fit_are_refused_by_name(tmp_path, tensors):
    """Which of them is meant decides the model, and a checkpoint does not say it."""
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    torch.save({"state_dict": tensors, "state_dict_ema": other}, tmp_path / "w.pth")
    text = refused(WeightsMismatch, tmp_path / "w.pth")
    assert "state_dict, state_dict_ema" in text
    assert "backbone.architecture" not in text  # it is right


def test_a_checkpoint_with_arguments_is_refused_with_the_class_and_the_way_out(tmp_path, tensors):
    torch.save({"model": tensors, "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pth")
    text = refused(UnsafeWeights, tmp_path / "w.pth")
    assert "argparse.Namespace" in text
    assert "torch.save(network.state_dict(), ...)" in text
    assert "weights_only" not in text  # no advice to load it in an unsafe manner


def test_another_architecture_is_refused_with_the_number_of_tensors_that_fit(tmp_path, tensors):
    save_file(below("model.", tensors), tmp_path / "w.safetensors")
    text = refused(WeightsMismatch, tmp_path / "w.safetensors", "timm:test_vit")
    assert "fit timm:test_vit: 0 of its" in text
    assert "Correct backbone.architecture" in text


def test_integers_are_no_weights(tmp_path, tensors):
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    save_file(tensors | {name: tensors[name].int()}, tmp_path / "w.safetensors")
    assert f"1 of another shape or type (first: {name})" in refused(
        WeightsMismatch, tmp_path / "w.safetensors"
    )


def test_a_checkpoint_that_contains_itself_is_read_once(tmp_path, tensors):
    content = {"model": tensors}
    content["self"] = content
    torch.save(content, tmp_path / "w.pth")
    assert load(tmp_path / "w.pth").info.embedding_dim == 256


def test_a_file_of_old_densenet_names_is_read_with_the_names_of_today(tmp_path):
    old = {"features.denseblock1.denselayer1.norm.1.weight": torch.ones(2)}
    save_file(old, tmp_path / "w.safetensors")
    read = read_weights(str(tmp_path / "w.safetensors")).tensors
    assert list(read) == ["features.denseblock1.denselayer1.norm1.weight"]


@pytest.mark.parametrize(
    ("architecture", "prefixes"),
    [
        ("timm:levit_128s", ("head.", "head_dist.")),  # a norm and a linear layer each
        ("timm:caformer_s18", ("head.fc.",)),  # several layers; head.norm belongs to the body
        ("torchvision:convnext_tiny", ("classifier.2.",)),
        (ARCHITECTURE, ("classifier.",)),
    ],
)
def test_the_classifier_is_what_the_whole_network_has_and_the_body_has_not(architecture, prefixes):
    with torch.device("meta"):
        assert build_body(architecture).classifier_prefixes == prefixes


def test_a_network_that_needs_the_version_of_its_class_is_loaded_and_read_back(tmp_path):
    """torchvision's MNASNet refuses a state dict without a version, and a file has none."""
    architecture = "torchvision:mnasnet0_5"
    path = write_weights(tmp_path / "w.safetensors", architecture)
    config = BackboneConfig(source=f"file:{path}", architecture=architecture)
    start = load_pretrained(config, CLASSES)
    start.save(tmp_path / "bundle")
    again = load_classifier(tmp_path / "bundle")
    assert again.content_hash == start.content_hash
    assert torch.equal(
        again.build().backbone.layers[0].weight, read_weights(str(path)).tensors["layers.0.weight"]
    )


def test_a_network_that_cannot_be_described_without_weights_is_described_with_them():
    """torchvision's regnet computes its widths with tensors while it is built."""
    specs = tensor_specs("torchvision:regnet_y_400mf")
    assert specs["stem.0.weight"] == (torch.float32, (32, 3, 3, 3))
    assert not [name for name in specs if name.startswith("fc.")]


def test_older_names_of_tensors_of_another_shape_are_refused(tmp_path):
    """torchvision's ViT renames its tensors while it loads them."""
    architecture = "torchvision:vit_b_16"
    with torch.device("meta"):
        state = build_body(architecture).module.state_dict()
    old = OrderedDict(
        (name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."), tensor)
        for name, tensor in state.items()
    )
    small = {name: torch.zeros(1).expand(t.shape) for name, t in old.items()}
    small["encoder.layers.encoder_layer_0.mlp.linear_1.bias"] = torch.zeros(5)
    torch.save(small, tmp_path / "w.pth")
    text = refused(WeightsMismatch, tmp_path / "w.pth", architecture)
    assert "encoder_layer_0.mlp.0.bias" in text


def test_a_network_for_photos_that_are_not_square_is_refused():
    with pytest.raises(UnknownBackbone, match="1024 x 768"):
        preprocessing_of("timm:vit_base_patch16_sapiens2")
