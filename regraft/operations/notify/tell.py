"""Every target is told, and what goes wrong with one is the news of that one."""

import logging
import shlex
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from urllib.parse import urlsplit

from regraft.core.config import NotifyConfig, Target
from regraft.operations.notify import command, services, webhook
from regraft.operations.notify.message import Message
from regraft.operations.notify.secret import secret_of, where_from

_SLACK_S = 0.5  # a target's own time-out is nearer to what went wrong than ours; guess

logger = logging.getLogger("regraft.notify")


@dataclass(frozen=True)
class Failure:
    """A target that was not told, in words that give no secret away.

    where: the host, the command's name, or "".
    """

    kind: str
    where: str
    why: str

    def __str__(self) -> str:
        return f"{' '.join(filter(None, (self.kind, self.where)))} was not told: {self.why}"


def tell(config: NotifyConfig, message: Message) -> tuple[Failure, ...]:
    """Tells every target that wants to hear of such a happening; those that were not told.

    A target takes at most its timeout_s, whatever holds it up: a host that does not answer, a name
    that nobody resolves. A failure is logged as a warning, and is no error.
    """
    failures = []
    for target in config.targets:
        if message.happening not in target.of:
            continue
        if why := _told(target, message):
            failures.append(Failure(target.kind, _where(target), why))
            logger.warning("notify: %s (%s)", failures[-1], message.happening)
    return tuple(failures)


def _told(target: Target, message: Message) -> str:
    """Why the target was not told, "" if it was."""
    secret = secret_of(target)
    if secret is None:
        return f"expected its secret in {where_from(target)}, found none"
    # The thread is left behind when the time is over: looking up a name cannot be stopped.
    services.mute()
    pool = ThreadPool(1)
    work = pool.apply_async(_by_kind, (target, secret, message))
    pool.close()
    work.wait(target.timeout_s + _SLACK_S)
    if not work.ready():
        return f"no answer in {target.timeout_s:g} s"
    if not work.successful():
        return "a fault of ours, or of apprise"  # its text might tell the address
    return str(work.get())


def _by_kind(target: Target, secret: str, message: Message) -> str:
    if target.kind == "webhook":
        return webhook.post(target, secret, message)
    if target.kind == "command":
        return command.run(target, message)
    way = services.mail if target.kind == "email" else services.other
    return way(target, secret, message)


def _where(target: Target) -> str:
    if target.kind == "command":
        return shlex.split(target.to)[0].rpartition("/")[2]
    return urlsplit(target.to).hostname or ""
