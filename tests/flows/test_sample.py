"""`pairflow sample`, and references to models: files that are whole, errors that say what is wrong."""

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from flows.command.app import app
from flows.command.sample import sample_to_file
from flows.home import kept_results
from flows.home.settings import Settings
from flows.lineage import models
from pairflow.checkpoint import load_model
from pairflow.errors import CheckpointError, SpecError
from pairflow.sampling import sample
from pairflow.spec import DatasetSpec, SamplingSpec

from .conftest import Cli
from .model_files import trained
from .scores import model_scores


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(DatasetSpec(name="digits", max_rows=40), tmp_path_factory.mktemp("digits"))[0]


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.environ", {"PAIRFLOW_HOME": str(tmp_path / "home"), "PAIRFLOW_THREADS_PER_JOB": "1"})


def _draw(reference: Path, out: Path) -> None:
    sample_to_file(str(reference), out, {"top_p": 0.9}, num_samples=5, num_steps=3, seed=7)


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_smiles_lines(tmp_path: Path) -> None:
    checkpoint, train = trained(DatasetSpec(name="nci", max_rows=40), tmp_path)
    _draw(checkpoint, tmp_path / "out.smi")
    _draw(checkpoint, tmp_path / "out.npy")
    loaded = load_model(checkpoint)
    drawn = sample(
        loaded.model,
        loaded.process,
        SamplingSpec(top_p=0.9),
        num_samples=5,
        num_steps=3,
        length=loaded.length,
        seed=7,
        progress=False,
    )
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), drawn.tokens)
    assert (tmp_path / "out.smi").read_text() == "".join(f"{text}\n" for text in train.decode(drawn.tokens))
    _draw(checkpoint, tmp_path / "out.png")
    assert _pixels(tmp_path / "out.png").shape == (2 * 171 + 11, 3 * 171 + 11, 3)  # drawn, and gaps of 11


def test_image_grid(digits: Path, tmp_path: Path) -> None:
    _draw(digits, tmp_path / "out.png")
    _draw(digits, tmp_path / "out.npy")
    grid = _pixels(tmp_path / "out.png")
    scale = 10  # of digits: 8 pixels and a gap of 1, three columns and two lines
    assert grid.shape == ((2 * 9 + 1) * scale, (3 * 9 + 1) * scale, 3)
    second = grid[scale : 9 * scale : scale, 10 * scale : 18 * scale : scale, 0]
    np.testing.assert_array_equal(second, np.load(tmp_path / "out.npy")[1].reshape(8, 8) * 255)


@pytest.mark.parametrize("name", ["out.smi", "out", "nosuch/out.png", "folder.png"])
def test_a_file_that_cannot_be_written(digits: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SpecError, match="--out"):
        _draw(digits, tmp_path / name)
    assert [path for path in tmp_path.rglob("*out*") if path.is_file()] == []


