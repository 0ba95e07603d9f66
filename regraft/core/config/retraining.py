"""Sections about automation: retraining, drift detection, batch prediction, notifications."""

import re
import shlex
from dataclasses import dataclass
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import AfterValidator, Field, model_validator

from regraft.core.config.section import Fraction, Section, Url, refuse_login
from regraft.core.outcomes import EventType


class RetrainConfig(Section):
    """When to retrain, and the starting weights of the training.

    start: champion = the champion's weights (warm start); pretrained = the weights of the source
        task (cold start); auto = the champion's, unless the pretrained weights are better on the
        validation photos.
    min_changed_fraction: minimum share of photos added, removed or relabelled since the last
        training, relative to its number of photos, in [0, 1]. With a smaller share, retraining is
        skipped. Guess.
    max_age_days: an older champion is retrained after any change, >= 0; 0 = no limit.
    budget_h: hours of training in any seven days, >= 0. A training that would exceed the budget is
        postponed; 0 = no limit.
    interpolations: weights between champion (0) and challenger (1) to evaluate besides the
        challenger, each in (0, 1). The interpolation with the best validation accuracy within
        promote.max_negative_flips is selected. Empty = none. Source: Wortsman et al. 2022 evaluate
        0 to 1.
    journal_url: folder that records every decision to train or not.
    """

    start: Literal["champion", "pretrained", "auto"] = "auto"
    min_changed_fraction: Fraction = 0.01
    max_age_days: Annotated[float, Field(ge=0.0)] = 0.0
    budget_h: Annotated[float, Field(ge=0.0)] = 0.0
    interpolations: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = (0.25, 0.5, 0.75)
    journal_url: Url = ""


class DriftConfig(Section):
    """Detection of a distribution shift between new photos and the champion's training photos.

    level: probability of a false alarm per check, for all tests together, in (0, 0.5), if the
        photos are statistically independent. Near copies (split.near_duplicate_bits) and a group
        count as a single photo; other dependent series cause more false alarms. Guess: 0.01 is
        about one false alarm in two years of weekly checks.
    n_reference: photos whose embeddings are stored with a model, in [50, 5000]. Guess: 2.5 MB
        (lite0).
    n_permutations: permutations of the two-sample test, in [100, 100000]; at least 10 / level.
        Guess.
    min_photos: minimum number of new photos, >= 5; with fewer the check is inconclusive. Guess.
    n_gallery: photos shown in the report, in [0, 60].
    """

    level: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.01
    n_reference: Annotated[int, Field(ge=50, le=5000)] = 1000
    n_permutations: Annotated[int, Field(ge=100, le=100_000)] = 2000
    min_photos: Annotated[int, Field(ge=5)] = 20
    n_gallery: Annotated[int, Field(ge=0, le=60)] = 12

    @model_validator(mode="after")
    def _check_n_permutations(self) -> Self:
        # Holm's correction divides the level among several tests.
        if self.n_permutations * self.level < 10:
            raise ValueError(
                f"drift.n_permutations={self.n_permutations} is too small for drift.level="
                f"{self.level:g}: set at least {10 / self.level:.0f}"
            )
        return self


class BatchConfig(Section):
    """Sizes of batch prediction.

    shard_photos: photos per step, in [1, 100000]. Guess: about a minute on two cores.
    n_parallel: concurrent steps, in [1, 64]: pods, or threads of one machine, which share the
        network.
    """

    shard_photos: Annotated[int, Field(ge=1, le=100_000)] = 5000
    n_parallel: Annotated[int, Field(ge=1, le=64)] = 1


REFERENCES = ("env:", "file:")
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"


@dataclass(frozen=True)
class MailAccount:
    """The parsed address of an e-mail target.

    port: 0 = the default port of the security mode.
    security: ssl = TLS from the first byte; starttls = TLS before the first message; insecure = no
        TLS.
    user: login name, used if the target has a secret.
    """

    host: str
    port: int
    security: Literal["ssl", "starttls", "insecure"]
    sender: str
    receivers: tuple[str, ...]
    user: str


