"""Free ports of loopback for servers that tests start, and start again after a while."""

import itertools
import os
import secrets
import socket
from collections.abc import Iterator

# Below 20,000 are the ports of Ray's workers, from 32,768 those that the kernel hands out to whoever connects or asks
# for any: a port of those that a server leaves for a second, or has not yet taken, may be somebody else's by then.
_FIRST, _COUNT, _WORKERS = 20_000, 12_000, 12


def _own() -> Iterator[int]:
    """Ports that no other pytest-xdist worker of this run asks for, from a chance place on."""
    share = _COUNT // _WORKERS
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    begin = secrets.randbelow(share)  # not of `random`, which pytest-randomly seeds alike
    for number in itertools.count(begin):
        yield _FIRST + worker * share + number % share


_PORTS = _own()


def free_port() -> int:
    """A port that nothing listens on and that was not handed out before."""
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("endless")
