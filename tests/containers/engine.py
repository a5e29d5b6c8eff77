"""The container engine of the tests: one that is there, or Docker's daemon started for them, with a root of its own."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Its own bridge would want an address that the machine's networks leave free; compose's networks are found such ones.
# Containers need no way out, so the machine is not made a router, as the daemon would by itself.
_DAEMON = ("--bridge=none", "--ip-forward=false")


class UnavailableError(Exception):
    """Why no engine can be used or started."""


class Engine:
    """The clients `docker` and compose, spoken to one daemon."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**environment, "DOCKER_BUILDKIT": "1"}
        self._docker = _client()
        plugin = self._run([self._docker, "compose", "version"], {}, check=False)
        compose = shutil.which("docker-compose")
        if plugin.returncode != 0 and compose is None:
            raise UnavailableError("no compose: apt-get install docker-compose, or Docker's plugin of that name")
        self._compose = [self._docker, "compose"] if plugin.returncode == 0 else [str(compose)]

    def _run(
        self,
        words: list[str],
        variables: Mapping[str, str],
        *,
        check: bool = True,
        timeout_s: float = 1800,
        **options: Any,
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            words,
            env=self._environment | dict(variables),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            **options,
        )
        assert not check or done.returncode == 0, f"{' '.join(words)}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done

    def docker(self, *words: object, check: bool = True, **options: Any) -> str:
        """What a command of `docker` prints, its standard error behind it."""
        done = self._run([self._docker, *map(str, words)], {}, check=check, **options)
        return done.stdout + done.stderr

    def compose(self, *words: object, variables: Mapping[str, str], check: bool = True) -> str:
        """What a command of compose prints."""
        done = self._run([*self._compose, *map(str, words)], variables, check=check)
        return done.stdout + done.stderr

    def inspect(self, *names: str) -> list[Any]:
        """What the daemon knows of containers or images."""
        return list(json.loads(self._run([self._docker, "inspect", *names], {}).stdout)) if names else []

    def has_image(self, name: str) -> bool:
        """Whether it is there, without asking a registry."""
        return self._run([self._docker, "image", "inspect", name], {}, check=False).returncode == 0

    def build(self, *words: object, arguments: Mapping[str, str]) -> None:
        """Builds an image, with the machine's own network: a package index may be on loopback."""
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        self.docker("build", "--network", "host", "--progress", "plain", *given, *words)


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """One that answers already, or a daemon whose images and sockets are in the folder, for as long as this lasts.

    Raises:
        UnavailableError: there is none, and none can be started.
    """
    answers = subprocess.run([_client(), "version"], capture_output=True, timeout=60, check=False).returncode == 0
    if answers:
        yield Engine(os.environ)
        return
    programs = {
        name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in ("dockerd", "iptables")
    }
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        raise UnavailableError(
            f"no engine answers, and there is no {' and no '.join(missing)}: apt-get install docker.io iptables"
        )
    if os.geteuid() != 0:
        raise UnavailableError("no engine answers, and only root can start one")
    with _daemon(str(programs["dockerd"]), str(programs["iptables"]), folder) as url:
        yield Engine(os.environ | {"DOCKER_HOST": url})


def _client() -> str:
    """Debian's before others on PATH: it is the daemon's, and builds by the daemon's builder."""
    found = next((each for each in ("/usr/bin/docker", shutil.which("docker")) if each and Path(each).exists()), None)
    if found is None:
        raise UnavailableError("no docker: apt-get install docker.io docker-compose")
    return found


@contextlib.contextmanager
def _daemon(program: str, iptables: str, folder: Path) -> Iterator[str]:
    run = folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    url = f"unix://{run}/docker.sock"
    paths = ["--data-root", str(folder / "data"), "--exec-root", str(run / "exec"), "--pidfile", str(run / "pid")]
    rules = _rules(iptables)
    with (run / "log").open("wb") as log:
        daemon = subprocess.Popen([program, *paths, "--host", url, *_DAEMON], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 90
        while subprocess.run(
            [_client(), "--host", url, "version"], capture_output=True, timeout=60, check=False
        ).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError(f"dockerd does not start: {(run / 'log').read_text(errors='replace')[-2000:]}")
            time.sleep(0.3)
        yield url
    finally:
        daemon.terminate()  # ends its containers, and containerd, which is its child
        try:
            daemon.wait(120)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        _unmount(folder)
        _take_back(iptables, rules)


def _unmount(folder: Path) -> None:
    """What the daemon mounted below its folder, the innermost first."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in sorted((each for each in mounted if each.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", path], check=False)


def _rules(iptables: str) -> dict[str, list[str]]:
    listed = {}
    for table in ("nat", "filter"):
        done = subprocess.run([iptables, "-t", table, "-S"], capture_output=True, text=True, timeout=60, check=False)
        listed[table] = done.stdout.splitlines()
    return listed


def _take_back(iptables: str, before: dict[str, list[str]]) -> None:
    """The daemon leaves its rules for packets behind: those of its own chains go, unless they were there before."""
    if any("DOCKER" in line for lines in before.values() for line in lines):
        return
    for table, lines in _rules(iptables).items():
        ours = [line.split() for line in lines if "DOCKER" in line]
        jumps = [["-D", *words[1:]] for words in ours if words[0] == "-A" and "DOCKER" not in words[1]]
        chains = [words[1] for words in ours if words[0] == "-N"]
        for words in (*jumps, *(["-F", each] for each in chains), *(["-X", each] for each in chains)):
            subprocess.run([iptables, "-t", table, *words], capture_output=True, timeout=60, check=False)
