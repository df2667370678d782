"""HTTP requests of rewards: bounded in time and size, without redirects, with a key from the environment."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from motet.core.errors import ConfigError, RewardError
from motet.rewards.waiting import run_on_thread


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Do not follow redirects: urllib would send the key to the new address."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def authorization(variable: str | None, key: str, name: str) -> dict[str, str]:
    """The header with the key that an environment variable holds; empty without a variable.

    Raises ConfigError, naming the key that names the variable, and whose it is, when the variable is not set.
    """
    if variable is None:
        return {}
    secret = os.environ.get(variable)
    if not secret:
        raise ConfigError(
            f"{key}={variable!r} of {name!r} is not set.",
            fix=f"export {variable}=KEY, or remove {key.rpartition('.')[2]} if the server needs no key.",
        )
    return {"Authorization": f"Bearer {secret}"}


def fetch(
    url: str, body: bytes | None, headers: Mapping[str, str], *, timeout: float, largest: int, too_large: str
) -> bytes:
    """The whole reply to one request: POST with a body, else GET.

    Raises TimeoutError after `timeout` seconds, RewardError for a reply of more than `largest` bytes (`too_large` is
    the fix), HTTPError for a status other than 2xx, OSError without a connection, and HTTPException for a reply that
    is cut off.
    """
    request = urllib.request.Request(url, body, dict(headers), method="GET" if body is None else "POST")
    try:
        return run_on_thread(lambda: _reply(request, timeout, largest, too_large), timeout)
    except TimeoutError:  # of the thread, or of the socket, whichever is first
        raise TimeoutError(f"no whole reply within {timeout:g} s") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError(f"no connection within {timeout:g} s") from None
        raise


def _reply(request: urllib.request.Request, timeout: float, largest: int, too_large: str) -> bytes:
    """The reply's bytes. `timeout` is how long the server may be silent, and the limit of the whole body: a server that
    sends a byte now and then does not block the thread without end."""
    began = time.monotonic()
    with _OPENER.open(request, timeout=timeout) as response:
        raw = b""
        while part := response.read1(1 << 16):
            raw += part
            if len(raw) > largest:
                raise RewardError(f"The reply of {request.host} is longer than {largest:,} bytes.", fix=too_large)
            if time.monotonic() - began > timeout:
                raise TimeoutError(f"no whole reply within {timeout:g} s")
    if response.length:  # http.client tells what is missing, and `read1` does not
        raise http.client.IncompleteRead(raw, response.length)
    return raw


def is_temporary(error: urllib.error.HTTPError) -> bool:
    """Whether the server rejects the request for now only."""
    return error.code in (408, 429) or error.code >= 500
