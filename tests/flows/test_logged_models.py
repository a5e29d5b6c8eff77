"""A model as MLflow has it: what is in it, that it samples as `pairflow sample` does, alone and over HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from flows.cluster.protocol import JobContext
from flows.command.sample import sample_to_file
from flows.home.settings import Settings
from flows.lineage.registry import Registry
from flows.lineage.tracking import Lineage
from pairflow.spec import DatasetSpec

from ..ports import free_port
from .model_files import trained

_REQUEST = {"n": 16, "steps": 3, "seed": 7, "final_step": "ancestral", "top_p": 0.9}
_CHAMPION = "models:/pairflow-nci@champion"
_WRONG: list[tuple[dict[str, Any], str]] = [
    ({"n": 0}, "n: got 0, expected a whole number from 1 to 10,000"),
    ({"n": 10_001}, "n: got 10001, expected a whole number from 1 to 10,000"),
    ({"n": 2.5}, "Incompatible input types for column n"),
    ({"n": "2"}, "Incompatible input types for column n"),
    ({"n": True}, "Incompatible input types for column n"),
    ({"n": None}, "Incompatible input types for column n"),
    ({"steps": 0}, "steps: got 0"),
    ({"steps": 1025}, "steps: got 1025, expected a whole number from 1 to 1,024"),
    ({"seed": -1}, "seed: got -1"),
    ({"seed": 2**63}, "Incompatible input types for column seed"),
    ({"final_step": "last"}, "final_step: Input should be 'ancestral', 'greedy' or 'argmax'"),
    ({"top_p": 0.0}, "top_p: Input should be greater than 0"),
    ({"top_p": "all"}, "Incompatible input types for column top_p"),
]

# MLflow's server makes what it reads the declared type before the model sees it: these are 2, 2 and 1 there.
_CAST_BY_THE_SERVER: list[dict[str, Any]] = [{"n": 2.5}, {"n": "2"}, {"n": True}]


@dataclass(frozen=True)
class _Logged:
    """Tiny models in an MLflow of their own: name of the dataset -> checkpoint, id."""

    settings: Settings
    checkpoints: dict[str, Path]
    ids: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PAIRFLOW_", "MLFLOW_"))}
        bin_folder = Path(sys.executable).parent  # where `mlflow models serve` looks for uvicorn
        own = {"MLFLOW_TRACKING_URI": self.settings.tracking_uri, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
        return kept | own | {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "true"}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, tokens_file: Path) -> _Logged:
    folder = tmp_path_factory.mktemp("logged")
    settings = Settings(home=folder / "home")
    lineage = Lineage(settings)
    checkpoints, ids = {}, {}
    for spec in (
        DatasetSpec(name="nci", max_rows=40),
        DatasetSpec(name="digits", max_rows=40),
        DatasetSpec(name="tokens", path=str(tokens_file), vocab_size=5),
    ):
        checkpoints[spec.name], _ = trained(spec, folder / spec.name)
        context = JobContext(submission_id=None, flow_run_id="1")
        with lineage.run(spec.name, "train", spec.name, name="train", specs={}, context=context) as run:
            ids[spec.name] = run.log_model(f"{spec.name}-udlm", checkpoints[spec.name], params={}, tags={})
    registry = Registry(lineage)
    registry.promote(registry.register("nci", ids["nci"], description="", tags={}), "the only one")
    return _Logged(settings, checkpoints, ids)


@pytest.fixture(scope="module")
def folders(logged: _Logged) -> dict[str, Path]:
    """Where MLflow keeps the models' files."""
    client = Lineage(logged.settings).client
    kept = {name: client.get_logged_model(id_).artifact_location for name, id_ in logged.ids.items()}
    return {name: Path(url.removeprefix("file://")) for name, url in kept.items()}


@pytest.fixture(scope="module")
def asked(logged: _Logged, folders: dict[str, Path]) -> dict[str, Any]:
    """What a process gets that has only what the requirements name."""
    requests = {
        _CHAMPION: [_REQUEST, *({"n": 2, "steps": 2, "seed": 0} | wrong for wrong, _ in _WRONG)],
        f"models:/{logged.ids['digits']}": [_REQUEST, {"n": 1, "stps": 4, "seed": 0}],
        f"models:/{logged.ids['tokens']}": [_REQUEST, {"n": [1, 1], "steps": [1, 1], "seed": [0, 0]}],
    }
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-B",
            str(Path(__file__).with_name("model_user.py")),
            folders["nci"] / "requirements.txt",
        ],
        env=logged.environment,
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.fixture
def drawn(logged: _Logged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], Path]:
    """The same request to `pairflow sample`: (reference, file's ending) -> the file."""
    home = {"PAIRFLOW_HOME": str(logged.settings.home), "PAIRFLOW_THREADS_PER_JOB": "1"}

    def draw(reference: str, ending: str) -> Path:
        out = tmp_path / f"out{ending}"
        monkeypatch.setattr("os.environ", os.environ | home)
        sample_to_file(reference, out, {"final_step": "ancestral", "top_p": 0.9}, num_samples=16, num_steps=3, seed=7)
        return out

    return draw


