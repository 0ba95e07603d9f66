"""How this machine trains the thawed part: decided once, then kept for whoever resumes it."""

from dataclasses import dataclass
from typing import Any

import torch

DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.bfloat16)}


@dataclass(frozen=True)
class Arrangement:
    """What the trained weights depend on beside photos, seed and configuration.

    dtype: of the training steps.
    whole_because: why the frozen part runs in each epoch; "" if it runs once a view.
    """

    dtype: torch.dtype
    whole_because: str

    def __str__(self) -> str:
        each = f"in each epoch: {self.whole_because}" if self.whole_because else "once a view"
        return f"{str(self.dtype).removeprefix('torch.')} steps, the frozen part {each}"

    def state(self) -> dict[str, str]:
        """It as plain values, for a checkpoint."""
        return {"dtype": str(self.dtype), "whole_because": self.whole_because}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Arrangement":
        """The arrangement that state() was of."""
        return cls(DTYPES[state["dtype"]], state["whole_because"])
