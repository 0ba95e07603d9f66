"""A pretrained backbone: module, ordered blocks, preprocessing, and source task."""

from regraft.model.backbone.architecture import (
    Block,
    Preprocessing,
    build_body,
    ordered_blocks,
    preprocessing_of,
)
from regraft.model.backbone.load import Backbone, BackboneInfo, SourceTask, load_backbone, pinned
from regraft.model.backbone.weights import read_weights

__all__ = [
    "Backbone",
    "BackboneInfo",
    "Block",
    "Preprocessing",
    "SourceTask",
    "build_body",
    "load_backbone",
    "ordered_blocks",
    "pinned",
    "preprocessing_of",
    "read_weights",
]
