"""Which test photos a contender has seen: they, and copies of them, prove nothing about it."""

import pandas as pd

from regraft.promotion.duel import seen_in, units_of

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


def test_a_photo_and_its_near_copies_have_been_seen():
    assert seen_in([LEARNED], ASKED, 4).tolist() == [True, True, False, False]
    assert seen_in([LEARNED], ASKED, 0).tolist() == [True, False, False, False]


def test_what_either_contender_has_seen_counts():
    other = table(("d" * 64, "f" * 16, SHAPE))
    assert seen_in([LEARNED, other], ASKED, 4).tolist() == [True, True, False, True]
    assert seen_in([other, LEARNED], ASKED, 4).tolist() == [True, True, False, True]


def test_a_record_without_thumbnails_is_compared_by_its_hashes():
    old = LEARNED.drop(columns="thumbnail")
    assert seen_in([old], ASKED, 4).tolist() == [True, False, True, False]


def test_copies_of_one_photo_are_one_unit():
    first, copy, lookalike, other = units_of(ASKED, 4)
    assert first == copy
    assert len({first, lookalike, other}) == 3
