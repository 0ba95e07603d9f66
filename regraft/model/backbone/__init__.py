"""A pretrained backbone: module, ordered blocks, preprocessing, and source task."""

from typing import TYPE_CHECKING

from regraft.core.lazy import lazy_exports
from regraft.model.backbone.info import BackboneInfo, Preprocessing, SourceTask

if TYPE_CHECKING:
    from regraft.model.backbone.architecture import (
        Block,
        build_body,
        ordered_blocks,
        preprocessing_of,
        state_dict_of,
        tensor_specs,
    )
    from regraft.model.backbone.load import Backbone, load_backbone, pinned
    from regraft.model.backbone.weights import read_weights
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "architecture": (
                "Block",
                "build_body",
                "ordered_blocks",
                "preprocessing_of",
                "state_dict_of",
                "tensor_specs",
            ),
            "load": (
                "Backbone",
                "load_backbone",
                "pinned",
            ),
            "weights": ("read_weights",),
        },
    )

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
    "state_dict_of",
    "tensor_specs",
]
