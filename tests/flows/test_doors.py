"""What is said before anything starts, and where it is said: terminals, pipes and disks of any kind."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

import storage
from flows.home.locks import in_turn
from flows.jobs.survey import _obstacle
from flows.lineage.tracing import checks
from flows.parameters import DistillParameters, EvaluateParameters, PairParameters, TrainParameters
from flows.recipes.changes import assignments
from flows.service import remains
from flows.service.sockets import runtime_folder
from flows.stages import beforehand
from flows.stages.command_line import read
from pairflow.errors import CheckpointError, DatasetError, SpecError, StoreError
from pairflow.spec import CouplingSpec, DatasetSpec, EvaluationSpec, TrainingSpec, parse


def _run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "flows.command.app", *arguments]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, check=False, timeout=120)


class TestBeforehand:
    @pytest.fixture(autouse=True)
    def _home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PAIRFLOW_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("PAIRFLOW_STORE", raising=False)

    @pytest.mark.parametrize(
        ("parameters", "error", "says"),
        [
            (
                TrainParameters(dataset=DatasetSpec(name="nci"), preset="paper"),
                SpecError,
                "'paper' has no settings",
            ),
            (TrainParameters(pairs="/nowhere/pairs"), StoreError, "no pairs at /nowhere/pairs"),
            (PairParameters(extend="/nowhere/pairs"), StoreError, "no pairs at /nowhere/pairs"),
            (PairParameters(dataset=DatasetSpec(name="smiles", path="/no.smi")), DatasetError, "no.smi does not exist"),
            (
                DistillParameters(base_model="/no/model"),
                CheckpointError,
                "no model '/no/model': there is no",
            ),
            (EvaluateParameters(models=("/no/model",)), CheckpointError, "there is no such folder"),
            (PairParameters(store="/proc/store"), StoreError, "cannot write /proc/store"),
        ],
    )
    def test_what_is_known_at_once(self, parameters: PairParameters, error: type[Exception], says: str) -> None:
        with pytest.raises(error, match=says):
            beforehand.check(parameters)

    def test_a_sound_request_passes(self) -> None:
        beforehand.check(TrainParameters())

    def test_no_server_starts_for_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        done = _run("pair", "--dataset", "smiles", "--path", str(tmp_path / "no.smi"))
        assert (done.returncode, b"temporary server" in done.stderr) == (1, False)
        assert done.stderr.strip().endswith(b"no.smi does not exist")
        assert not (tmp_path / "home" / "prefect").exists()


class TestOutput:
    def test_a_full_disk_is_one_line(self) -> None:
        for arguments in (["datasets", "--json"], ["--help"]):
            with open("/dev/full", "w") as full:
                command = [sys.executable, "-m", "flows.command.app", *arguments]
                done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, timeout=120)
            assert done.returncode == 1
            assert done.stderr.startswith((b"error: standard output cannot be", b"error: No space left on device"))
            assert done.stderr.count(b"\n") == 1

    @pytest.mark.parametrize("locale", ["C", "POSIX"])
    def test_an_ascii_locale_is_taken_to_be_utf_8(self, locale: str) -> None:
        plain = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = _run("pair", "--help", **plain)
        assert (done.returncode, done.stderr) == (0, b"")
        assert "τ" in done.stdout.decode()

    def test_an_encoding_that_lacks_a_letter(self) -> None:
        done = _run("pair", "--help", PYTHONIOENCODING="iso-8859-1")
        assert (done.returncode, b"\\u03c4" in done.stdout) == (0, True)

    @pytest.mark.parametrize("columns", ["0", "-3", "wide", "1"])
    def test_a_width_that_is_none(self, columns: str) -> None:
        done = _run("--help", COLUMNS=columns)
        assert done.returncode == 0
        assert b"pipeline" in done.stdout


class TestNumbers:
    @pytest.mark.parametrize(
        ("spec_type", "data", "name"),
        [
            (TrainingSpec, {"num_steps": True}, "num_steps"),
            (CouplingSpec, {"temperature": True}, "temperature"),
            (CouplingSpec, {"support_size": False}, "support_size"),
            (EvaluationSpec, {"steps": [1, True]}, "steps"),
        ],
    )
    def test_true_is_none(self, spec_type: type[TrainingSpec], data: dict[str, object], name: str) -> None:
        with pytest.raises(SpecError, match=f"{name}: got .*expected a number"):
            parse(spec_type, data)

    def test_set(self) -> None:
        with pytest.raises(SpecError, match="num_steps: got True"):
            read(TrainParameters, {"dataset": "nci"}, assignments(["training.num_steps=true"]))
        with pytest.raises(SpecError, match="nested too deeply"):
            assignments(["training.num_steps=" + "[" * 99_999])
        assert read(TrainParameters, {"dataset": "nci"}, assignments(["model.absolute_positions=true"]))


class TestAbsence:
    """That something cannot be asked or seen is not that it is not there."""

    def test_pairs_that_cannot_be_read(self, tmp_path: Path) -> None:
        url = tmp_path / "store" / "pairs" / f"{'ab' * 32}.zarr"
        with pytest.raises(StoreError, match="store is not there; is its disk mounted"):
            checks._state_of(str(url))
        url.parent.mkdir(parents=True)
        assert checks._state_of(str(url))[0] == "missing"
        url.mkdir()
        (url / "_header.json").write_bytes(b"{")
        assert checks._state_of(str(url))[0] == "damaged"
        (url / "_header.json").unlink()
        (url / "_header.json").mkdir()  # as one that the disk does not give
        with pytest.raises(StoreError, match="cannot read"):
            checks._state_of(str(url))

    def test_a_checkpoint_that_may_not_be_looked_at(self, tmp_path: Path) -> None:
        assert checks._absence(tmp_path / "state.json") == "is not there"
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        assert "cannot be looked at" in str(checks._absence(tmp_path / "loop" / "state.json"))
        (tmp_path / "state.json").touch()
        assert checks._absence(tmp_path / "state.json") is None

    def test_earlier_pairs_that_cannot_be_read_are_no_reason_to_couple_everything(self, tmp_path: Path) -> None:
        url = tmp_path / "pairs" / f"{'ab' * 32}.zarr"
        data: object = None
        assert "no whole pairs" in str(_obstacle(str(url), data, CouplingSpec(), "cpu/1"))  # type: ignore[arg-type]
        (url / "_manifest.json").mkdir(parents=True)
        with pytest.raises(StoreError, match="cannot read"):
            _obstacle(str(url), data, CouplingSpec(), "cpu/1")  # type: ignore[arg-type]
        assert storage.has_manifest(url)


def test_two_take_turns(tmp_path: Path) -> None:
    order: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def first() -> None:
        with in_turn(tmp_path, "train-x", "job 1", order.append):
            begun.set()
            go.wait(30)
            order.append("1 is done")

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(30)

    def told(other: str) -> None:
        order.append(f"2 waits for {other}")
        go.set()

    with in_turn(tmp_path, "train-x", "job 2", told):
        order.append("2 has it")
    thread.join(30)
    assert order == ["2 waits for job 1", "1 is done", "2 has it"]


def test_what_an_ending_process_starts_is_ended_too(tmp_path: Path) -> None:
    """As Ray's head, cut off while it starts, leaves the programs that it was about to start."""
    starts_another = "trap 'setsid sleep 300 & exit 1' TERM; echo; while :; do sleep 0.05; done"
    marked = os.environ | {remains.OWNER_VARIABLE: str(tmp_path)}
    command = ["bash", "-c", starts_another]
    with subprocess.Popen(command, env=marked, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the trap is set
        ended, alive = remains.end_all(tmp_path)
    assert process.pid in {each.pid for each in ended}
    assert len(ended) >= 2
    assert (alive, remains.processes_of(tmp_path)) == ([], [])


def test_one_with_a_title_over_its_variables_is_found(tmp_path: Path) -> None:
    """As Ray's agents, which spin for a minute where the processes that watched over them were killed."""
    titled = "import ray, time; ray._raylet.setproctitle('ray::Agent'); print(flush=True); time.sleep(300)"
    marked = os.environ | {remains.OWNER_VARIABLE: str(tmp_path)}
    runtime = runtime_folder(tmp_path)
    runtime.mkdir()
    command = [sys.executable, "-c", titled]
    with subprocess.Popen(command, env=marked, cwd=runtime, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert psutil.Process(process.pid).cmdline()[0].startswith("ray::Agent")
            ended, alive = remains.end_all(tmp_path)
        finally:
            process.kill()
            runtime.rmdir()
    assert ([each.pid for each in ended], alive) == ([process.pid], [])


def test_a_shell_that_inherited_the_mark_is_nobodys_remains(tmp_path: Path) -> None:
    marked = os.environ | {remains.OWNER_VARIABLE: str(tmp_path)}
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("sleep", ["sleep", "60"], marked)  # noqa: S606
    ours = subprocess.Popen(["sleep", "60"], env=marked, start_new_session=True)
    try:
        assert [each.pid for each in remains.processes_of(tmp_path)] == [ours.pid]
    finally:
        for process in (pid, ours.pid):
            os.kill(process, 9)
        ours.wait()
        os.waitpid(pid, 0)
        os.close(terminal)
