"""The timeline of a model's events, and the status page that shows it.

Only rebuild() imports MLflow and torch: the page is written after every run, also after a run in
which nothing changed.
"""

from regraft.operations.status.page import rebuild, refresh
from regraft.operations.status.timeline import DecisionEntry, Event, timeline

__all__ = ["DecisionEntry", "Event", "rebuild", "refresh", "timeline"]
