"""Which requests a server of ours answers, by their headers alone."""

import asyncio
import base64
from typing import Any

import pytest

from flows.service.guard import Guard

_TOKEN = "a" * 64


def _basic(words: str) -> bytes:
    return b"Basic " + base64.b64encode(words.encode())


def _answer(
    headers: list[tuple[bytes, bytes]], *, kind: str = "http", password: str | None = _TOKEN
) -> list[dict[str, Any]]:
    """What is sent to somebody who comes with these headers; an answered request gets 200, a socket is accepted."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200} if kind == "http" else {"type": "websocket.accept"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request" if kind == "http" else "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(Guard(app, password)({"type": kind, "headers": headers}, receive, send))
    return sent


_HOST = (b"host", b"127.0.0.1:5000")
_MINE = (b"authorization", _basic(f"pairflow:{_TOKEN}"))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([_HOST, _MINE], 200),
        ([(b"host", b"localhost:5000"), _MINE], 200),
        ([(b"host", b"[::1]:5000"), _MINE], 200),
        ([(b"host", b"localhost"), _MINE, (b"origin", b"http://localhost")], 200),
        ([(b"host", b"localhost"), _MINE, (b"origin", b"https://localhost")], 403),  # port 443
        ([_HOST, _MINE, (b"origin", b"http://127.0.0.1:5000")], 200),
        ([_HOST, _MINE, (b"origin", b"http://localhost:5000")], 200),
        ([_HOST, (b"authorization", _basic(f":{_TOKEN}"))], 200),
        # No credential, or none that fits.
        ([_HOST], 401),
        ([_HOST, (b"authorization", b"")], 401),
        ([_HOST, (b"authorization", b"Basic")], 401),
        ([_HOST, (b"authorization", b"Basic !!!!")], 401),
        ([_HOST, (b"authorization", b"Basic \xff\xfe")], 401),
        ([_HOST, (b"authorization", _basic("pairflow:"))], 401),
        ([_HOST, (b"authorization", _basic(_TOKEN))], 401),
        ([_HOST, (b"authorization", _basic(f"pairflow:{_TOKEN[:-1]}"))], 401),
        ([_HOST, (b"authorization", _basic(f"pairflow:{_TOKEN}a"))], 401),
        ([_HOST, (b"authorization", _basic(f"pairflow:{_TOKEN}\0"))], 401),
        ([_HOST, (b"authorization", _basic(f"{_TOKEN}:pairflow"))], 401),
        ([_HOST, (b"authorization", f"Bearer {_TOKEN}".encode())], 401),
        ([_HOST, (b"authorization", b"Basic eA=="), _MINE], 401),  # two of them
        # A name of elsewhere that leads here.
        ([_MINE], 403),
        ([(b"host", b""), _MINE], 403),
        ([(b"host", b"evil.example:5000"), _MINE], 403),
        ([(b"host", b"127.0.0.1.evil.example:5000"), _MINE], 403),
        ([(b"host", b"localhost.:5000"), _MINE], 403),
        ([(b"host", b"localhost@evil.example:5000"), _MINE], 403),
        ([(b"host", b"evil.example@127.0.0.1:5000"), _MINE], 403),
        ([(b"host", b"192.168.0.7:5000"), _MINE], 403),
        ([(b"host", b"0.0.0.0:5000"), _MINE], 403),
        ([(b"host", b"127.0.0.1:port"), _MINE], 403),
        ([(b"host", b"[::1:5000"), _MINE], 403),
        ([(b"host", b"\xff"), _MINE], 403),
        ([_HOST, (b"host", b"evil.example"), _MINE], 403),
        # A page of elsewhere, in the browser of who has signed in.
        ([_HOST, _MINE, (b"origin", b"http://evil.example")], 403),
        ([_HOST, _MINE, (b"origin", b"http://evil.example:5000")], 403),
        ([_HOST, _MINE, (b"origin", b"http://127.0.0.1:5000.evil.example")], 403),
        ([_HOST, _MINE, (b"origin", b"http://127.0.0.1:9999")], 403),  # another program's, perhaps another user's
        ([_HOST, _MINE, (b"origin", b"http://127.0.0.1")], 403),
        ([_HOST, _MINE, (b"origin", b"null")], 403),
        ([_HOST, _MINE, (b"origin", b"")], 403),
        ([_HOST, _MINE, (b"origin", b"http://127.0.0.1:5000"), (b"origin", b"http://evil.example")], 403),
    ],
)
def test_who_is_answered(headers: list[tuple[bytes, bytes]], status: int) -> None:
    sent = _answer(headers)
    assert sent[0]["status"] == status
    assert (b"www-authenticate" in dict(sent[0].get("headers", ()))) == (status == 401)
    assert _TOKEN.encode() not in repr(sent).encode()


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ([_HOST], "websocket.accept"),  # Prefect's sockets ask by themselves, in their first message
        ([_HOST, (b"origin", b"http://127.0.0.1:5000")], "websocket.accept"),
        ([_HOST, (b"origin", b"http://evil.example")], "websocket.close"),
        ([(b"host", b"evil.example")], "websocket.close"),
    ],
)
def test_which_sockets_are_opened(headers: list[tuple[bytes, bytes]], kind: str) -> None:
    assert [each["type"] for each in _answer(headers, kind="websocket", password=None)] == [kind]


def test_one_that_asks_by_itself_is_guarded_from_pages_of_elsewhere() -> None:
    assert _answer([_HOST], password=None)[0]["status"] == 200
    assert _answer([_HOST, (b"origin", b"http://evil.example")], password=None)[0]["status"] == 403
