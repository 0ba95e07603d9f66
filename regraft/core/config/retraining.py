"""The sections about what runs by itself: when to retrain, what drift is, whom to tell."""

import shlex
from dataclasses import dataclass
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import Field, model_validator

from regraft.core.config.section import Fraction, Section, Url

Happening = Literal["promoted", "kept", "waiting", "skipped", "failed", "drift"]


class RetrainConfig(Section):
    """When it is time to train again, and what the training starts from.

    start: champion = the network that serves (warm); pretrained = the source task's (cold); auto =
        the champion's, unless the validation photos show that the pretrained one is better.
    min_changed_fraction: fewer photos added, removed or relabelled, as a share of those that the
        last model was trained on, are not worth a training. Guess.
    max_age_days: a champion that is older is trained again for any change; 0 = no age is too old.
    budget_h: hours that trainings may take in any seven days; the next is put off when it would
        pass them; 0 = no limit.
    interpolations: weights between champion (0) and challenger (1) that are tried besides the
        challenger's own, each in (0, 1); the most accurate on validation that keeps
        promote.max_negative_flips is taken. Empty = none. Source: Wortsman et al. 2022 try 0 to 1.
    journal_url: folder where every decision to train or not is written down.
    """

    start: Literal["champion", "pretrained", "auto"] = "auto"
    min_changed_fraction: Fraction = 0.01
    max_age_days: Annotated[float, Field(ge=0.0)] = 0.0
    budget_h: Annotated[float, Field(ge=0.0)] = 0.0
    interpolations: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = (0.25, 0.5, 0.75)
    journal_url: Url = ""


class DriftConfig(Section):
    """When new photos are said to be of another kind than those that the champion learned from.

    level: chance of a false alarm in one look at new photos, all tests together, in (0, 0.5), if
        the photos were taken independently of each other. Of near copies
        (split.near_duplicate_bits) and of a group one counts; other series set off more. Guess: one
        in a hundred, about once in two years of weekly looks.
    n_reference: photos whose embeddings travel with a model, in [50, 5000]. Guess: 2.5 MB (lite0).
    n_permutations: of the two-sample test; at least 1 / level are needed. Guess.
    min_photos: fewer new photos decide nothing, >= 5. Guess.
    n_gallery: photos shown in the report, in [0, 60].
    """

    level: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.01
    n_reference: Annotated[int, Field(ge=50, le=5000)] = 1000
    n_permutations: Annotated[int, Field(ge=100, le=100_000)] = 2000
    min_photos: Annotated[int, Field(ge=5)] = 20
    n_gallery: Annotated[int, Field(ge=0, le=60)] = 12

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        # Holm's correction divides the level among a handful of tests.
        if self.n_permutations * self.level < 10:
            raise ValueError(
                f"drift.n_permutations={self.n_permutations} cannot show anything at drift.level="
                f"{self.level:g}: set at least {10 / self.level:.0f}"
            )
        return self


class BatchConfig(Section):
    """How many photos are labelled at once.

    shard_photos: of one step, in [1, 100000]. Guess: a minute's work on two cores.
    n_parallel: steps at a time, >= 1: threads of one machine, which take turns at the network, or
        pods.
    """

    shard_photos: Annotated[int, Field(ge=1, le=100_000)] = 5000
    n_parallel: Annotated[int, Field(ge=1, le=64)] = 1


@dataclass(frozen=True)
class MailAccount:
    """What the address of an e-mail target says.

    security: ssl = TLS from the first byte; starttls = before anything is said; insecure = none.
    port: 0 = the usual one of that security.
    user: who logs in, where the target has a secret.
    """

    host: str
    port: int
    security: Literal["ssl", "starttls", "insecure"]
    sender: str
    receivers: tuple[str, ...]
    user: str


