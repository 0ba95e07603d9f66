"""E-mail and other services through apprise, which is imported only here and only when needed.

apprise is an optional dependency, the extra "notify".

apprise and its HTTP client log tokens and whole addresses. Therefore their log lines never reach
the user's log: a handler captures them, and the error text holds only an error code or the
operating system's message. Both loggers stay silent until the process ends, because a thread that
was left behind may still log.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from regraft.core.config import Target
from regraft.operations.notify.message import Message

if TYPE_CHECKING:
    from apprise import Apprise, AppriseAsset

NOT_INSTALLED = "the package apprise is not installed: pip install 'regraft[notify]'"
UNKNOWN = "the secret is not a URL that apprise supports"
# The parts of an error that are safe to show: an SMTP code, or the system's message of an errno.
_CODE = re.compile(r"\((\d{3}), b'|Socket Exception: (\d{3}) |error=(\d{3})\b")
_ERRNO = re.compile(r"\[Errno -?\d+\] ([A-Z][a-z ]+)")
_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"


class LogCapture(logging.Handler):
    """A handler that keeps log lines in memory only; `lines` holds their texts."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store the text of the record."""
        self.lines.append(record.getMessage())


def send_email(target: Target, secret: str, message: Message) -> str:
    """Send an e-mail and return why it failed, "" if it succeeded.

    Args:
        secret: the password, "" for no login.
    """
    if find_spec("apprise") is None:
        return NOT_INSTALLED
    with _capture_logs() as capture:
        from apprise.plugins.email import NotifyEmail

        account = target.mail
        plugin = NotifyEmail(
            host=account.host,
            smtp_host=account.host,
            port=account.port or None,
            secure=account.security != "insecure",
            secure_mode=account.security,
            user=account.user if secret else None,
            password=secret or None,
            from_addr=account.sender,
            targets=list(account.receivers),
            format="text",
            asset=_asset(target),
        )
        plugin.socket_connect_timeout = target.timeout_s
        return _notify(plugin, target, message, capture)


def send_by_apprise(target: Target, secret: str, message: Message) -> str:
    """Send the message to a service and return why it failed, "" if it succeeded.

    Args:
        secret: the service's apprise URL.
    """
    if find_spec("apprise") is None:
        return NOT_INSTALLED
    with _capture_logs() as capture:
        from apprise import Apprise

        plugin = Apprise.instantiate(secret, asset=_asset(target))
        return _notify(plugin, target, message, capture) if plugin else UNKNOWN


def _asset(target: Target) -> "AppriseAsset":
    from apprise import AppriseAsset

    return AppriseAsset(
        app_id="Regraft",
        app_desc="Regraft",
        app_url="",
        async_mode=False,
        storage_mode="memory",
        service_timeout=target.timeout_s,
    )


def _notify(plugin: "Apprise", target: Target, message: Message, capture: LogCapture) -> str:
    from apprise import Apprise, NotifyFormat, NotifyType

    types = {"promote": NotifyType.SUCCESS, "failed": NotifyType.FAILURE}
    service = Apprise(asset=_asset(target))
    service.add(plugin)
    was_sent = service.notify(
        title=" ".join(message.title.split()),
        body=message.plain_text(),
        body_format=NotifyFormat.TEXT,
        notify_type=types.get(message.event, NotifyType.INFO),
    )
    return "" if was_sent else _failure_cause(capture.lines)


def _failure_cause(lines: list[str]) -> str:
    """Return the cause that the log lines name, without any secret."""
    text = "\n".join(lines)
    if _CERTIFICATE in text:
        return "the certificate is not trusted"
    if codes := [code for line in lines for code in _CODE.findall(line)]:
        return f"it answered {''.join(codes[-1])}"
    if causes := _ERRNO.findall(text):
        return f"no connection ({causes[-1].strip()})"
    return "no answer in time" if "timed out" in text else "it was not delivered"


def silence_library_logs() -> None:
    """Hide all logs of apprise, and those of urllib3 below ERROR, until the process ends."""
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # without a handler, Python prints to stderr
    logging.getLogger("urllib3").setLevel(logging.ERROR)


@contextmanager
def _capture_logs() -> Iterator[LogCapture]:
    capture, logger = LogCapture(), logging.getLogger("apprise")
    logger.addHandler(capture)
    try:
        yield capture
    finally:
        logger.removeHandler(capture)
