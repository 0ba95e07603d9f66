"""Words of messages that depend on a number."""

_PLURALS = {"class": "classes", "entry": "entries", "copy": "copies"}


def format_count(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1.

    Args:
        noun: in the singular; words before the last are adjectives.

    >>> format_count(1, "photo"), format_count(0, "new photo"), format_count(2, "class")
    ('1 photo', '0 new photos', '2 classes')
    """
    if n == 1:
        return f"1 {noun}"
    adjectives, space, last = noun.rpartition(" ")
    return f"{n} {adjectives}{space}{_PLURALS.get(last, f'{last}s')}"
