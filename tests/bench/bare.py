"""The bare forward pass as anyone writes it: torch's defaults, nothing folded. Prints photos/s."""

import sys
import time

import torch

from regraft.core.config import load_config
from regraft.model.classifier import load_pretrained
from regraft.model.embed import BATCH_SIZE, keep_freed_memory

N_BATCHES = 10


def main(precision: str, memory: str) -> None:
    """precision: bf16 or fp32; memory: "given back" as glibc does, or "kept"."""
    classifier = load_pretrained(load_config(None).backbone, ("a", "b"))
    size = classifier.card.backbone.preprocessing.size
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    channels_last = torch.channels_last
    network = classifier.build().backbone.eval().to(dtype).to(memory_format=channels_last)
    batch = torch.randn(BATCH_SIZE, 3, size, size).to(dtype).to(memory_format=channels_last)
    if memory == "kept":
        keep_freed_memory()
    with torch.inference_mode():
        network(batch)  # the warm-up
        began = time.monotonic()
        for _ in range(N_BATCHES):
            network(batch)
    print(N_BATCHES * BATCH_SIZE / (time.monotonic() - began))


if __name__ == "__main__":
    main(*sys.argv[1:])
