"""Commands and jobs as processes of their own that need not import anything: they fork off one that has.

`python -m tests.flows.nursery SOCKET ours` imports what they use, and then forks for each request. A child becomes what
was asked for: arguments, environment, folder and output are those of the request, and it ends as any process does.
`strangers` instead of `ours` has nothing of this repository: for trials of models (`forked_trials.py`).
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.flows import forked_trials

VARIABLE = "PAIRFLOW_TEST_NURSERY"
"""Where a command finds the nursery, so that its jobs fork off too."""
_ROOT = Path(__file__).resolve().parents[2]
# What MLflow and torch load only when they are first used: two seconds of each child.
_LATE = (
    *("torch._dynamo", "sqlalchemy.dialects.sqlite"),
    *(f"mlflow.store.{name}.sqlalchemy_store" for name in ("tracking", "model_registry")),
)
_BY_OURS = (
    "flows.command.app",
    *(f"flows.{name}" for name in ("prepare", "pair", "train", "distill", "evaluate", "pipeline", "study", "retrain")),
    *(f"flows.jobs.{name}" for name in ("prepare", "pair", "train", "distill", "evaluate", "survey")),
    *(f"flows.{name}" for name in ("pages.terminal", "command.verification", "lineage.search", "stages.run_job")),
    *("mlflow", "ray.job_submission", "rdkit.Chem.Draw", "sklearn.datasets", "matplotlib.figure", "PIL.ImageDraw"),
    "flows.lineage.packaging",
    *_LATE,
)
_BY_STRANGERS = ("mlflow.pyfunc", "torch", *_LATE)


@contextlib.contextmanager
def running(environment: Mapping[str, str], log: Path, whose: str = "ours") -> Iterator[Path]:
    """Runs a nursery; the socket that it listens at."""
    folder = Path(tempfile.mkdtemp(prefix="pairflow-"))  # a socket's path has an end at 107 bytes
    address = folder / "nursery"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.nursery", str(address), whose],
            cwd=_ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 240
        while not address.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)


class Child:
    """A process that a nursery has forked."""

    def __init__(
        self,
        address: Path | str,
        module: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path,
        cwd: Path | str = _ROOT,
    ) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(address))
        self._said = self._socket.makefile("r")
        request = {
            "arguments": [module, *arguments],
            "environment": dict(environment),
            "stdout": str(stdout),
            "stderr": str(stderr),
            "cwd": str(cwd),
        }
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        self.pid = int(self._said.readline())

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code, once it has ended; minus the signal's number if that was the end.

        Raises:
            TimeoutError: it has not.
        """
        if not select.select([self._socket], [], [], timeout_s)[0]:
            raise TimeoutError(f"process {self.pid} has not ended")
        code = int(self._said.readline())
        self._said.close()
        self._socket.close()
        return code


def _serve(address: str, needed: Sequence[str]) -> list[str]:
    """Forks for whoever connects; returns in each child only, with the arguments that it has to run."""
    for name in needed:
        importlib.import_module(name)
    gc.freeze()  # else each child looks through all of that when it ends
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen(64)
    os.rename(f"{address}.new", address)
    asked: dict[int, socket.socket] = {}  # pid -> who wants to hear of its end
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            if selector.select(0.02):
                connection, _ = listener.accept()
                with connection.makefile("r") as file:
                    request = json.loads(file.readline())
                pid = os.fork()
                if pid == 0:
                    for each in (listener, connection, *asked.values()):
                        each.close()
                    break
                connection.sendall(f"{pid}\n".encode())
                asked[pid] = connection
            with contextlib.suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    connection = asked.pop(ended[0])
                    with contextlib.suppress(OSError), connection:
                        connection.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())
    return _become(request)


def _become(request: dict[str, Any]) -> list[str]:
    """Puts on what was asked for."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number, name in ((1, request["stdout"]), (2, request["stderr"])):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    arguments: list[str] = request["arguments"]
    return arguments


def _as_if_imported_now() -> None:
    """Prefect reads its settings when it is imported; `prepare_environment` comes before that in a new process."""
    from prefect.context import refresh_global_settings_context

    from flows.home import environment

    prepare = environment.prepare_environment

    def prepare_and_read(*arguments: Any) -> None:
        prepare(*arguments)
        refresh_global_settings_context()

    for module in list(sys.modules.values()):
        if vars(module).get("prepare_environment") is prepare:
            module.prepare_environment = prepare_and_read  # type: ignore[attr-defined]
    refresh_global_settings_context()


def _forks_its_jobs() -> None:
    import ray.job_submission

    from tests.flows.forked_jobs import ForkedJobs

    ray.job_submission.JobSubmissionClient = ForkedJobs  # type: ignore[misc,assignment]


def _runs_ours(module: str, arguments: list[str]) -> None:
    _as_if_imported_now()
    if VARIABLE in os.environ:
        _forks_its_jobs()
    if forked_trials.VARIABLE in os.environ:
        forked_trials.fork_them()
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)  # runpy warns of what is there already
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _runs_a_strangers(program: str, arguments: list[str]) -> None:
    """With none of this repository in reach, as with `python -I -B`."""
    sys.path[:] = [each for each in sys.path if Path(each).resolve() != _ROOT]
    sys.dont_write_bytecode = True
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    _strangers = sys.argv[2] == "strangers"
    _what, *_arguments = _serve(sys.argv[1], _BY_STRANGERS if _strangers else _BY_OURS)
    (_runs_a_strangers if _strangers else _runs_ours)(_what, _arguments)
