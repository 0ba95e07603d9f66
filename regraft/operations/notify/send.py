"""Delivery of a message to every target; a failed target does not affect the others."""

import logging
import shlex
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from urllib.parse import urlsplit

from regraft.core.config import NotifyConfig, Target
from regraft.operations.notify import command, services, webhook
from regraft.operations.notify.message import Message
from regraft.operations.notify.secret import format_source, read_address, read_secret

_SLACK_S = 0.5  # lets the target's own time-out come first, which names the cause; guess

logger = logging.getLogger("regraft.notify")


@dataclass(frozen=True)
class Failure:
    """A failed delivery, without any secret in its texts.

    kind: of the target. where: the host, the command's name, or "". why: the cause.
    """

    kind: str
    where: str
    why: str

    def __str__(self) -> str:
        target = " ".join(filter(None, (self.kind, self.where)))
        return f"{target} was not notified: {self.why}"


def send(config: NotifyConfig, message: Message) -> tuple[Failure, ...]:
    """Send the message to every target that subscribes to its event, and return the failures.

    A target takes at most about timeout_s, whatever blocks it (a host that does not answer, a name
    that does not resolve). A failure is logged as a warning and raises nothing.
    """
    failures = []
    for target in config.targets:
        if message.event not in target.of:
            continue
        if why := _deliver(target, message):
            failures.append(Failure(target.kind, _where(target), why))
            logger.warning("notify: %s (%s)", failures[-1], message.event)
    return tuple(failures)


def _deliver(target: Target, message: Message) -> str:
    """Return why the delivery failed, "" if it succeeded."""
    secret = read_secret(target)
    if secret is None:
        return f"expected its secret in {format_source(target)}, got none"
    address = read_address(target)
    if address is None:
        return f"expected its address in {target.to}, got none"
    if target.is_reference:
        try:
            target = target.with_address(address)
        except ValueError:  # its text may contain the address
            return f"expected the address of a target of kind {target.kind} in {target.to}"
    # The thread is abandoned after the time-out, because a name look-up cannot be cancelled.
    services.silence_library_logs()
    pool = ThreadPool(1)
    work = pool.apply_async(_deliver_by_kind, (target, secret, message))
    pool.close()
    work.wait(target.timeout_s + _SLACK_S)
    if not work.ready():
        return f"no answer in {target.timeout_s:g} s"
    if not work.successful():
        return "an internal error of Regraft or apprise"  # its text might contain the address
    return str(work.get())


def _deliver_by_kind(target: Target, secret: str, message: Message) -> str:
    if target.kind == "webhook":
        return webhook.post(target, secret, message)
    if target.kind == "command":
        return command.run(target, message)
    if target.kind == "email":
        return services.send_email(target, secret, message)
    return services.send_by_apprise(target, secret, message)


def _where(target: Target) -> str:
    if target.kind == "command":
        return shlex.split(target.to)[0].rpartition("/")[2]
    return urlsplit(target.to).hostname or ""