class Target(Section):
    """Who is told, and of what.

    kind: webhook = POST of JSON to the http(s) URL `to`; email = SMTP, to =
        smtp://HOST[:PORT]/?from=A&to=B[,C][&user=U][&tls=none] (STARTTLS unless tls=none) or
        smtps:// (TLS at once); command = the command line `to`, run without a shell, with the
        happening as JSON on its standard input; apprise = any other service, its whole URL being
        the secret.
    of: which happenings. Not "on", which YAML reads as true.
    secret_file, secret_env: where the secret is read when it is needed: the key of a webhook's
        HMAC, the password of a mail account, an apprise URL. Never the secret itself. The file's
        path is absolute, or begins with ~, because a schedule may run in another folder.
    timeout_s: seconds before a target counts as failed, tries and all, in (0, 300]. Guess.
    """

    kind: Literal["webhook", "email", "command", "apprise"]
    to: Url = ""
    of: Annotated[tuple[Happening, ...], Field(min_length=1)] = (
        *("promoted", "kept", "waiting", "failed", "drift"),
    )
    secret_file: str = ""
    secret_env: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    timeout_s: Annotated[float, Field(gt=0.0, le=300.0)] = 10.0

    @property
    def has_secret(self) -> bool:
        """Whether there is one to be read."""
        return bool(self.secret_file or self.secret_env)

    @property
    def mail(self) -> MailAccount:
        """The address of an e-mail target, taken apart."""
        url = _split(self.to, ("smtp", "smtps"), "an e-mail target")
        said = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if unknown := sorted(said.keys() - {"from", "to", "user", "tls"}):
            raise ValueError(f"{unknown[0]} means nothing in `to`: known are from, to, user, tls")
        receivers = tuple(one.strip() for one in said.get("to", "").split(",") if one.strip())
        sender = said.get("from", "")
        if not receivers or not all("@" in one for one in (sender, *receivers)):
            raise ValueError("`to` needs addresses: smtp://HOST/?from=me@here.org&to=you@there.org")
        if said.get("tls", "none") != "none":
            raise ValueError("tls in `to` can only be none; leave it out for STARTTLS")
        plain: Literal["starttls", "insecure"] = "insecure" if "tls" in said else "starttls"
        security = "ssl" if url.scheme == "smtps" else plain
        user = said.get("user", sender)
        return MailAccount(url.hostname or "", url.port or 0, security, sender, receivers, user)

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        if self.secret_file and self.secret_env:
            raise ValueError("has both secret_file and secret_env: name one of them")
        if self.secret_file and not self.secret_file.startswith(("/", "~")):
            raise ValueError("secret_file must be absolute: a schedule may run in another folder")
        {
            "webhook": self._check_webhook,
            "email": self._check_email,
            "command": self._check_command,
            "apprise": self._check_apprise,
        }[self.kind]()
        return self

    def _check_webhook(self) -> None:
        _split(self.to, ("http", "https"), "a webhook")

    def _check_email(self) -> None:
        mail = self.mail
        is_here = mail.host in ("localhost", "127.0.0.1", "::1")
        if self.has_secret and mail.security == "insecure" and not is_here:
            raise ValueError("would send the password in the clear: take tls=none out of `to`")

    def _check_command(self) -> None:
        try:
            words = shlex.split(self.to)
        except ValueError as error:
            raise ValueError(f"`to` is no command line: {error}") from None
        if not words:
            raise ValueError("a command needs a command line in `to`, such as /usr/bin/logger -t x")
        if self.has_secret:
            raise ValueError("a command is given no secret: let it read its own")

    def _check_apprise(self) -> None:
        if self.to or not self.has_secret:
            raise ValueError("apprise needs secret_file or secret_env with its URL, and no `to`")


def _split(url: str, schemes: tuple[str, str], what: str) -> SplitResult:
    """The URL in parts; the texts quote nothing of it, because a path may be a secret."""
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError:
        raise ValueError(f"`to` of {what} is no URL: its host or port cannot be read") from None
    if parts.scheme not in schemes or not parts.hostname or not has_port:
        raise ValueError(f"{what} needs {schemes[0]}://HOST or {schemes[1]}://HOST in `to`")
    if parts.username is not None:
        raise ValueError("`to` names a user before the host: take it out, give secret_file instead")
    return parts


class NotifyConfig(Section):
    """Who is told of what happened; a target that fails is said so, and nothing else fails.

    targets: in the order in which they are told.
    """

    targets: tuple[Target, ...] = ()
