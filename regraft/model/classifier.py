"""The image classifier as a value: weights, ordered class names, preprocessing, and origin."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import fsspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regraft.core.config import BackboneConfig
from regraft.core.errors import ConfigError, UnknownBackbone, WeightsMismatch, WeightsNotFound
from regraft.model.backbone import (
    Backbone,
    Block,
    build_body,
    load_backbone,
    ordered_blocks,
    state_dict_of,
    tensor_specs,
)
from regraft.model.card import CARD_FILE, Card, ClassContract, read_card

WEIGHTS_FILE = "weights.safetensors"
NO_NAMES: Mapping[str, str] = MappingProxyType({})  # no class was renamed


class GraftedNetwork(nn.Module):
    """A backbone with a new linear head: (B, 3, S, S) -> logits (B, K)."""

    def __init__(self, backbone: nn.Module, embedding_dim: int, n_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(embedding_dim, n_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits (B, K) of normalised pixels (B, 3, S, S)."""
        embedding = self.backbone(pixels)  # (B, D)
        logits: Tensor = self.head(embedding.to(self.head.weight.dtype))  # (B, K)
        return logits


@dataclass(frozen=True)
class ImageClassifier:
    """Weights by parameter name ("backbone.…", "head.…") and their card."""

    card: Card
    weights: dict[str, Tensor]

    def __str__(self) -> str:
        info, parent = self.card.backbone, self.card.parent
        start = f" as tuned in the model {parent[:12]}" if parent else ""
        return f"load_pretrained: {info.source}{start}, embeddings of {info.embedding_dim} values"

    @property
    def content_hash(self) -> str:
        """Return the sha256 of everything that decides a prediction.

        This is: classes, temperature, architecture, preprocessing, weights, and abstain_below if it
        is not 0.
        """
        digest = hashlib.sha256()
        decisive = (self.card.classes, self.card.temperature, self.card.backbone.architecture)
        digest.update(json.dumps(decisive).encode())
        digest.update(self.card.backbone.preprocessing.model_dump_json().encode())
        digest.update(tensors_hash(self.weights).encode())
        if self.card.abstain_below:
            digest.update(json.dumps(self.card.abstain_below).encode())
        return digest.hexdigest()

    def build(self) -> GraftedNetwork:
        """Return a new network with these weights, in eval mode, on the CPU."""
        info = self.card.backbone
        body = build_body(info.architecture).module
        network = GraftedNetwork(body, info.embedding_dim, len(self.card.classes))
        network.load_state_dict(state_dict_of(self.weights, network, root="backbone"))
        return network.eval()

    def with_weights(self, network: nn.Module) -> "ImageClassifier":
        """Return the same classifier with a copy of the network's weights."""
        weights = {n: t.detach().cpu().clone() for n, t in network.state_dict().items()}
        return replace(self, weights=weights)

    def with_card(self, **changes: object) -> "ImageClassifier":
        """Return the same weights with a changed card."""
        return replace(self, card=self.card.model_copy(update=changes))

    def blocks(self) -> tuple[Block, ...]:
        """Return the backbone's blocks, input side first, then the head; names as in weights."""
        body = build_body(self.card.backbone.architecture).module
        grafted = [
            Block(block.name, tuple(f"backbone.{name}" for name in block.parameters))
            for block in ordered_blocks(body)
        ]
        return (*grafted, Block("head", ("head.weight", "head.bias")))

    def save(self, folder: Path) -> None:
        """Write weights.safetensors and card.json into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({n: t.contiguous() for n, t in self.weights.items()}, folder / WEIGHTS_FILE)
        (folder / CARD_FILE).write_text(self.card.model_dump_json(indent=1), encoding="utf-8")


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of names, dtypes, shapes and values, independent of the order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return the tensor's values as bytes, for any dtype and strides."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def load_classifier(folder: Path) -> ImageClassifier:
    """Return the classifier that was saved in the folder.

    Raises:
        WeightsNotFound: there is no bundle in the folder.
        WeightsMismatch: card or weights are invalid, or do not match each other.
    """
    try:
        card = read_card(folder / CARD_FILE)
        classifier = ImageClassifier(card, load_file(folder / WEIGHTS_FILE))
    except FileNotFoundError:
        raise WeightsNotFound(
            f"Expected a bundle ({WEIGHTS_FILE}, {CARD_FILE}) in {folder}, got none."
        ) from None
    except SafetensorError as error:
        raise WeightsMismatch(
            f"{folder / WEIGHTS_FILE} cannot be read as weights ({error}). Download the "
            "bundle again."
        ) from None
    _check_head(classifier, folder)
    _check_tensors(classifier, folder)
    return classifier


def _check_head(classifier: ImageClassifier, folder: Path) -> None:
    card, weights = classifier.card, classifier.weights
    shapes = {n: tuple(t.shape) for n, t in weights.items() if n in ("head.weight", "head.bias")}
    n_rows, n_columns = len(card.classes), card.backbone.embedding_dim
    if shapes != {"head.weight": (n_rows, n_columns), "head.bias": (n_rows,)}:
        raise WeightsMismatch(
            f"Expected a head of {n_rows} rows in {folder / WEIGHTS_FILE}, one per class of the "
            f"card, and {n_columns} columns (backbone.embedding_dim of the card), got "
            f"{shapes or 'none'}. Download the bundle again."
        )


def _check_tensors(classifier: ImageClassifier, folder: Path) -> None:
    """Raise WeightsMismatch if the tensors are not those of the card's architecture."""
    architecture = classifier.card.backbone.architecture
    try:
        body = tensor_specs(architecture)
    except UnknownBackbone as error:
        raise WeightsMismatch(
            f"{folder / CARD_FILE} is not a valid card: backbone.architecture: {error} Download "
            "the bundle again."
        ) from None
    expected = {f"backbone.{name}": spec for name, spec in body.items()}
    got = {name: (t.dtype, tuple(t.shape)) for name, t in classifier.weights.items()}
    for name in ("head.weight", "head.bias"):  # shapes: see _check_head
        expected[name] = (torch.float32, got[name][1])
    if wrong := sorted(n for n in expected.keys() | got.keys() if expected.get(n) != got.get(n)):
        name = wrong[0]
        raise WeightsMismatch(
            f"{folder / WEIGHTS_FILE} does not hold the tensors of {architecture}, the card's "
            f"backbone.architecture: {len(wrong)} differ, first {name}: expected "
            f"{_format_spec(expected.get(name))}, got {_format_spec(got.get(name))}. Download the "
            "bundle again."
        )


