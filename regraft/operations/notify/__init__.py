"""Who is told of what happened; a target that fails never fails the run."""

from regraft.operations.notify.message import Message, of_attempt, of_watch
from regraft.operations.notify.tell import Failure, tell
from regraft.operations.notify.webhook import signature

__all__ = ["Failure", "Message", "of_attempt", "of_watch", "signature", "tell"]
