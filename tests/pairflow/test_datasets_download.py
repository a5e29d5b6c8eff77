"""Downloads against a real HTTP server on this machine: whole, interrupted, resumed, wrong, refused."""

import hashlib
import http.server
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pairflow.datasets import download
from pairflow.datasets.download import RemoteFile, fetch
from pairflow.errors import DatasetError

CONTENT = np.random.Generator(np.random.PCG64(0)).bytes(700_000)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; breaks off after `cut` bytes of each of the first `num_cuts` answers."""

    content = CONTENT
    ranges = True
    cut = 300_000
    num_cuts = 0
    status: int | None = None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str | None] = []

    def handle_error(self, request, client_address):
        """A client that went away is part of these tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.requests.append(wanted)
        if server.status:
            self.send_error(server.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.num_cuts > 0:
            server.num_cuts -= 1
            body = body[: server.cut]
        self.wfile.write(body)

    def log_message(self, *args):
        """Silent."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "_PAUSES_S", (0.01, 0.01))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def remote(server):
    return RemoteFile("data.bin", f"http://127.0.0.1:{server.server_port}/some/data.bin", CHECKSUM)


def files(folder):
    return {path.name for path in folder.iterdir()} - {"data.bin.lock"}


def test_download_once(tmp_path, server, remote):
    for _ in range(2):
        path = fetch(remote, tmp_path / "new" / "folder", progress=False)
        assert path.read_bytes() == CONTENT
    assert server.requests == [None]
    assert files(path.parent) == {"data.bin"}


def test_a_transfer_that_breaks_off_goes_on_by_itself(tmp_path, server, remote, caplog):
    server.num_cuts = 2
    assert fetch(remote, tmp_path, progress=False).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=600000-"]
    assert "broke off" in caplog.text
    assert files(tmp_path) == {"data.bin"}


def test_a_later_call_goes_on_where_the_last_one_stopped(tmp_path, server, remote):
    server.num_cuts, server.cut = 3, 100_000
    with pytest.raises(
        DatasetError, match=r"could not be downloaded .*broke off.*as data\.bin and set PAIRFLOW_DATA_DIR"
    ):
        fetch(remote, tmp_path, progress=False)
    assert files(tmp_path) == {"data.bin.pairflow-part"}
    assert (tmp_path / "data.bin.pairflow-part").read_bytes() == CONTENT[:300_000]
    assert fetch(remote, tmp_path, progress=False).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]
    assert files(tmp_path) == {"data.bin"}


def test_a_server_that_ignores_range_sends_all_again(tmp_path, server, remote):
    server.ranges, server.num_cuts = False, 1
    assert fetch(remote, tmp_path, progress=False).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-"]


def test_a_whole_part_only_has_to_be_checked(tmp_path, server, remote):
    (tmp_path / "data.bin.pairflow-part").write_bytes(CONTENT)
    assert fetch(remote, tmp_path, progress=False).read_bytes() == CONTENT
    assert server.requests == ["bytes=700000-"]


@pytest.mark.parametrize("part", [b"\0" * 1000, b"\0" * 900_000])
def test_a_part_of_another_file_is_thrown_away(tmp_path, server, remote, part):
    (tmp_path / "data.bin.pairflow-part").write_bytes(part)
    assert fetch(remote, tmp_path, progress=False).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(part)}-", None]


def test_wrong_checksum_leaves_nothing(tmp_path, server, remote):
    server.content = b"<html>please log in</html>"
    with pytest.raises(DatasetError, match="is not the published file, and nothing was kept") as caught:
        fetch(remote, tmp_path, progress=False)
    assert remote.url in str(caught.value)
    assert CHECKSUM.removeprefix("sha256:") in str(caught.value)
    assert hashlib.sha256(server.content).hexdigest() in str(caught.value)
    assert files(tmp_path) == set()


def test_md5_checksums(tmp_path, remote):
    md5 = hashlib.md5(CONTENT).hexdigest()  # noqa: S324 - as some publishers state it
    known = RemoteFile(remote.name, remote.url, f"md5:{md5}")
    assert fetch(known, tmp_path, progress=False).read_bytes() == CONTENT


def test_another_file_of_that_name_in_the_cache_is_kept(tmp_path, remote):
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])
    (tmp_path / "data.bin.part").write_bytes(b"a browser's")
    assert fetch(remote, tmp_path, progress=False).read_bytes() == CONTENT
    (kept,) = tmp_path.glob("data.bin.not-as-published-*")
    assert kept.read_bytes() == CONTENT[:-1]
    assert (tmp_path / "data.bin.part").read_bytes() == b"a browser's"


@pytest.mark.parametrize("status", [403, 404, 503])
def test_refused(tmp_path, server, remote, status):
    server.status = status
    with pytest.raises(DatasetError, match=rf"could not be downloaded \({status} .*set PAIRFLOW_DATA_DIR"):
        fetch(remote, tmp_path, progress=False)
    assert len(server.requests) == 1
    assert files(tmp_path) == set()


def test_no_network(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        remote = RemoteFile("data.bin", f"http://127.0.0.1:{unused.getsockname()[1]}/data.bin", CHECKSUM)
        with pytest.raises(DatasetError, match="could not be downloaded"):
            fetch(remote, tmp_path, progress=False)
    assert files(tmp_path) == set()


def test_a_cache_that_cannot_be_written(tmp_path, remote):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"data\.bin cannot be stored in .*file"):
        fetch(remote, tmp_path / "file", progress=False)


def test_four_at_once_download_once(tmp_path, server, remote):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(remote, tmp_path, progress=False), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(server.requests) == 1


def test_progress_is_shown_unless_switched_off(tmp_path, remote, capfd, caplog):
    caplog.set_level(logging.INFO)
    fetch(remote, tmp_path / "a", progress=False)
    assert capfd.readouterr().err == ""
    assert f"downloading {remote.url}" in caplog.text
    fetch(remote, tmp_path / "b", progress=True)
    shown = capfd.readouterr().err
    assert "data.bin" in shown
    assert "100%" in shown
