"""Pretrained backbones: correct weights, their own preprocessing, and no executed code."""

import os
import pickle
import re
import socket
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import ARCHITECTURE, photo, write_weights
from torchvision.models import ResNet18_Weights, ShuffleNet_V2_X0_5_Weights, VisionTransformer

from regraft.core.config import BackboneConfig
from regraft.core.errors import UnknownBackbone, UnsafeWeights, WeightsMismatch, WeightsNotFound
from regraft.model.backbone import (
    build_body,
    load_backbone,
    ordered_blocks,
    preprocessing_of,
    read_weights,
)
from regraft.model.backbone.architecture import Body
from regraft.model.backbone.load import _fill
from regraft.model.backbone.weights import timm_weights
from regraft.model.classifier import graft
from regraft.model.pixels import normalise, preprocess

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE2_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture(scope="module")
def lite0():
    return load_backbone(BackboneConfig())


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty hub folder; opening a connection fails immediately."""

    def refuse(*arguments, **options):
        raise OSError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    old = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(old)


def refused(error, **config):
    with pytest.raises(error) as caught:
        load_backbone(BackboneConfig(**config))
    return str(caught.value)


def tiny_file(path, **config):
    return {"source": f"file:{path}", "architecture": ARCHITECTURE} | config


def test_bundled_lite0_has_its_own_weights_and_preprocessing(lite0):
    info, seen = lite0.info, lite0.info.preprocessing
    assert info.sha256 == LITE0_SHA256
    assert (info.embedding_dim, seen.size, seen.resize, seen.interpolation) == (
        1280,
        224,
        256,
        "bicubic",
    )
    assert seen.mean == seen.std == (0.5, 0.5, 0.5)
    assert info.source_task.model_dump() == {
        "data": "ImageNet-1k",
        "n_classes": 1000,
        "licence": "Apache-2.0",
    }


def test_bundled_lite2_has_its_own_weights_and_preprocessing():
    info = load_backbone(BackboneConfig(source="bundled:efficientnet_lite2")).info
    seen = info.preprocessing
    assert info.sha256 == LITE2_SHA256
    assert (seen.size, seen.resize, seen.interpolation) == (260, 292, "bicubic")
    assert seen.mean == seen.std == (0.5, 0.5, 0.5)


def test_a_wrong_normalisation_does_not_go_unnoticed(lite0):
    """The usual 0.485 in place of 0.5 changes the embedding."""
    own = lite0.info.preprocessing
    mutated = own.model_copy(update=IMAGENET)
    pixels = torch.stack([preprocess(photo(seed, (320, 240)), own) for seed in range(2)])
    by_hand = (pixels.numpy() / 255 - np.reshape(own.mean, (3, 1, 1))) / np.reshape(
        own.std, (3, 1, 1)
    )
    np.testing.assert_allclose(normalise(pixels, own).numpy(), by_hand, atol=1e-5)
    with torch.inference_mode():
        right, wrong = (lite0.module(normalise(pixels, seen)) for seen in (own, mutated))
    distance = (right - wrong).norm(dim=1) / right.norm(dim=1)
    assert distance.min() > 0.1
    classifier = graft(lite0, ("a", "b"))
    card = classifier.card.backbone.model_copy(update={"preprocessing": mutated})
    assert classifier.with_card(backbone=card).content_hash != classifier.content_hash


@pytest.mark.parametrize(
    ("architecture", "width", "first", "last"),
    [
        ("torchvision:resnet18", 512, "stem", "layer4"),
        ("torchvision:convnext_tiny", 768, "features.0", "features.7"),
        ("timm:test_efficientnet", 256, "stem", "blocks.4"),
        ("timm:test_resnet", 96, "conv1", "layer4"),
        ("timm:test_vit", 64, "stem", "blocks.5"),
        ("timm:test_convnext", 64, "stem", "stages.3"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("torchvision:mobilenet_v3_large", 1280, "features.0", "features.16"),
                ("torchvision:vit_b_16", 768, "stem", "encoder.layers.encoder_layer_11"),
                ("torchvision:densenet121", 1024, "stem", "features.denseblock4"),
                ("timm:resnet50.a1_in1k", 2048, "stem", "layer4"),
            )
        ),
    ],
)
def test_blocks_hold_every_parameter_once_and_in_order(architecture, width, first, last):
    with torch.device("meta"):  # shapes only: no time for random weights
        body = build_body(architecture)
        assert body.embedding_dim == width
    blocks = ordered_blocks(body.module)
    held = [name for block in blocks for name in block.parameters]
    assert held == [name for name, _ in body.module.named_parameters()]
    assert (blocks[0].name, blocks[-1].name) == (first, last)


def test_a_module_without_numbered_parts_is_one_block():
    (block,) = ordered_blocks(torch.nn.Sequential(torch.nn.Linear(2, 3)))
    assert (block.name, block.parameters) == ("stem", ("0.weight", "0.bias"))


@pytest.mark.parametrize("architecture", ["timm:test_resnet", "timm:test_vit"])
def test_the_embedding_is_as_wide_as_stated(architecture, tmp_path):
    path = write_weights(tmp_path / "w.safetensors", architecture)
    backbone = load_backbone(BackboneConfig(source=f"file:{path}", architecture=architecture))
    size = backbone.info.preprocessing.size
    with torch.inference_mode():
        embedding = backbone.module(torch.zeros(2, 3, size, size))
    assert embedding.shape == (2, backbone.info.embedding_dim)
    assert backbone.blocks == ordered_blocks(backbone.module)


def test_named_weights_bring_their_own_preprocessing():
    """resnet50's two sets of weights were trained on different resizes."""
    resizes = [
        preprocessing_of("torchvision:resnet50", f"IMAGENET1K_V{number}").resize
        for number in (1, 2)
    ]
    assert resizes == [256, 232]
    assert preprocessing_of("torchvision:resnet50").resize == 232