def test_what_is_in_a_model(logged: _Logged, folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        description = yaml.safe_load((folder / "MLmodel").read_text())
        assert description["model_id"] == logged.ids[name]
        assert "python_model" not in description["flavors"]["python_function"]  # that would be a pickle
        assert json.loads((folder / "input_example.json").read_text()) == {"n": 2, "steps": 2, "seed": 0}
        # Whoever loads a model may leave compiled code beside its own.
        files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
        assert {path.suffix for path in files} <= {"", ".json", ".md", ".py", ".safetensors", ".txt", ".typed", ".yaml"}
        assert {path.name for path in folder.glob("code/*")} == {"pairflow"}
        (checkpoint,) = (folder / "artifacts").iterdir()
        for file in ("state.json", "data.json", "tensors.safetensors"):
            assert (checkpoint / file).read_bytes() == (logged.checkpoints[name] / file).read_bytes()
        assert load_file(checkpoint / "tensors.safetensors")
    names = ("mlflow", "numpy", "pandas", "pydantic", "safetensors", "torch", "tqdm")
    expected = [f"{name}=={version(name).split('+')[0]}" for name in names]
    assert (folders["nci"] / "requirements.txt").read_text().splitlines() == expected


def test_signatures(folders: dict[str, Path]) -> None:
    outputs = {
        name: json.loads(yaml.safe_load((folder / "MLmodel").read_text())["signature"]["outputs"])
        for name, folder in folders.items()
    }
    assert outputs["nci"] == [{"type": "string", "name": "smiles", "required": True}]
    for name, shape in (("digits", [-1, 8, 8]), ("tokens", [-1, 8])):
        assert outputs[name] == [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": shape}}]


def test_a_stranger_gets_the_samples_of_pairflow_sample(
    logged: _Logged, asked: dict[str, Any], drawn: Callable[[str, str], Path]
) -> None:
    smiles = drawn("pairflow-nci@champion", ".smi").read_text().splitlines()
    assert asked["answers"][_CHAMPION][0] == {"smiles": smiles}
    assert any(smiles)
    tokens = np.load(drawn(logged.ids["digits"], ".npy"))
    assert asked["answers"][f"models:/{logged.ids['digits']}"][0] == (tokens.reshape(16, 8, 8) * 255).tolist()
    assert 0 < tokens.mean() < 1
    tokens = np.load(drawn(f"models:/{logged.ids['tokens']}", ".npy"))
    assert asked["answers"][f"models:/{logged.ids['tokens']}"][0] == tokens.tolist()


def test_a_model_needs_only_what_its_requirements_name(asked: dict[str, Any]) -> None:
    assert asked["unnamed"] == []
    assert Path(asked["library"]).parts[-3:] == ("code", "pairflow", "__init__.py")  # its own, not the checkout's


def test_references_stand_for_the_same_model(logged: _Logged, drawn: Callable[[str, str], Path]) -> None:
    expected = drawn(str(logged.checkpoints["nci"]), ".npy").read_bytes()
    for reference in (
        "pairflow-nci@champion",
        _CHAMPION,
        "pairflow-nci/1",
        "models:/pairflow-nci/1",
        logged.ids["nci"],
    ):
        assert drawn(reference, ".npy").read_bytes() == expected


@pytest.mark.parametrize("number", range(len(_WRONG)))
def test_wrong_requests_are_refused(asked: dict[str, Any], number: int) -> None:
    answer = asked["answers"][_CHAMPION][1 + number]
    assert answer.startswith("MlflowException: ")
    assert _WRONG[number][1] in answer


def test_a_request_is_one_row_with_all_three_numbers(logged: _Logged, asked: dict[str, Any]) -> None:
    assert "Model is missing inputs ['steps']" in asked["answers"][f"models:/{logged.ids['digits']}"][1]
    assert "got 2 rows, expected one" in asked["answers"][f"models:/{logged.ids['tokens']}"][1]


@pytest.fixture(scope="module")
def address(logged: _Logged) -> Iterator[str]:
    """Address of `mlflow models serve`."""
    port = free_port()
    command = ["-m", "mlflow", "models", "serve", "-m", _CHAMPION, "--env-manager", "local", "-h", "127.0.0.1"]
    log = logged.settings.home / "serve.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, *command, "-p", str(port)],
            env=logged.environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                    break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # MLflow's command and the server that it started
        server.wait(60)


def _post(url: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"dataframe_records": [request]}).encode()
    try:
        asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - http
        with urllib.request.urlopen(asked, timeout=120) as response:  # noqa: S310 - http
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_over_http(address: str, asked: dict[str, Any]) -> None:
    expected = [{"smiles": smiles} for smiles in asked["answers"][_CHAMPION][0]["smiles"]]
    assert _post(address, _REQUEST) == (200, {"predictions": expected})
    for wrong, says in [*_WRONG, ({"n": "two"}, "Incompatible")]:
        if wrong in _CAST_BY_THE_SERVER:
            continue
        status, answer = _post(address, {"n": 2, "steps": 2, "seed": 0} | wrong)
        assert status == 400, (wrong, answer)
        assert says.startswith("Incompatible") or says in answer["message"]  # a wrong type is told by MLflow's reader
        assert "Traceback" not in json.dumps(answer)
    assert _post(address, {"n": 2, "steps": 2})[0] == 400