def _format_spec(spec: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return f"{str(spec[0]).removeprefix('torch.')} {spec[1]}" if spec else "none"


def graft(backbone: Backbone, classes: tuple[str, ...]) -> ImageClassifier:
    """Return the backbone with a new head of zeros: every class is equally probable."""
    network = GraftedNetwork(backbone.module, backbone.info.embedding_dim, len(classes))
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    card = Card(classes=classes, backbone=backbone.info, contract=ClassContract(added=classes))
    return ImageClassifier(card, {}).with_weights(network)


def contract_of(
    old: tuple[str, ...], new: tuple[str, ...], renamed: Mapping[str, str] = NO_NAMES
) -> ClassContract:
    """Return the relation of the new classes to the old ones.

    Args:
        renamed: {old name: new name}. A pair that was applied before has no effect, so it may
            remain in a configuration.

    Raises:
        ConfigError: both names of a pair are in use, so the rename would merge two classes.

    >>> str(contract_of(("cat", "dog"), ("dog", "kitty"), {"cat": "kitty"}))
    'renamed cat -> kitty; in another order'
    """
    pairs = {was: _new_name(was, new, renamed) for was in old if was in renamed}
    pairs = {was: name for was, name in pairs.items() if name in new and name != was}
    old_renamed = [pairs.get(name, name) for name in old]
    for was, name in pairs.items():
        is_in_use = was in new and was not in pairs.values()  # photos have the old name too
        for where, has_both in (("classes", old_renamed.count(name) > 1), ("photos", is_in_use)):
            if has_both:
                raise ConfigError(
                    f"classes.renamed maps {was!r} to {name!r}, but {where} of both names exist: "
                    "a rename cannot merge two classes. Correct the labels, or remove the pair "
                    "from classes.renamed."
                )
    retained = tuple(name for name in new if name in old_renamed)
    return ClassContract(
        retained=retained,
        added=tuple(name for name in new if name not in old_renamed),
        removed=tuple(name for name in old if pairs.get(name, name) not in new),
        renamed=tuple(pairs.items()),
        reordered=retained != tuple(name for name in old_renamed if name in new),
    )


def _new_name(was: str, new: tuple[str, ...], renamed: Mapping[str, str]) -> str:
    """Return the name after one rename, or the first name of a rename chain in the new classes."""
    name, passed = renamed[was], {was}
    while name not in new and name in renamed and name not in passed:
        passed.add(name)
        name = renamed[name]
    return name


def regraft(
    champion: ImageClassifier, classes: tuple[str, ...], renamed: Mapping[str, str] = NO_NAMES
) -> ImageClassifier:
    """Return the champion as a start: retained classes keep their head rows, new rows are zeros.

    fine_tune() solves the head again on the champion's embeddings and does not read these rows.
    They keep the predictions of the retained classes for other callers.

    Args:
        renamed: {old name: new name}; a renamed class is retained.

    Raises:
        ConfigError: as contract_of().
    """
    old = champion.card.classes
    contract = contract_of(old, classes, renamed)
    old_names = contract.old_names
    weights = dict(champion.weights)
    for name in ("head.weight", "head.bias"):
        zeros = torch.zeros_like(weights[name][0])
        rows = [
            weights[name][old.index(old_names[c])] if c in old_names else zeros for c in classes
        ]
        weights[name] = torch.stack(rows)
    card = champion.card.model_copy(
        update={
            "classes": classes,
            "contract": contract,
            "temperature": 1.0,
            "abstain_below": 0.0,
            "parent": champion.content_hash,
        }
    )
    return ImageClassifier(card, weights)


def load_pretrained(
    config: BackboneConfig, classes: tuple[str, ...], renamed: Mapping[str, str] = NO_NAMES
) -> ImageClassifier:
    """Return a classifier of these classes with pretrained weights, before any training.

    Args:
        config: a source "bundle:URL" is a saved classifier: the warm start from a champion.
        classes: in order; at least two.
        renamed: {old name: new name} of a champion's classes.

    Raises:
        ConfigError: as contract_of().
        WeightsNotFound: there is no bundle at that URL. Others: as load_backbone and
            load_classifier.
    """
    kind, _, url = config.source.partition(":")
    if kind != "bundle":
        return graft(load_backbone(config), classes)
    with tempfile.TemporaryDirectory() as folder:
        filesystem, path = fsspec.core.url_to_fs(url)
        try:
            filesystem.get(path.rstrip("/") + "/", folder, recursive=True)
        except FileNotFoundError:
            raise WeightsNotFound(f"Expected a bundle at {url}, got none.") from None
        return regraft(load_classifier(Path(folder)), classes, renamed)
