"""A seeded random walk over commands that are killed, stopped, doubled and starved: the promises hold after every step.

PAIRFLOW_CHAOS_STEPS makes it longer, PAIRFLOW_CHAOS_SEED makes it another one. What is promised is in
docs/operations.md: what is committed keeps its bytes, nothing of others is touched, no process and no run is left at
work, and the same command again ends well.
"""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient

import storage

from . import nursery
from .conftest import Finished

pytestmark = [pytest.mark.kill, pytest.mark.timeout(7200)]

_STEPS = int(os.environ.get("PAIRFLOW_CHAOS_STEPS", "6"))
_SEED = int(os.environ.get("PAIRFLOW_CHAOS_SEED", "1"))
_PATIENCE_S = 240  # of a machine that is very busy
_SMALL = [
    *("--set", "model.architecture=dit", "--set", "model.hidden_size=16", "--set", "model.num_layers=1"),
    *("--set", "model.num_heads=2", "--set", "training.num_steps=30", "--set", "training.batch_size=8"),
    *("--set", "coupling.num_steps=5"),
]
_BRIEF = ["--set", "evaluation.steps=[1]", "--set", "evaluation.num_samples=8", "--set", "evaluation.num_trials=2"]
# Of an error; well; of a signal, as our handling says it; or by the signal itself, which came before that or after.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENDS = {0, 1, 2, -signal.SIGKILL, *(128 + each for each in _SIGNALS), *(-each for each in _SIGNALS)}


