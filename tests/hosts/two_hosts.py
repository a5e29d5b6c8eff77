"""Two machines that share no disk, on one: network namespaces with a link between them, and mounts of their own.

A process of a host sees the code and its own folder; the other host's folder is empty to it, and so is /dev/shm. What
is started is ended by its process id, and a namespace when its last process has ended.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_NETWORK = "10.203.77"
# Its arguments: folders to hide, "--", a command.
_HIDE = """
mount --make-rprivate / && mount -t tmpfs tmpfs /dev/shm
while [ "$1" != -- ]; do mount -t tmpfs -o ro tmpfs "$1" || exit 1; shift; done
shift; exec "$@"
"""


def obstacle() -> str | None:
    """Why there can be no two hosts here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [each for each in ("ip", "unshare", "mount") if shutil.which(each) is None]:
        return f"there is no {', no '.join(missing)} (iproute2, util-linux)"
    name = f"pf-try-{os.getpid()}"
    for command in (["ip", "netns", "add", name], ["ip", "netns", "delete", name]):
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        if tried.returncode:
            return f"no network namespaces here: {tried.stderr.strip()}"
    return None


@dataclass
class Host:
    """One machine.

    Attributes:
        name: of its network namespace.
        address: that others reach it by.
        folder: that it alone sees, with its homes.
        hidden: the folders of the others.
    """

    name: str
    address: str
    folder: Path
    hidden: tuple[Path, ...]
    logs: Path
    _started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def command(self, *words: object) -> list[str]:
        """A command as it is run on this host."""
        inside = ["ip", "netns", "exec", self.name, "unshare", "--mount", "sh", "-c", _HIDE, "sh"]
        return [*inside, *map(str, self.hidden), "--", *map(str, words)]

    def start(self, log: str, words: Sequence[object], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Starts a program, its output in a file."""
        with (self.logs / f"{log}.log").open("ab") as output:
            started = subprocess.Popen(
                self.command(*words), env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder
            )
        self._started.append(started)
        return started

    def processes(self) -> list[psutil.Process]:
        """All that live on it."""
        told = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True).stdout
        found = []
        for each in told.split():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(each)))
        return found

    def end(self) -> None:
        """Ends whatever lives on it."""
        for stop in (psutil.Process.terminate, psutil.Process.kill):
            for each in self.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    stop(each)
            psutil.wait_procs(self.processes(), timeout=5)
        for started in self._started:
            started.wait(15)


class Hosts:
    """Two hosts and the cable between them."""

    def __init__(self, first: Host, second: Host) -> None:
        self.first, self.second = first, second

    def cut(self) -> None:
        """Pulls the cable out of the second host."""
        _ip("-n", self.second.name, "link", "set", "cable", "down")

    def mend(self) -> None:
        """Puts it back."""
        _ip("-n", self.second.name, "link", "set", "cable", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[Hosts]:
    """Two hosts, whose folders and logs lie below `folder`; all that they run ends with the block."""
    names = [f"pf-{os.getpid()}-{each}" for each in ("a", "b")]
    folders = [folder / each for each in ("a", "b")]
    for each in folders:
        each.mkdir()
    hosts = Hosts(
        Host(names[0], f"{_NETWORK}.1", folders[0], (folders[1],), folder),
        Host(names[1], f"{_NETWORK}.2", folders[1], (folders[0],), folder),
    )
    try:
        for each in names:
            _ip("netns", "add", each)
            _ip("-n", each, "link", "set", "lo", "up")
        _ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for host in (hosts.first, hosts.second):
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "cable")
            _ip("-n", host.name, "link", "set", "cable", "up")
        yield hosts
    finally:
        for host in (hosts.second, hosts.first):
            if host.name in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout:
                host.end()
                _delete(host.name)


def _delete(name: str, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the network namespace {name} cannot be deleted")
        time.sleep(0.2)
