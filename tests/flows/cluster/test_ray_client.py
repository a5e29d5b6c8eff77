"""The client of Ray's job server, in front of servers that hang or refuse."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flows.cluster import ray_client, submission
from flows.cluster.connection import UNREACHABLE, Cluster
from flows.cluster.ray_client import JobClient
from flows.home.settings import Settings
from pairflow.errors import JobFailedError


class _Head(ThreadingHTTPServer):
    """Answers with `status` until it `hangs`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status, self.hangs, self.over = 200, False, threading.Event()
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: _Head

    def do_GET(self) -> None:
        if self.server.hangs:
            self.server.over.wait(60)
        body = b'{"version": "4", "ray_version": "2", "ray_commit": "", "session_name": ""}'
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def head() -> Iterator[_Head]:
    with _Head() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.over.set()
        made.shutdown()
        thread.join()


def test_one_that_hangs_is_one_that_does_not_answer(head: _Head, monkeypatch: pytest.MonkeyPatch) -> None:
    client = JobClient(head.address)
    monkeypatch.setattr(ray_client, "_TIMEOUT_S", 0.2)
    head.hangs = True
    with pytest.raises(UNREACHABLE):
        client.get_job_status("a-job")
    assert not submission.stop(client, "a-job", timeout_s=1)  # and comes back


def test_one_that_wants_another_token_says_so(head: _Head) -> None:
    head.status = 401
    with pytest.raises(JobFailedError, match=f"{head.address} refuses this: .* RAY_AUTH_TOKEN") as refused:
        _ = Cluster(Settings(ray_address=head.address)).client
    assert "\n" not in str(refused.value)
