"""E-mail and every other service, by apprise, which is imported only here and only when needed.

What apprise and the HTTP client under it log names tokens and whole addresses. So nothing of it is
let through: it is overheard, and only an error's number or the system's own words are told. Both
stay muted for as long as the process lives, because a thread that was left behind may yet log.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regraft.core.config import Target
from regraft.operations.notify.message import Message

if TYPE_CHECKING:
    from apprise import Apprise, AppriseAsset

UNKNOWN = "its secret is no address that apprise knows"
# What may be told of an error: an SMTP code, or the system's own words for an errno.
_CODE = re.compile(r"\((\d{3}), b'|Socket Exception: (\d{3}) |error=(\d{3})\b")
_ERRNO = re.compile(r"\[Errno -?\d+\] ([A-Z][a-z ]+)")
_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"


class _Overheard(logging.Handler):
    """Keeps the lines, in memory only."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def mail(target: Target, secret: str, message: Message) -> str:
    """Sends an e-mail; why it could not be delivered, "" if it was.

    Args:
        secret: the password, "" for no login.
    """
    with _overhearing() as heard:
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
        return _sent(plugin, target, message, heard)


def other(target: Target, secret: str, message: Message) -> str:
    """Tells a service that the secret, an apprise URL, names; as mail()."""
    with _overhearing() as heard:
        from apprise import Apprise

        plugin = Apprise.instantiate(secret, asset=_asset(target))
        return _sent(plugin, target, message, heard) if plugin else UNKNOWN


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


def _sent(plugin: "Apprise", target: Target, message: Message, heard: _Overheard) -> str:
    from apprise import Apprise, NotifyFormat, NotifyType

    tone = {"promoted": NotifyType.SUCCESS, "failed": NotifyType.FAILURE}
    service = Apprise(asset=_asset(target))
    service.add(plugin)
    was_sent = service.notify(
        title=" ".join(message.title.split()),
        body=message.plain(),
        body_format=NotifyFormat.TEXT,
        notify_type=tone.get(message.happening, NotifyType.INFO),
    )
    return "" if was_sent else _why(heard.lines)


def _why(lines: list[str]) -> str:
    """What is safe to tell of the lines that apprise logged."""
    text = "\n".join(lines)
    if _CERTIFICATE in text:
        return "its certificate is not trusted"
    if found := [code for line in lines for code in _CODE.findall(line)]:
        return f"it answered {''.join(found[-1])}"
    if told := _ERRNO.findall(text):
        return f"no connection ({told[-1].strip()})"
    return "no answer in time" if "timed out" in text else "it was not delivered"


def mute() -> None:
    """From now on, nothing that apprise logs, and no address that urllib3 logs, is seen."""
    talker = logging.getLogger("apprise")
    talker.setLevel(logging.DEBUG)
    talker.propagate = False
    if not talker.handlers:
        talker.addHandler(logging.NullHandler())  # else Python prints what nobody handles
    logging.getLogger("urllib3").setLevel(logging.ERROR)


@contextmanager
def _overhearing() -> Iterator[_Overheard]:
    heard, talker = _Overheard(), logging.getLogger("apprise")
    talker.addHandler(heard)
    try:
        yield heard
    finally:
        talker.removeHandler(heard)
