"""A webhook: a signed POST of JSON.

Uses requests and not apprise, because the signature is over the exact bytes of the body: apprise's
own webhook does not sign, and does not expose the bytes that it sends. A custom apprise plugin
would only wrap the same POST.

X-Regraft-Signature: sha256=HEX    HMAC-SHA256 of the body; absent if the target has no secret
X-Regraft-Delivery: HEX            the body's delivery_id; the same for each retry
"""

import hashlib
import hmac
import time
from dataclasses import dataclass

import regraft
from regraft.core.config import Target
from regraft.operations.notify.message import Message

N_TRIES = 3  # guess: a receiver that restarts is available again after a second
_FIRST_WAIT_S = 0.5  # before the second try, doubled before the third; guess
_RETRIED_CODES = (408, 429)  # and every 5xx: the cause is often temporary


@dataclass(frozen=True)
class _PostResult:
    """The result of a POST: why it failed, "" if it succeeded, and whether to retry."""

    why: str
    should_retry: bool = False


def signature(secret: str, body: bytes) -> str:
    """Return the value of X-Regraft-Signature; compare it with hmac.compare_digest.

    >>> signature("key", b"{}")[:16]
    'sha256=a777724d9'
    """
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def post(target: Target, secret: str, message: Message) -> str:
    """Post the message and return why the delivery failed, "" if it succeeded.

    Args:
        target: timeout_s limits all tries together.
        secret: the key of the signature, "" for no signature.
    """
    body = message.payload()
    until = time.monotonic() + target.timeout_s
    wait_s = _FIRST_WAIT_S
    for number in range(1, N_TRIES + 1):
        headers = _headers(secret, message, body)
        result = _post_once(target.to, body, headers, until - time.monotonic())
        is_last = number == N_TRIES or time.monotonic() + wait_s >= until
        if not result.why or not result.should_retry or is_last:
            return f"{result.why} ({number} tries)" if result.why and number > 1 else result.why
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


def _post_once(url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> _PostResult:
    import requests

    try:
        # No redirects, because the signed message is for this receiver only. The auth function
        # does nothing; without it, requests would send the credentials of ~/.netrc.
        response = requests.post(
            url,
            data=body,
            headers=headers,
            timeout=timeout_s,
            allow_redirects=False,
            stream=True,
            auth=lambda request: request,
        )
    except requests.Timeout:
        return _PostResult("no answer in time", should_retry=True)
    except requests.exceptions.SSLError:
        return _PostResult("the certificate is not trusted")
    except requests.ConnectionError:
        return _PostResult("no connection", should_retry=True)
    except (requests.RequestException, ValueError) as error:  # its text contains the URL
        return _PostResult(f"the request failed ({type(error).__name__})")
    response.close()
    code = response.status_code
    if response.ok and not response.is_redirect and code < 300:
        return _PostResult("")
    return _PostResult(f"it answered {code}", should_retry=code >= 500 or code in _RETRIED_CODES)
