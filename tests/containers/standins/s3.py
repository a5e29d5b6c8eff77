"""moto's S3 with the command line of versitygw: keys are asked for, and what was put is there after a restart.

    s3.py --port :7070 --region us-east-1 --health /health posix /data

moto keeps objects in memory: every change is noted in the folder as well, and made again at the start.
"""

import argparse
import io
import os
import pickle
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.test import run_wsgi_app

_READS = ("GET", "HEAD", "OPTIONS")


class Gateway:
    """Lets in who signs with the key, and notes what changes something; the page of health is everybody's."""

    def __init__(self, key: str, health: str, notes: Path) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._key, self._health, self._notes = key, health, notes
        self._turn = threading.Lock()
        if notes.is_file():
            with notes.open("rb") as file:
                while file.peek(1):
                    self._do(*pickle.load(file))  # noqa: S301 - written below

    def _do(self, environment: dict[str, Any], body: bytes) -> tuple[Iterable[bytes], str, Any]:
        return run_wsgi_app(self._application, environment | {"wsgi.input": io.BytesIO(body)}, buffered=True)

    def __call__(self, environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environment["PATH_INFO"] == self._health:
            start("200 OK", [("Content-Length", "0")])
            return [b""]
        if f"Credential={self._key}/" not in environment.get("HTTP_AUTHORIZATION", ""):
            start("403 Forbidden", [("Content-Length", "0")])
            return [b""]
        if environment["REQUEST_METHOD"] in _READS:
            return self._application(environment, start)
        body = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        said = {name: value for name, value in environment.items() if isinstance(value, str)}
        said |= {"wsgi.url_scheme": "http"}
        with self._turn:
            answer, status, headers = self._do(environment, body)
            if status.startswith("2"):
                with self._notes.open("ab") as file:
                    pickle.dump((said, body), file)
        start(status, [*headers])
        return answer


def main() -> None:
    """Serves until it is told to end."""
    parser = argparse.ArgumentParser()
    for option in ("--port", "--region", "--health"):
        parser.add_argument(option, required=True)
    parser.add_argument("kind", choices=["posix"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    if not os.environ["ROOT_SECRET_ACCESS_KEY"]:
        raise SystemExit("no key")
    host, _, port = options.port.rpartition(":")
    gateway = Gateway(os.environ["ROOT_ACCESS_KEY_ID"], options.health, options.folder / "changes")
    run_simple(host or "0.0.0.0", int(port), gateway, threaded=True)  # noqa: S104


if __name__ == "__main__":
    main()
