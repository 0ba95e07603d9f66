"""The card as Markdown, and as one self-contained HTML page."""

import re

from regraft.evaluation.report.environment import environment
from regraft.registry.model_card.facts import ModelCard
from regraft.registry.model_card.sections import Section, sections

# What Markdown, with GitHub's additions, reads as more than itself inside a line. The last of them
# would make a link of an address.
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~>$]|:(?=//))")


def markdown(card: ModelCard) -> str:
    """The card as GitHub-flavoured Markdown; names from outside are escaped."""
    parts = [f"# {escape(card.name)}, version {card.version}"]
    for section in sections(card):
        parts += [f"## {escape(section.title)}", *_blocks(section)]
    return "\n\n".join(parts) + "\n"


def html(card: ModelCard) -> str:
    """The card as HTML text: styles inside, no script, no request; names are escaped."""
    context = {"card": card, "sections": sections(card)}
    return environment("", "regraft.registry.model_card").get_template("card.html").render(context)


def escape(text: str) -> str:
    r"""The text as Markdown that shows it, on one line.

    >>> escape("<b>|x")
    '&lt;b\\>\\|x'
    """
    line = " ".join(text.split())
    plain = _SPECIAL.sub(r"\\\1", line.replace("&", "\0").replace("<", "\1"))
    return plain.replace("\0", "&amp;").replace("\1", "&lt;")


def _blocks(section: Section) -> list[str]:
    blocks = []
    if section.rows:
        blocks.append(_table((("", ""), *section.rows)))
    blocks += ["\n".join(f"- {escape(note)}" for note in section.notes)] if section.notes else []
    if section.table:
        blocks.append(_table(section.table))
    return blocks + [f"{escape(what)}\n\n```sh\n{command}\n```" for what, command in section.code]


def _table(rows: tuple[tuple[str, ...], ...]) -> str:
    lines = ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)
