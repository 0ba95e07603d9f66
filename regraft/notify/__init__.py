"""Who is told of what happened; a target that fails never fails the run."""

from regraft.notify.message import Message, of_attempt, of_watch
from regraft.notify.tell import Failure, tell
from regraft.notify.webhook import signature

__all__ = ["Failure", "Message", "of_attempt", "of_watch", "signature", "tell"]
