"""A real S3 server over HTTP, on loopback and a free port, for as long as a test session needs it."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3fs import S3FileSystem

from ..ports import free_port

ACCESS_KEY, SECRET_KEY = "ACCESSKEYOFTHETESTS", "secret/key+of+the+tests"


@contextmanager
def running(log: Path) -> Iterator[dict[str, str]]:
    """Runs moto's server; the environment with which a client finds it and gets in."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(url, server, log)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
    finally:
        S3FileSystem.clear_instance_cache()  # else the next server's tests would speak to this one's port
        server.terminate()
        server.wait(30)


def _wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/", timeout=5):  # noqa: S310 - http
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")
