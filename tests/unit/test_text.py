"""Numbers with their nouns."""

import pytest

from regraft.core.text import format_count


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [
        (1, "new photo", "1 new photo"),
        (0, "new photo", "0 new photos"),
        (2, "class", "2 classes"),
        (3, "entry", "3 entries"),
    ],
)
def test_a_noun_is_in_the_plural_unless_the_number_is_one(n, noun, text):
    assert format_count(n, noun) == text
