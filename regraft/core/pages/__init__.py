"""The common template and style of all HTML pages; a page needs neither network nor script."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

Filters = Mapping[str, Callable[..., Any]]


def environment(packages: tuple[str, ...], filters: Filters) -> "Environment":
    """Return a Jinja environment with the templates of the packages; inserted values are escaped.

    A page extends base.html with the blocks title, eyebrow, headline and main, and optionally
    style, below (after the headline), nav and footer.

    Args:
        packages: packages with a folder templates/, highest priority first.
        filters: additional filters; the filter count is always available.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined  # 0.1 s

    from regraft.core.pages.template_cache import TEMPLATE_CACHE

    jinja = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, __name__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=TEMPLATE_CACHE,
    )
    jinja.filters |= {"count": count, **filters}
    return jinja


def count(n: int) -> str:
    """Return a number with separated thousands.

    >>> count(12345)
    '12\u202f345'
    """
    return f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
