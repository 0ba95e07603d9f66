"""What `make test PRECISION=bf16|fp32` does in child processes: torch is told what it runs on.

Python imports this module at start-up because its folder is on PYTHONPATH. torch itself is imported
only when the program does so.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys


class _Patch(importlib.abc.MetaPathFinder):
    """Replaces torch.cpu.get_capabilities once torch.cpu has been imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch.cpu":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_patch(module):
            load(module)
            has_bf16 = os.environ["REGRAFT_TESTS_PRECISION"] == "bf16"
            module.get_capabilities = lambda: {"avx512_bf16": has_bf16}

        spec.loader.exec_module = load_and_patch
        return spec


if "REGRAFT_TESTS_PRECISION" in os.environ:
    sys.meta_path.insert(0, _Patch())
