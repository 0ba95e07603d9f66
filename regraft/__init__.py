"""Regraft grafts your classes onto a pretrained network, and keeps the graft alive.

>>> import regraft
>>> model = regraft.train("photos/")  # doctest: +SKIP
>>> regraft.load("photos@champion").predict("new.jpg")  # doctest: +SKIP

The functions are in regraft.api; nothing heavy is imported before one of them is called.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.api import evaluate, load, predict, promote, retrain, train, watch
    from regraft.core.config import Config

__version__ = "0.1.0"
__all__ = [
    "Config",
    "evaluate",
    "load",
    "predict",
    "promote",
    "retrain",
    "train",
    "watch",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of the type of each name
    """Import a name of the public API when it is used first."""
    if name not in __all__:
        raise AttributeError(f"module 'regraft' has no attribute {name!r}")
    module = "regraft.core.config" if name == "Config" else "regraft.api"
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    """Return the names of the public API."""
    return sorted({*globals(), *__all__})
