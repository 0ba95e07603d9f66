"""A POST of JSON, signed.

By requests, not by apprise: what a receiver checks is the signature over the very bytes of the
body, and apprise's own webhook neither signs nor lets its caller see the bytes it sends. Its
decorator for plugins of one's own would only wrap the same POST.

X-Regraft-Signature: sha256=HEX    HMAC-SHA256 of the body; absent where the target has no secret
X-Regraft-Delivery: HEX            the body's delivery_id; the same in every try
"""

import hashlib
import hmac
import time
from dataclasses import dataclass

import regraft
from regraft.core.config import Target
from regraft.operations.notify.message import Message

N_TRIES = 3  # guess: a receiver that restarts is back after a second
_FIRST_WAIT_S = 0.5  # before the second try, twice that before the third; guess
_AGAIN = (408, 429)  # and every 5xx: it may be otherwise in a moment


@dataclass(frozen=True)
class _Try:
    """Why it failed, "" if it did not, and whether another try makes sense."""

    why: str
    again: bool = False


def signature(secret: str, body: bytes) -> str:
    """What X-Regraft-Signature says of a body; compare it with hmac.compare_digest.

    >>> signature("key", b"{}")[:16]
    'sha256=a777724d9'
    """
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def post(target: Target, secret: str, message: Message) -> str:
    """Posts the message; why it could not be delivered, "" if it was.

    Args:
        target: all its tries together take timeout_s.
        secret: the key of the signature, "" for none.
    """
    body = message.payload()
    until = time.monotonic() + target.timeout_s
    wait_s = _FIRST_WAIT_S
    for number in range(1, N_TRIES + 1):
        tried = _once(target.to, body, _headers(secret, message, body), until - time.monotonic())
        is_over = number == N_TRIES or time.monotonic() + wait_s >= until
        if not tried.why or not tried.again or is_over:
            return f"{tried.why} ({number} tries)" if tried.why and number > 1 else tried.why
        time.sleep(wait_s)
        wait_s *= 2
    raise AssertionError("the last try returns")


def _headers(secret: str, message: Message, body: bytes) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"regraft/{regraft.__version__}",
        "X-Regraft-Delivery": message.delivery_id,
    }
    return headers | ({"X-Regraft-Signature": signature(secret, body)} if secret else {})


def _once(url: str, body: bytes, headers: dict[str, str], left_s: float) -> _Try:
    import requests

    try:
        # No redirect: what was signed is for this receiver. The do-nothing auth keeps requests from
        # sending what a ~/.netrc says of the host.
        answer = requests.post(
            url,
            data=body,
            headers=headers,
            timeout=left_s,
            allow_redirects=False,
            stream=True,
            auth=lambda request: request,
        )
    except requests.Timeout:
        return _Try("no answer in time", again=True)
    except requests.exceptions.SSLError:
        return _Try("its certificate is not trusted")
    except requests.ConnectionError:
        return _Try("no connection", again=True)
    except (requests.RequestException, ValueError) as error:  # its text would tell the URL
        return _Try(f"it cannot be asked ({type(error).__name__})")
    answer.close()
    code = answer.status_code
    if answer.ok and not answer.is_redirect and code < 300:
        return _Try("")
    return _Try(f"it answered {code}", again=code >= 500 or code in _AGAIN)