class Walk:
    """Somebody with a home, a store on a small disk of its own where that can be had, and bad luck."""

    def __init__(self, folder: Path, disk: Path, environment: dict[str, str], address: Path) -> None:
        self.random = random.Random(_SEED)  # noqa: S311 - a walk, not a secret
        self.home, self.disk, self.store = folder / "home", disk, disk / "store"
        self._folder, self._address = folder, address
        self._environment = environment | {"PAIRFLOW_HOME": str(self.home), "PAIRFLOW_STORE": str(self.store)}
        rows = np.random.default_rng(0).integers(5, size=(300, 8), dtype=np.uint8)
        np.save(folder / "rows.npy", rows)
        self.data = ["--dataset", "tokens", "--path", str(folder / "rows.npy"), "--vocab-size", "5"]
        self.committed: dict[Path, str] = {}
        # Somebody's own files, where ours lie too, under names like ours.
        self.theirs = [
            self.store / "jobs" / "slurm" / "out.json",
            self.store / "pairs" / "notes.txt",
            self.home / "mine.txt",
        ]
        for path in self.theirs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("theirs")
        self._said = 0

    def start(self, words: list[str], **variables: str) -> tuple[nursery.Child, Path]:
        self._said += 1
        said = self._folder / f"said-{self._said}"
        child = nursery.Child(
            self._address,
            "flows.command.app",
            words,
            environment=self._environment | variables,
            stdout=said,
            stderr=said,
        )
        return child, said

    def end(self, child: nursery.Child, said: Path) -> Finished:
        try:
            code = child.wait(_PATIENCE_S)
        except TimeoutError:
            os.killpg(child.pid, signal.SIGKILL)
            raise AssertionError(f"not ended within {_PATIENCE_S} s:\n{said.read_text()[-3000:]}") from None
        return Finished(code, said.read_text(), said.read_text())

    def run(self, words: list[str], **variables: str) -> Finished:
        return self.end(*self.start(words, **variables))

    # What can be asked for.

    def command(self) -> list[str]:
        seed = str(self.random.randrange(3))
        settings = [*self.data, *_SMALL, "--set", f"coupling.seed={seed}"]
        return self.random.choice(
            [
                ["pair", *self.data, "--num-steps", "5", "--seed", seed, "--shard-size", "40"],
                ["pair", *self.data, "--num-steps", "5", "--seed", seed, "--shard-size", "40", "--format", "parquet"],
                ["train", *settings, "--method", self.random.choice(["udlm", "mdlm"])],
                ["pipeline", *settings, *_BRIEF],
                ["retrain", *settings, "--name", "chaos", "--trials", "2", "--num-samples", "8", "--steps", "1"],
                ["gc", "--yes"],
                ["ls"],
            ]
        )

    # What can befall it: each gets the words, and returns when the command has ended.

    def is_left_alone(self, words: list[str]) -> None:
        done = self.run(words)
        assert done.code == 0, done.stderr[-3000:]

    def is_signalled(self, words: list[str]) -> None:
        child, said = self.start(words)
        time.sleep(self.random.uniform(0, 8))
        number = self.random.choice([*_SIGNALS, signal.SIGKILL])
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)
        assert self.end(child, said).code in _ENDS, said.read_text()[-3000:]

    def loses_its_job(self, words: list[str]) -> None:
        child, said = self.start(words)
        time.sleep(self.random.uniform(1, 8))
        for process in self._children():
            if process.pid != child.pid and os.getpgid(process.pid) == process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        assert self.end(child, said).code in (0, 1), said.read_text()[-3000:]

    def is_said_twice(self, words: list[str]) -> None:
        both = [self.start(words) for _ in range(2)]
        done = [self.end(*each) for each in both]
        assert 0 in {each.code for each in done}, done
        assert {each.code for each in done} <= {0, 1}, done

    def finds_no_space(self, words: list[str]) -> None:
        if self.disk == self._folder:
            return self.is_left_alone(words)  # no disk of its own: this one is not to be filled
        ballast = self.disk / "ballast"
        free = shutil.disk_usage(self.disk).free - self.random.randrange(0, 200_000)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free, 4096))
        try:
            assert self.run(words).code in (0, 1)
        finally:
            ballast.unlink()

    def finds_no_network(self, words: list[str]) -> None:
        nowhere = "http://127.0.0.1:9"
        done = self.run(words, http_proxy=nowhere, https_proxy=nowhere, HTTP_PROXY=nowhere, HTTPS_PROXY=nowhere)
        assert done.code == 0, done.stderr[-3000:]

    def sees_the_clock_change(self, words: list[str]) -> None:
        """As files show it: all were written a year ago, or will be in one."""
        shift = self.random.choice([-1, 1]) * 365 * 86_400
        for path in self.store.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (time.time() + shift,) * 2)
        self.is_left_alone(words)

    # What must hold after each.

    def check(self, words: list[str]) -> None:
        again = self.run(words)
        assert again.code == 0, f"the same command again:\n{again.stderr[-3000:]}"
        deadline = time.monotonic() + 60
        while left := self._children():
            assert time.monotonic() < deadline, f"left at work: {left}"
            time.sleep(0.2)
        assert all(path.read_text() == "theirs" for path in self.theirs)
        changed = [path for path, digest in self.committed.items() if not path.is_file() or _digest(path) != digest]
        assert changed == []
        for url in self._couplings():
            assert storage.verify_pairs(str(url)).ok, url
            self.committed |= {path: _digest(path) for path in url.rglob("*") if path.is_file()}
        if (database := self.home / "mlflow" / "mlflow.db").exists():
            client = MlflowClient(f"sqlite:///{database}")
            ids = [each.experiment_id for each in client.search_experiments()]
            running = client.search_runs(ids, "attributes.status = 'RUNNING'")
            assert [each.info.run_name for each in running] == []
            if self._couplings():
                lineage = self.run(["lineage", "tokens"])
                assert lineage.code == 0, lineage.stderr[-3000:]

    def _couplings(self) -> list[Path]:
        return [path.parent for path in self.store.glob("pairs/*/_manifest.json")]

    def _children(self) -> list[psutil.Process]:
        """Commands and jobs that are at work: they fork off the nursery."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(self._address) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found += [each for each in process.children() if each.status() != psutil.STATUS_ZOMBIE]
                    break
        return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def walk(cli_environment: dict[str, str], nursery_address: Path, tmp_path: Path) -> Iterator[Walk]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = not os.system(f"mount -t tmpfs -o size=64m tmpfs {disk} 2> /dev/null")  # noqa: S605 - a path of pytest's
    try:
        yield Walk(tmp_path, disk if mounted else tmp_path, cli_environment, nursery_address)
    finally:
        if mounted:
            os.system(f"umount {disk}")  # noqa: S605


def test_whatever_happens(walk: Walk) -> None:
    troubles: list[Callable[[list[str]], None]] = [
        walk.is_left_alone,
        walk.is_signalled,
        walk.is_signalled,
        walk.loses_its_job,
        walk.is_said_twice,
        walk.finds_no_space,
        walk.finds_no_network,
        walk.sees_the_clock_change,
    ]
    path: list[str] = []
    for number in range(_STEPS):
        words, trouble = walk.command(), walk.random.choice(troubles)
        path.append(f"{number}: {' '.join(words)} {trouble.__name__.replace('_', ' ')}")
        try:
            trouble(words)
            walk.check(words)
        except AssertionError as error:
            raise AssertionError(f"seed {_SEED}, after\n" + "\n".join(path[-8:]) + f"\n{error}") from error
