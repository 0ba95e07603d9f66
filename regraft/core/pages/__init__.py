"""What every page has: its head, its look, and that it needs neither network nor script."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

Filters = Mapping[str, Callable[..., Any]]


def environment(rooms: tuple[str, ...], filters: Filters) -> "Environment":
    """Jinja with the rooms' templates and those of every page; all that is filled in is escaped.

    A page extends base.html: the blocks title, eyebrow, headline and main, and where it has them
    style, below (the headline), nav and footer.

    Args:
        rooms: modules with a folder templates/, the first that has a template wins.
        filters: of these pages alone; of every page: count, a number with its thousands apart.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined  # 0.1 s

    from regraft.core.pages.compiled import COMPILED

    made = Environment(
        loader=ChoiceLoader([PackageLoader(room) for room in (*rooms, __name__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=COMPILED,
    )
    made.filters |= {"count": count, **filters}
    return made


def count(n: int) -> str:
    """A number with its thousands apart.

    >>> count(12345)
    '12\u202f345'
    """
    return f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
