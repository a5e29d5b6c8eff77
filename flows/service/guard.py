"""Who may speak to a server: pages of its own, by a name of this machine; and who has its password, if it has one.

A loopback address keeps other machines out, but neither the other users of this one nor the web pages in a browser on
it. A page of somewhere else names its own Origin or, where its name was made to lead here (DNS rebinding), its own
Host; a page of another program of this machine has another port. None of them is answered.
"""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
App = Callable[[_Message, _Receive, _Send], Awaitable[None]]
"""An ASGI application."""

_NAMES = ("127.0.0.1", "localhost", "::1")
_POLICY_VIOLATION = 1008
_ASKS = (b"www-authenticate", b'Basic realm="PairFlow: what pairflow token prints", charset="UTF-8"')


class Guard:
    """An ASGI application that hands on to another what may come in, HTTP and web sockets alike.

    Args:
        app: what is guarded.
        password: that HTTP's basic authentication must bring, for any user; None where `app` asks by itself.
    """

    def __init__(self, app: App, password: str | None = None) -> None:
        self._app = app
        self._password = None if password is None else password.encode()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope["headers"])
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()  # the request to connect, which a server wants taken before the answer
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            status, reason = refusal
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            headers += [_ASKS] if status == HTTPStatus.UNAUTHORIZED else []
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": f"{reason}\n".encode()})

    def _refusal(self, headers: list[tuple[bytes, bytes]]) -> tuple[HTTPStatus, str] | None:
        hosts, origins, given = (
            [value for name, value in headers if name == wanted] for wanted in (b"host", b"origin", b"authorization")
        )
        at = _place(b"//" + hosts[0]) if len(hosts) == 1 else None
        if at is None:
            return HTTPStatus.FORBIDDEN, "This server answers to 127.0.0.1 and localhost only."
        if any(_place(each) != at for each in origins):
            return HTTPStatus.FORBIDDEN, "This server answers its own pages only."
        if self._password is not None and not (
            len(given) == 1 and hmac.compare_digest(_word(given[0]), self._password)
        ):
            return HTTPStatus.UNAUTHORIZED, "Sign in as pairflow, with what `pairflow token` prints as the password."
        return None


def _place(url: bytes) -> int | None:
    """The port of a URL on this machine, by any of its names; None for one of elsewhere, or that is none."""
    try:
        parts = urlsplit(url.decode("ascii"))
        if parts.hostname not in _NAMES or parts.username is not None:
            return None
        return parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None


def _word(authorization: bytes) -> bytes:
    """The password of basic authentication; empty where there is none."""
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
