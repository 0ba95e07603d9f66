"""Names of a package that are imported when they are first used, so that the package is light.

A package whose modules need torch imports nothing of it for a command that only reads records.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, exports: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that imports each of its names on first use (PEP 562).

    The name is then stored in the package, so it is looked up once. No name may be that of a
    submodule: the import of the submodule would bind the name to the module.

    Args:
        package: the package's `__name__`.
        exports: {submodule: names}.
    """
    modules = {name: module for module, names in exports.items() for name in names}

    def load_export(name: str) -> Any:  # noqa: ANN401 - of the type of each name
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load_export
