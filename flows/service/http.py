"""Questions to the servers of this machine, over HTTP as their users ask them."""

import json
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

_TIMEOUT_S = 5


def ask(url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
    """An answer in JSON; see `request`."""
    return json.loads(request(url, body, headers))


def request(url: str, body: Any = None, headers: Mapping[str, str] | None = None, method: str | None = None) -> bytes:
    """An answer as it is.

    Args:
        url: of a server on loopback.
        body: bytes, or what is sent as JSON; None for a GET.
        headers: such as a token.
        method: another than GET or POST.

    Raises:
        OSError: no answer within five seconds, or one that is an error.
    """
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = {} if data is None or data is body else {"Content-Type": "application/json"}
    asked = urllib.request.Request(url, data=data, headers={**kind, **(headers or {})}, method=method)  # noqa: S310
    # A proxy of the environment must not be asked for this machine's own loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=_TIMEOUT_S) as response:
            return bytes(response.read())
    except HTTPException as error:  # such as an answer that is cut short
        raise OSError(f"{type(error).__name__}: {error}") from error