def test_what_cannot_be_read_is_refused_with_the_nearest_name():
    for source, name, nearest in (
        ("torchvision:resnet81", "'resnet81'", "resnet18"),
        ("timm:test_wit", "'test_wit'", "test_vit"),
        ("timm:resnet50.a1_in2k", "'resnet50.a1_in2k'", "resnet50"),
        ("bundled:lite0", "'lite0'", "efficientnet_lite0, efficientnet_lite2"),
        ("torchvision:resnet18/V7", "'V7'", "IMAGENET1K_V1"),
    ):
        text = refused(UnknownBackbone, source=source)
        assert name in text
        assert nearest in text.replace(name, "")


@pytest.mark.parametrize("name", ["squeezenet1_0", "inception_v3"])
def test_a_network_without_one_last_linear_layer_is_refused(name):
    text = refused(UnknownBackbone, source=f"torchvision:{name}")
    assert name in text
    assert "linear layer" in text  # the missing part; the name itself exists


def test_a_network_that_does_not_classify_is_not_offered():
    assert "'raft_small'" in refused(UnknownBackbone, source="torchvision:raft_small")


def test_a_files_architecture_must_name_its_library(weights_path):
    text = refused(UnknownBackbone, source=f"file:{weights_path}", architecture="resnet18")
    for value in ("timm:NAME", "torchvision:NAME", "'resnet18'"):
        assert value in text