class Target(Section):
    """A receiver of notifications, and its events.

    kind: webhook = POST of JSON to the http(s) URL `to`; email = SMTP, to =
        smtp://HOST[:PORT]/?from=A&to=B[,C][&user=U][&tls=none] (STARTTLS unless tls=none) or
        smtps:// (TLS from the first byte); command = the command line `to`, run without a shell,
        with the event as JSON on its standard input; apprise = any other service, whose URL is the
        secret.
    to: address or command line, see kind; or env:NAME or file:PATH, the environment variable or
        file that holds it. Neither is stored: the process that starts a run sends its messages.
        A run that an orchestrator starts on a schedule needs env:NAME or file:PATH.
    of: types of the events to send. The key is not "on", because YAML reads "on" as true.
    secret_file, secret_env: file or environment variable with the secret: the key of a webhook's
        HMAC, the password of a mail account, or an apprise URL. Never the secret itself. The path
        is absolute or begins with ~, because a schedule may run in another folder.
    timeout_s: seconds until a target counts as failed, including retries, in (0, 300]. Guess.
    """

    kind: Literal["webhook", "email", "command", "apprise"]
    to: Annotated[str, AfterValidator(refuse_login)] = ""
    of: Annotated[tuple[EventType, ...], Field(min_length=1)] = (
        "promote",
        "keep",
        "pending",
        "failed",
        "drift",
    )
    secret_file: str = ""
    secret_env: Annotated[str, Field(pattern=rf"^({_VARIABLE})?$")] = ""
    timeout_s: Annotated[float, Field(gt=0.0, le=300.0)] = 10.0

    @property
    def is_reference(self) -> bool:
        """Return whether `to` names where the address is, and is not the address itself."""
        return self.to.startswith(REFERENCES)

    @property
    def is_storable(self) -> bool:
        """Return whether the target contains no address that may be secret."""
        return self.is_reference or self.kind == "apprise"

    def with_address(self, address: str) -> "Target":
        """Return the target with an address or a command line in place of a reference.

        Raises:
            ValueError: the address is not one of this kind.
        """
        return Target.model_validate(self.model_dump() | {"to": address})

    @property
    def has_secret(self) -> bool:
        """Return whether the target has a secret."""
        return bool(self.secret_file or self.secret_env)

    @property
    def mail(self) -> MailAccount:
        """Return the parsed address of an e-mail target.

        Raises:
            ValueError: `to` is not a valid address of an e-mail target.
        """
        url = _split(self.to, ("smtp", "smtps"), "an e-mail target")
        options = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if unknown := sorted(options.keys() - {"from", "to", "user", "tls"}):
            raise ValueError(f"unknown option {unknown[0]} in `to`: known are from, to, user, tls")
        addresses = [address.strip() for address in options.get("to", "").split(",")]
        receivers = tuple(address for address in addresses if address)
        sender = options.get("from", "")
        if not receivers or not all("@" in address for address in (sender, *receivers)):
            raise ValueError("`to` needs addresses: smtp://HOST/?from=me@here.org&to=you@there.org")
        if options.get("tls", "none") != "none":
            raise ValueError("tls in `to` can only be none; leave it out for STARTTLS")
        plain: Literal["starttls", "insecure"] = "insecure" if "tls" in options else "starttls"
        security = "ssl" if url.scheme == "smtps" else plain
        user = options.get("user", sender)
        return MailAccount(url.hostname or "", url.port or 0, security, sender, receivers, user)

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.secret_file and self.secret_env:
            raise ValueError("has both secret_file and secret_env: set only one of them")
        if self.secret_file and not self.secret_file.startswith(("/", "~")):
            raise ValueError("secret_file must be absolute: a schedule may run in another folder")
        if self.is_reference and self.kind != "apprise":
            self._check_reference()
            return self
        {
            "webhook": self._check_webhook,
            "email": self._check_email,
            "command": self._check_command,
            "apprise": self._check_apprise,
        }[self.kind]()
        return self

    def _check_reference(self) -> None:
        kind, _, place = self.to.partition(":")
        if kind == "env" and not re.fullmatch(_VARIABLE, place):
            raise ValueError("`to` needs the name of an environment variable after env:")
        if kind == "file" and not place.startswith(("/", "~")):
            raise ValueError("`to` needs an absolute path after file:")

    def _check_webhook(self) -> None:
        _split(self.to, ("http", "https"), "a webhook")

    def _check_email(self) -> None:
        mail = self.mail
        is_local = mail.host in ("localhost", "127.0.0.1", "::1")
        if self.has_secret and mail.security == "insecure" and not is_local:
            raise ValueError(
                "would send the password without encryption: remove tls=none from `to`"
            )

    def _check_command(self) -> None:
        try:
            words = shlex.split(self.to)
        except ValueError as error:
            raise ValueError(f"`to` is not a valid command line: {error}") from None
        if not words:
            raise ValueError("a command needs a command line in `to`, such as /usr/bin/logger -t x")
        if self.has_secret:
            raise ValueError("a command receives no secret: let the command read its own secret")

    def _check_apprise(self) -> None:
        if self.to or not self.has_secret:
            raise ValueError("apprise needs secret_file or secret_env with its URL, and no `to`")


def _split(url: str, schemes: tuple[str, str], what: str) -> SplitResult:
    """Return the parsed URL.

    Raises:
        ValueError: the URL is invalid. The message does not quote it, because a path may be secret.
    """
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError:
        raise ValueError(
            f"`to` of {what} is not a URL: its host or port cannot be parsed"
        ) from None
    if parts.scheme not in schemes or not parts.hostname or not has_port:
        raise ValueError(f"{what} needs {schemes[0]}://HOST or {schemes[1]}://HOST in `to`")
    if parts.username is not None:
        raise ValueError(
            "`to` names a user before the host: remove it, and set secret_file instead"
        )
    return parts


class NotifyConfig(Section):
    """Receivers of notifications; a failed target is logged, and has no other effect.

    targets: in the order in which they are notified.
    """

    targets: tuple[Target, ...] = ()
