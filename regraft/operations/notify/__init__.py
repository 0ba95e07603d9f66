"""Notifications about events to the configured targets; a failed target never fails the run."""

from regraft.operations.notify.message import Message, attempt_message, watch_message
from regraft.operations.notify.send import Failure, send
from regraft.operations.notify.webhook import signature

__all__ = ["Failure", "Message", "attempt_message", "send", "signature", "watch_message"]
