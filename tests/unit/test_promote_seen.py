"""Test photos that a model was trained on, and copies of them, are no evidence about it."""

import pandas as pd

from regraft.data.split import unit_numbers
from regraft.promotion.paired_evaluation import seen_in

SHAPE, OTHER = bytes(range(256)), bytes(range(255, -1, -1))  # thumbnails


def table(*rows):
    return pd.DataFrame(list(rows), columns=["sha256", "phash", "thumbnail"])


LEARNED = table(("a" * 64, "0" * 16, SHAPE))
ASKED = table(
    ("a" * 64, "0" * 16, SHAPE),  # the very photo
    ("b" * 64, "0" * 15 + "1", SHAPE),  # saved anew: one bit of its hash differs
    ("c" * 64, "0" * 16, OTHER),  # only the hash is alike
    ("d" * 64, "f" * 16, SHAPE),  # only the thumbnail is alike
)


def test_training_photos_and_their_near_copies_are_seen():
    assert seen_in([LEARNED], ASKED, 4).tolist() == [True, True, False, False]
    assert seen_in([LEARNED], ASKED, 0).tolist() == [True, False, False, False]


def test_photos_of_either_manifest_are_seen():
    other = table(("d" * 64, "f" * 16, SHAPE))
    assert seen_in([LEARNED, other], ASKED, 4).tolist() == [True, True, False, True]
    assert seen_in([other, LEARNED], ASKED, 4).tolist() == [True, True, False, True]


def test_manifest_without_thumbnails_is_compared_by_perceptual_hashes():
    old = LEARNED.drop(columns="thumbnail")
    assert seen_in([old], ASKED, 4).tolist() == [True, False, True, False]


def test_copies_of_one_photo_are_one_unit():
    first, copy, lookalike, other = unit_numbers(ASKED, 4, by_group=False)
    assert first == copy
    assert len({first, lookalike, other}) == 3
