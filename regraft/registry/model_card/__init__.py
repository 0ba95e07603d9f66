"""The model card: the recorded facts of a registered model, as Markdown and HTML."""

from regraft.registry.model_card.facts import ModelCard, load_model_card
from regraft.registry.model_card.render import html, markdown

__all__ = ["ModelCard", "html", "load_model_card", "markdown"]
