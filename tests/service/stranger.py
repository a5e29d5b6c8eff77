"""Another user of this machine, as a program that root starts: it knows where the servers are, and holds no token.

Requests and paths come as JSON on standard input; what became of each goes out the same way.
"""

import encodings.idna  # noqa: F401 - while files of the owner's Python can be read
import http.client
import json
import os
import socket
import sys
from typing import Any

import websockets.sync.client
from websockets.exceptions import ConnectionClosed, InvalidStatus

NOBODY = 65_534


def _ask(request: dict[str, Any]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", request["port"], timeout=60)
    try:
        connection.request(request["method"], request["path"], request.get("body"), request.get("headers", {}))
        return connection.getresponse().status
    finally:
        connection.close()


def _talk(request: dict[str, Any]) -> str:
    """Tries to get something out of a web socket of Prefect's."""
    address = f"ws://127.0.0.1:{request['port']}{request['path']}"
    protocols = [websockets.Subprotocol("prefect")] if request["prefect"] else None
    try:
        with websockets.sync.client.connect(
            address, subprotocols=protocols, additional_headers=request["headers"], open_timeout=60, proxy=None
        ) as connection:
            for message in request["messages"]:
                connection.send(json.dumps(message))
            return f"answered: {connection.recv(timeout=60)!r}"
    except InvalidStatus as refusal:
        return f"refused: {refusal.response.status_code}"
    except ConnectionClosed:
        return "closed"


def _open(path: str) -> str:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return type(error).__name__
    return "opened"


def _connect(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(path)
        except OSError as error:
            return type(error).__name__
    return "connected"


def main() -> None:
    todo = json.load(sys.stdin)
    os.chdir(todo["home"])  # the folders above it may be closed as well: it is this one that is looked at
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    done = {
        "uid": os.getuid(),
        "asked": [_ask(each) for each in todo["asked"]],
        "talked": [_talk(each) for each in todo["talked"]],
        "opened": [_open(each) for each in todo["opened"]],
        "connected": [_connect(each) for each in todo["connected"]],
    }
    json.dump(done, sys.stdout)


if __name__ == "__main__":
    main()
