"""Render a model card as Markdown, or as one self-contained HTML page."""

import re

from regraft.evaluation.report.environment import environment
from regraft.registry.model_card.facts import ModelCard
from regraft.registry.model_card.sections import Section, sections

# Characters with a meaning in a line of GitHub-flavoured Markdown. The last pattern is the colon of
# a URL, which would become a link.
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~>$]|:(?=//))")


def markdown(card: ModelCard) -> str:
    """Return the card as GitHub-flavoured Markdown, with all values escaped."""
    parts = [f"# {escape(card.name)}, version {card.version}"]
    for section in sections(card):
        parts += [f"## {escape(section.title)}", *_blocks(section)]
    return "\n\n".join(parts) + "\n"


def html(card: ModelCard) -> str:
    """Return the card as HTML with inline styles, no scripts, no requests, all values escaped."""
    context = {"card": card, "sections": sections(card)}
    return environment("", "regraft.registry.model_card").get_template("card.html").render(context)


def escape(text: str) -> str:
    r"""Return Markdown that shows the text literally, on one line.

    >>> escape("<b>|x")
    '&lt;b\\>\\|x'
    """
    line = " ".join(text.split())
    plain = _SPECIAL.sub(r"\\\1", line.replace("&", "\0").replace("<", "\1"))
    return plain.replace("\0", "&amp;").replace("\1", "&lt;")


def _blocks(section: Section) -> list[str]:
    blocks: list[str] = []
    if section.rows:
        blocks.append(_table((("", ""), *section.rows)))
    if section.notes:
        blocks.append("\n".join(f"- {escape(note)}" for note in section.notes))
    if section.table:
        blocks.append(_table(section.table))
    return blocks + [
        f"{escape(purpose)}\n\n```sh\n{command}\n```" for purpose, command in section.code
    ]


def _table(rows: tuple[tuple[str, ...], ...]) -> str:
    lines = ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)
