"""The image classifier as a value: weights, class names in order, preprocessing, where from."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import fsspec
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from regraft.core.config import BackboneConfig
from regraft.core.errors import ConfigError, WeightsMismatch, WeightsNotFound
from regraft.model.backbone import (
    Backbone,
    BackboneInfo,
    Block,
    build_body,
    load_backbone,
    ordered_blocks,
)

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
UNSURE = "unsure"  # said instead of a class where the confidence is too low
NO_NAMES: Mapping[str, str] = MappingProxyType({})  # no class was renamed


class ClassContract(BaseModel):
    """How classes relate to those of an earlier model: see contract_of().

    kept: in both, by their new names; the renamed ones too. added, removed: in one only.
    renamed: (old, new) pairs. reordered: whether the kept ones stand in another order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kept: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    reordered: bool = False

    @property
    def old_names(self) -> dict[str, str]:
        """{name now: name then} of the kept classes."""
        return {name: name for name in self.kept} | {new: old for old, new in self.renamed}

    def __str__(self) -> str:
        renamed = [f"{old} -> {new}" for old, new in self.renamed]
        parts = (("added", self.added), ("removed", self.removed), ("renamed", renamed))
        told = [f"{what} {', '.join(names)}" for what, names in parts if names]
        return "; ".join([*told, *["in another order"] * self.reordered]) or "the same classes"


class Card(BaseModel):
    """All that must travel with the weights. temperature divides the logits, > 0.

    abstain_below: with a lower confidence the answer is UNSURE, in [0, 1]; 0 = never.

    parent: content hash of the model that training started from, "" if it was a source task's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    classes: tuple[str, ...]
    backbone: BackboneInfo
    contract: ClassContract
    temperature: float = 1.0
    abstain_below: float = 0.0
    parent: str = ""
    dataset_digest: str = ""
    config: dict[str, str] = {}
    versions: dict[str, str] = {}


class GraftedNetwork(nn.Module):
    """A backbone and a new linear head: (B, 3, S, S) -> logits (B, K)."""

    def __init__(self, backbone: nn.Module, embedding_dim: int, n_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(embedding_dim, n_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, K) of normalised pixels (B, 3, S, S)."""
        embedding = self.backbone(pixels)  # (B, D)
        logits: Tensor = self.head(embedding.to(self.head.weight.dtype))  # (B, K)
        return logits


