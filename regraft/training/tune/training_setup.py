"""How this machine trains the thawed part: decided at the start, unchanged when resumed."""

from dataclasses import dataclass
from typing import Any

import torch

DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16)}


@dataclass(frozen=True)
class TrainingSetup:
    """What the trained weights depend on, besides photos, seed and configuration.

    dtype: of the training steps.
    uncached_reason: why the frozen part runs in each epoch; "" if it runs once per view.
    """

    dtype: torch.dtype
    uncached_reason: str

    def __str__(self) -> str:
        reason = self.uncached_reason
        frequency = f"in each epoch ({reason})" if reason else "once per view"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{dtype} steps, the frozen part runs {frequency}"

    def state(self) -> dict[str, str]:
        """Return the setup as plain values, for a checkpoint."""
        return {"dtype": str(self.dtype), "uncached_reason": self.uncached_reason}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "TrainingSetup":
        """Return the setup from the result of state()."""
        return cls(DTYPES[state["dtype"]], state["uncached_reason"])
