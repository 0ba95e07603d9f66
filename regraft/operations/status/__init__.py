"""What happened to the models, on one timeline, and the status page that shows it.

Nothing here imports MLflow or torch until the ledger itself is read: the page is written anew after
every run, also after one in which nothing had changed.
"""

from regraft.operations.status.page import rebuild, refresh
from regraft.operations.status.timeline import Decided, Event, timeline

__all__ = ["Decided", "Event", "rebuild", "refresh", "timeline"]