def test_half_a_file_is_not_left(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(path: Path, tokens: np.ndarray) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", breaks)
    (tmp_path / "out.npy").write_bytes(b"before")
    with pytest.raises(SpecError, match="disk full"):
        _draw(digits, tmp_path / "out.npy")
    assert [path.name for path in tmp_path.glob("*out*")] == ["out.npy"]
    assert (tmp_path / "out.npy").read_bytes() == b"before"


def test_a_model_without_a_card_still_gives_tokens(digits: Path, tmp_path: Path) -> None:
    copy = tmp_path / "step-00000002"
    shutil.copytree(digits, copy, ignore=shutil.ignore_patterns("data.json"))
    _draw(copy, tmp_path / "out.npy")
    with pytest.raises(SpecError, match=r"\.npy, \.png; it has no data\.json"):
        _draw(copy, tmp_path / "out.smi")


class TestReferences:
    def test_folders(self, digits: Path) -> None:
        expected = models.FoundModel.at(digits)
        for folder in (digits, digits.parent, digits.parent.parent):  # checkpoint, checkpoints, run
            assert models.resolve(str(folder), Settings.read()) == expected

    @pytest.mark.parametrize(
        ("reference", "says"),
        [
            ("/nosuch", "there is no such folder"),
            ("abcdef12", "no training under"),
            ("aaaaaa", "stands for 2 trainings"),
            ("bbbbbb", "not finished"),
            ("m-123", "no model 'm-123'"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, reference: str, says: str) -> None:
        for name in ("aaaaaa1", "aaaaaa2", "bbbbbb3"):
            (tmp_path / "home" / "runs" / name).mkdir(parents=True)
        with pytest.raises(CheckpointError, match=says):
            models.resolve(reference, Settings.read())


def _spoilt(checkpoint: Path, folder: Path, *, of_another_size: bool = False, damaged: bool = False) -> Path:
    copy = folder / "step-00000002"
    shutil.copytree(checkpoint, copy)
    if of_another_size:
        state = json.loads((copy / "state.json").read_text())
        state["model"]["hidden_size"] = 24
        (copy / "state.json").write_text(json.dumps(state))
    if damaged:
        content = bytearray((copy / "tensors.safetensors").read_bytes())
        content[-1] ^= 1
        (copy / "tensors.safetensors").write_bytes(content)
    return copy


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [({"of_another_size": True}, "tensor ema."), ({"damaged": True}, "tensors.safetensors is damaged")],
)
def test_a_checkpoint_of_another_architecture_or_damaged(
    bare_cli: Cli, digits: Path, tmp_path: Path, spoilt: dict[str, bool], says: str
) -> None:
    copy = _spoilt(digits, tmp_path, **spoilt)
    done = bare_cli("sample", "--model", copy, "--out", tmp_path / "out.npy")
    assert done.code == 1, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["sample", "--model", "abcdef", "--out", "out.npy", "--steps", "-1"], "--steps", 2),
        (["sample", "--model", "a", "--out", "o.npy", "--steps", "0", "--final-step", "argmax"], "--steps 0 is a", 2),
        (["sample", "--model", "abcdef", "--out", "out.npy", "--sampler", "psi"], "corrections", 2),
        (["study", "--dataset", "digits", "--methods", "udlm,nosuch"], "'nosuch'", 2),
        (["study", "--dataset", "digits", "--training-seeds", "one"], "--training-seeds", 2),
        (["evaluate", "--dataset", "digits", "--methods", "mdlm+redi"], "udlm+redi", 2),
        (["train", "--dataset", "digits", "--method", "udlm", "--set", "training.coupling=paired"], "--method", 2),
        (["pair", "--dataset", "digits", "--coupling", "redi"], "--model", 2),
        (
            ["pair", "--dataset", "digits", "--coupling", "redi", "--model", "a", "--temperature", "2"],
            "--temperature",
            2,
        ),
        (["pair", "--dataset", "digits", "--num-pairs", "2"], "--num-pairs", 2),
    ],
)
def test_options(bare_cli: Cli, arguments: list[str], says: str, code: int) -> None:
    done = bare_cli(*arguments)
    assert done.code == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_as_a_hub_takes_it(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    done = CliRunner().invoke(app, ["export-model", str(digits), str(folder), "--license", "cc-by-4.0", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"folder": str(folder)}
    assert {each.name for each in folder.iterdir()} == {"README.md", "config.json", "data.json", "model.safetensors"}
    page = (folder / "README.md").read_text()
    _, head, text = page.split("---\n", 2)
    front = yaml.safe_load(head)
    assert (front["library_name"], front["license"]) == ("pairflow", "cc-by-4.0")
    assert "images" in front["tags"]
    assert text.startswith("\n# digits\n")  # nothing in a bare checkpoint says by which method it was trained
    assert "None is known where this was exported" in text
    (settings,) = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)
    assert json.loads(settings)["dataset"] == {"name": "digits", "max_rows": 40, "split_seed": 0}
    (snippet,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    known: dict[str, Any] = {}
    with contextlib.chdir(tmp_path):
        exec(snippet, known)  # noqa: S102 - what the page tells people to do
    assert known["drawn"].tokens.shape == (16, 64)
    for reference, out in ((digits, "one.npy"), (folder, "other.npy")):
        _draw(reference, tmp_path / out)
    np.testing.assert_array_equal(np.load(tmp_path / "one.npy"), np.load(tmp_path / "other.npy"))
    again = CliRunner().invoke(app, ["export-model", str(digits), str(folder)])
    assert isinstance(again.exception, SpecError)
    assert "something is there already" in str(again.exception)


def test_a_page_has_the_scores_that_are_known(digits: Path, tmp_path: Path) -> None:
    sha256 = json.loads((digits / "state.json").read_text())["sha256"]
    for name, of in (("mine", sha256), ("anothers", "0" * 64)):
        scored = model_scores("pairflow", 3 if name == "mine" else 7).model_copy(update={"checkpoint_sha256": of})
        kept_results.write(Settings.read().evaluations_dir / name / "scores.json", scored)
    assert CliRunner().invoke(app, ["export-model", str(digits), str(tmp_path / "hub")]).exit_code == 0
    page = (tmp_path / "hub" / "README.md").read_text()
    assert "| score | 1 step | 2 steps | 4 steps |" in page
    assert "| valid (molecules, higher is better) | 3 ± 0.5 | 6 ± 0.5 | 12 ± 0.5 |" in page
    assert "Nothing is said of the weights' licence." in page
    assert "license:" not in page