class WritesAFile:
    """The content of a malicious pickle: a call during loading."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_nothing_in_it_runs(tmp_path, save):
    mark, path = tmp_path / "it ran", tmp_path / "model.pth"
    content = {"weight": torch.zeros(2), "extra": WritesAFile(mark)}
    if save == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    text = refused(UnsafeWeights, **tiny_file(path))
    assert str(path) in text
    assert ".safetensors" in text  # the recommended format
    assert not mark.exists()
    if save == "pickle":  # proof that the pickle is malicious
        pickle.loads(path.read_bytes())
        assert mark.exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    tensors = {"weight": torch.arange(10_000.0)}
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert str(path) in refused(WeightsMismatch, **tiny_file(path))


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save([1, 2], path)
    text = refused(WeightsMismatch, **tiny_file(path))
    assert str(path) in text
    assert "state dict" in text


def test_no_file_and_no_such_place_are_told_apart(tmp_path):
    missing = refused(WeightsNotFound, **tiny_file(tmp_path / "none.pth"))
    assert str(tmp_path / "none.pth") in missing
    nowhere = refused(WeightsNotFound, **tiny_file("nosuch://bucket/w.pth"))
    assert "nosuch://bucket/w.pth" in nowhere
    assert "(Protocol not known: nosuch)" in nowhere  # fsspec's message
    assert "fsspec" in nowhere
    assert "fsspec" not in missing


def test_another_sha256_than_stated_is_refused(weights_path):
    config = tiny_file(weights_path, sha256="0" * 64)
    found = read_weights(str(weights_path)).sha256
    text = refused(WeightsMismatch, **config)
    for value in ("0" * 64, found, str(weights_path)):
        assert value in text
    with pytest.raises(WeightsMismatch, match=f"{'0' * 64}.*{found}"):
        read_weights(str(weights_path), "0" * 64)


def test_the_right_sha256_is_accepted_and_recorded(weights_path):
    found = read_weights(str(weights_path)).sha256
    info = load_backbone(BackboneConfig(**tiny_file(weights_path, sha256=found))).info
    assert info.sha256 == found
    assert info.source_task.licence == "unknown"


def test_weights_of_another_architecture_are_refused(weights_path):
    text = refused(WeightsMismatch, source=f"file:{weights_path}", architecture="timm:test_resnet")
    assert str(weights_path) in text
    assert "backbone.architecture" in text  # the setting to correct


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        (lambda w: w | {"novel.weight": torch.zeros(1)}, (0, 1, 0, "novel.weight")),
        (lambda w: w | {"bn1.bias": torch.zeros(1)}, (0, 0, 1, "bn1.bias")),
        (lambda w: {n: t for n, t in w.items() if n != "bn1.bias"}, (1, 0, 0, "bn1.bias")),
    ],
)
def test_missing_left_over_and_misshapen_tensors_are_counted(
    tmp_path, weights_path, change, counted
):
    path = tmp_path / "changed.safetensors"
    save_file(change(read_weights(str(weights_path)).tensors), path)
    missing, left_over, misshapen, first = counted
    text = refused(WeightsMismatch, **tiny_file(path))
    assert re.search(rf"\b{missing} .*\b{left_over} .*\b{misshapen} .*{first}", text)


def test_the_old_classifier_and_a_wrapper_are_no_trouble(tmp_path, weights_path):
    """Training scripts save a state dict in a wrapper, with its classifier."""
    tensors = read_weights(str(weights_path)).tensors
    old = tensors | {"classifier.weight": torch.zeros(7, 256), "classifier.bias": torch.zeros(7)}
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in old.items()}}, path)
    loaded = load_backbone(BackboneConfig(**tiny_file(path))).module.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_files_older_than_the_step_counter_of_norms_are_read(tmp_path, weights_path):
    tensors = read_weights(str(weights_path)).tensors
    old = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    save_file(old, tmp_path / "old.safetensors")
    backbone = load_backbone(BackboneConfig(**tiny_file(tmp_path / "old.safetensors")))
    loaded = backbone.module.state_dict()
    counters = {name: int(loaded[name]) for name in tensors if name not in old}
    assert len(counters) > 5
    assert set(counters.values()) == {0}  # the file with counters has N_COUNTED
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in old.items())


def test_torchvision_files_with_older_names_for_the_same_tensors_are_read():
    """vit_b_16's published file has mlp.linear_1 for the module's mlp.0."""
    network, other = (VisionTransformer(32, 16, 1, 1, 8, 8, num_classes=2) for _ in range(2))
    old = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor + 1
        for name, tensor in other.state_dict().items()
    }
    assert len(old.keys() - network.state_dict().keys()) == 4  # two layers' weights and biases
    _fill(Body("torchvision:vit_b_16", network, 32), old, "torchvision:vit_b_16")
    assert all(
        torch.equal(network.state_dict()[name], tensor + 1)
        for name, tensor in other.state_dict().items()
    )


def test_torchvision_weights_in_the_hub_folder_are_used(no_network):
    no_network.mkdir(parents=True)
    name = ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    (no_network / name).write_bytes(b"another file")
    text = refused(WeightsMismatch, source="torchvision:resnet18")
    assert re.search(rf"\b{name[9:17]}\b.*{no_network / name}", text)


def test_torchvision_weights_load_from_the_hub_folder(no_network, monkeypatch):
    no_network.mkdir(parents=True)
    with torch.device("meta"):
        state = build_body("torchvision:shufflenet_v2_x0_5").module.state_dict()
    state = {name: torch.full(t.shape, 0.5, dtype=t.dtype) for name, t in state.items()}
    state |= {"fc.weight": torch.zeros(1000, 1024), "fc.bias": torch.zeros(1000)}
    torch.save(state, no_network / "new.pth")
    sha256 = read_weights(str(no_network / "new.pth")).sha256
    (no_network / "new.pth").rename(no_network / f"shufflenet-{sha256[:8]}.pth")
    weights = ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    here = replace(weights.value, url=f"https://nowhere/shufflenet-{sha256[:8]}.pth")
    monkeypatch.setattr(weights, "_value_", here)
    backbone = load_backbone(BackboneConfig(source="torchvision:shufflenet_v2_x0_5"))
    assert backbone.info.sha256 == sha256
    assert bool((backbone.module.conv1[0].weight == 0.5).all())


def test_missing_torchvision_weights_say_which_file_goes_where(no_network):
    name = ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    text = refused(WeightsNotFound, source="torchvision:resnet18")
    assert re.search(rf"{name} \(from https://.*/{name}\)", text)
    assert str(no_network / name) in text
    assert "bundled:efficientnet_lite0" in text


def test_missing_timm_weights_say_which_file_goes_where(no_network, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(no_network))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    text = refused(WeightsNotFound, source="timm:test_resnet")
    assert re.search(r"model\.safetensors\b.* timm/test_resnet\.r160_in1k\b", text)
    assert "backbone.architecture=timm:test_resnet" in text


def test_timm_models_without_published_weights_say_so():
    with pytest.raises(WeightsNotFound, match=r"timm:botnet50ts_256\b.*backbone\.architecture="):
        timm_weights("botnet50ts_256")