@dataclass(frozen=True)
class ImageClassifier:
    """Weights by parameter name ("backbone.…", "head.…") and the card that explains them."""

    card: Card
    weights: dict[str, Tensor]

    def __str__(self) -> str:
        info, parent = self.card.backbone, self.card.parent
        start = f" as tuned in the model {parent[:12]}" if parent else ""
        return f"load_pretrained: {info.source}{start}, {info.embedding_dim} numbers a photo"

    @property
    def content_hash(self) -> str:
        """sha256 of what decides an answer: the card's classes to abstention, and weights.

        A model that answers every photo has the hash that it had before models could abstain.
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
        """A network of its own with these weights, in eval mode, on the CPU."""
        info = self.card.backbone
        body = build_body(info.architecture).module
        network = GraftedNetwork(body, info.embedding_dim, len(self.card.classes))
        network.load_state_dict(self.weights)
        return network.eval()

    def with_weights(self, network: nn.Module) -> "ImageClassifier":
        """The same classifier with a copy of the network's weights."""
        weights = {n: t.detach().cpu().clone() for n, t in network.state_dict().items()}
        return replace(self, weights=weights)

    def with_card(self, **changes: object) -> "ImageClassifier":
        """The same weights under a changed card."""
        return replace(self, card=self.card.model_copy(update=changes))

    def blocks(self) -> tuple[Block, ...]:
        """The backbone's blocks, input side first, then the head; names as in weights."""
        body = build_body(self.card.backbone.architecture).module
        grafted = [
            Block(block.name, tuple(f"backbone.{name}" for name in block.parameters))
            for block in ordered_blocks(body)
        ]
        return (*grafted, Block("head", ("head.weight", "head.bias")))

    def save(self, folder: Path) -> None:
        """Writes weights.safetensors and card.json into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({n: t.contiguous() for n, t in self.weights.items()}, folder / WEIGHTS_FILE)
        (folder / CARD_FILE).write_text(self.card.model_dump_json(indent=1), encoding="utf-8")


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and values, whatever the order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """The tensor's values as bytes, whatever its type and strides."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def load_classifier(folder: Path) -> ImageClassifier:
    """The classifier saved in the folder.

    Raises:
        WeightsNotFound: no bundle there.
        WeightsMismatch: a card or weights that are none, or that do not fit one another.
    """
    try:
        card = Card.model_validate_json((folder / CARD_FILE).read_bytes())
        classifier = ImageClassifier(card, load_file(folder / WEIGHTS_FILE))
    except FileNotFoundError:
        raise WeightsNotFound(
            f"Expected a bundle ({WEIGHTS_FILE}, {CARD_FILE}) in {folder}, found none."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise WeightsMismatch(
            f"{folder / CARD_FILE} is no card: {where}: {first['msg']}. Fetch the bundle again."
        ) from None
    except SafetensorError as error:
        raise WeightsMismatch(
            f"{folder / WEIGHTS_FILE} cannot be read as weights ({error}). Fetch the bundle again."
        ) from None
    rows = {n: len(t) for n, t in classifier.weights.items() if n in ("head.weight", "head.bias")}
    if set(rows.values()) != {len(card.classes)} or len(rows) != 2:
        raise WeightsMismatch(
            f"Expected a head of {len(card.classes)} rows in {folder / WEIGHTS_FILE}, one a class "
            f"of its card, got {rows or 'none'}. Fetch the bundle again."
        )
    return classifier


def graft(backbone: Backbone, classes: tuple[str, ...]) -> ImageClassifier:
    """The backbone with a new head of zeros: every class equally probable."""
    network = GraftedNetwork(backbone.module, backbone.info.embedding_dim, len(classes))
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    card = Card(classes=classes, backbone=backbone.info, contract=ClassContract(added=classes))
    return ImageClassifier(card, {}).with_weights(network)


def contract_of(
    old: tuple[str, ...], new: tuple[str, ...], renamed: Mapping[str, str] = NO_NAMES
) -> ClassContract:
    """How the new classes relate to the old ones.

    Args:
        renamed: {old name: new name}. A rename that was carried out before is passed over, so it
            may stay in a configuration.

    Raises:
        ConfigError: both names are in the old or in the new classes: that would merge two classes.

    >>> str(contract_of(("cat", "dog"), ("dog", "kitty"), {"cat": "kitty"}))
    'renamed cat -> kitty; in another order'
    """
    pairs = {was: _name_now(was, new, renamed) for was in old if was in renamed}
    pairs = {was: name for was, name in pairs.items() if name in new and name != was}
    then = [pairs.get(name, name) for name in old]
    for was, name in pairs.items():
        is_left = was in new and was not in pairs.values()  # its photos, under the old name too
        for where, has_both in (("classes", then.count(name) > 1), ("photos", is_left)):
            if has_both:
                raise ConfigError(
                    f"classes.renamed says that {was!r} is called {name!r} now, but {where} of "
                    "both are there: two classes cannot become one by a new name. Mend the "
                    "labels, or take the pair out of classes.renamed."
                )
    kept = tuple(name for name in new if name in then)
    return ClassContract(
        kept=kept,
        added=tuple(name for name in new if name not in then),
        removed=tuple(name for name in old if pairs.get(name, name) not in new),
        renamed=tuple(pairs.items()),
        reordered=kept != tuple(name for name in then if name in new),
    )


def _name_now(was: str, new: tuple[str, ...], renamed: Mapping[str, str]) -> str:
    """The name after one renaming, or after the first of a chain that the new classes have."""
    name, passed = renamed[was], {was}
    while name not in new and name in renamed and name not in passed:
        passed.add(name)
        name = renamed[name]
    return name


def regraft(
    champion: ImageClassifier, classes: tuple[str, ...], renamed: Mapping[str, str] = NO_NAMES
) -> ImageClassifier:
    """The champion as a start: kept classes keep their head rows, new ones begin at zero.

    fine_tune() solves the head anew on the champion's embeddings, which needs no start; the rows
    keep the classes' answers for whoever uses this classifier as it is.

    Args:
        renamed: {old name: new name}; such a class is kept.

    Raises:
        ConfigError: as contract_of().
    """
    old = champion.card.classes
    contract = contract_of(old, classes, renamed)
    then = contract.old_names
    weights = dict(champion.weights)
    for name in ("head.weight", "head.bias"):
        new = torch.zeros_like(weights[name][0])
        rows = [weights[name][old.index(then[c])] if c in then else new for c in classes]
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
    """A classifier of these classes that knows its source task, and nothing yet of its target task.

    Args:
        config: its source "bundle:URL" is a bundle of ours: the warm start from a champion.
        classes: in order; at least two.
        renamed: {old name: new name} of a champion's classes.

    Raises:
        ConfigError: as contract_of().
        WeightsNotFound: no bundle at that URL. Else as load_backbone and load_classifier.
    """
    kind, _, url = config.source.partition(":")
    if kind != "bundle":
        return graft(load_backbone(config), classes)
    with tempfile.TemporaryDirectory() as folder:
        filesystem, path = fsspec.core.url_to_fs(url)
        try:
            filesystem.get(path.rstrip("/") + "/", folder, recursive=True)
        except FileNotFoundError:
            raise WeightsNotFound(f"Expected a bundle at {url}, found none.") from None
        return regraft(load_classifier(Path(folder)), classes, renamed)
