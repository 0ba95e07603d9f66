"""What a frozen network makes of photos: computed once for each photo, kept, read by all."""

from regraft.model.embed.change import Change
from regraft.model.embed.compute import Compute, choose_compute, judging_compute, keep_freed_memory
from regraft.model.embed.embed import (
    NO_STORE,
    Found,
    Passage,
    embed,
    find_rows,
    head_scores,
    logits,
    n_known,
    passage,
    probabilities,
    rows_of,
)
from regraft.model.embed.network import BATCH_SIZE, UNTRACEABLE, forward, prepared, trace
from regraft.model.embed.recipe import Recipe, maker
from regraft.model.embed.room import ShelfUse, contents, count_photos, make_room
from regraft.model.embed.rows import Rows

__all__ = [
    "BATCH_SIZE",
    "NO_STORE",
    "UNTRACEABLE",
    "Change",
    "Compute",
    "Found",
    "Passage",
    "Recipe",
    "Rows",
    "ShelfUse",
    "choose_compute",
    "contents",
    "count_photos",
    "embed",
    "find_rows",
    "forward",
    "head_scores",
    "judging_compute",
    "keep_freed_memory",
    "logits",
    "make_room",
    "maker",
    "n_known",
    "passage",
    "prepared",
    "probabilities",
    "rows_of",
    "trace",
]
