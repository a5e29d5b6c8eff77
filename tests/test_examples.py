"""The examples run: each as it stands, on less data and for fewer steps."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pyarrow.parquet
import pytest
import torch

import storage
from flows.jobs.inputs import pairs_fingerprint
from pairflow import processes
from pairflow.datasets import load
from pairflow.sampling import SAMPLERS, sample
from pairflow.spec import CouplingSpec, DatasetSpec

_EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, _EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def molecules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("molecules") / "molecules.smi"
    ends = ("C", "N", "O", "F", "Cl", "C#N", "C(=O)O", "c1ccccc1")
    path.write_text(
        "".join(f"{a}{'C' * n}{b}\n" for a in ("C", "CO", "CN", "C1CC1", "O=C") for n in range(1, 8) for b in ends)
    )
    return path


@pytest.fixture(scope="module")
def url(molecules: Path) -> str:
    own_smiles = _module("own_smiles")
    own_smiles.SHARD_SIZE = 100  # of several shards
    return own_smiles.main(str(molecules), str(molecules.parent / "store"))


def test_own_smiles_makes_the_pairs_of_the_command(url: str, molecules: Path) -> None:
    train = load(DatasetSpec(name="smiles", path=str(molecules))).part("train")
    pairs = storage.open_pairs(url)
    assert len(pairs.manifest.shards) > 1
    assert pairs.manifest.fingerprint == pairs_fingerprint(CouplingSpec(num_steps=20, seed=0), train, "cpu")[0]
    np.testing.assert_array_equal(pairs.target[:], train.tokens)
    assert storage.verify_pairs(url).bad == []


def test_a_loop_of_ones_own_learns(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    losses = _module("train_from_pairs").main(url, num_steps=40, batch_size=64)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert capsys.readouterr().out.strip()  # what was sampled


def test_other_libraries_read_the_same(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    found = _module("read_pairs").main(url.removeprefix("file://"))
    pairs = storage.open_pairs(url)
    assert found["count"] == len(pairs) == len(found["rows"])
    assert found["kept"] == pytest.approx((pairs.source[:] == pairs.target[:]).mean())
    np.testing.assert_array_equal(np.array(found["rows"]["source"]), pairs.source[:])
    assert pyarrow.parquet.read_schema(next(Path(url).glob("part-*"))).names == ["sample_id", "target", "source"]


def test_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    notebook: dict[str, Any] = json.loads((_EXAMPLES / "digits.ipynb").read_text(encoding="utf-8"))
    cells = [each for each in notebook["cells"] if each["cell_type"] == "code"]
    assert [(each["outputs"], each["execution_count"]) for each in cells] == [([], None)] * len(cells)
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    within: dict[str, Any] = {}
    for cell in cells:
        text = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", ()):
            text, changed = re.subn(r"(NUM_\w+ =) \d+", r"\1 8", text)
            assert changed == 2
        exec(text, within)  # noqa: S102 - our own cells
    within["plt"].close("all")
    assert set(within["scores"]) == {(name, steps) for name in ("PairFlow", "UDLM") for steps in (1, 2, 4)}
    assert all(np.isfinite(score) for score in within["scores"].values())
    kept = re.search(r"(\d+)% of the pixels are kept", capsys.readouterr().out)
    assert kept is not None
    assert int(kept[1]) > 55  # half of them would be chance


class _Undecided(torch.nn.Module):
    """Says of every token that it may be any."""

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*x_t.shape, 5)


def test_a_sampler_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippet of docs/howto/sampler.md."""
    (snippet,) = re.findall(
        r"^```python\n(.*?)^```$",
        (_EXAMPLES.parent / "docs/howto/sampler.md").read_text(),
        flags=re.MULTILINE | re.DOTALL,
    )
    monkeypatch.setitem(SAMPLERS, "timid", None)  # as it was, afterwards
    within: dict[str, Any] = {}
    exec(snippet, within)  # noqa: S102 - our own page
    process = processes.build("uniform", 5)
    drawn = sample(_Undecided(), process, within["how"], num_samples=4, num_steps=3, length=6, progress=False)
    assert drawn.tokens.shape == (4, 6)
    probs, x_t = torch.full((1, 6, 5), 0.2, dtype=torch.float64), torch.zeros(1, 6, dtype=torch.int64)
    chances = within["timid"](process, probs, x_t, *torch.tensor([[0.25], [0.5]], dtype=torch.float64), 0.0)
    torch.testing.assert_close(chances.sum(-1), torch.ones(1, 6, dtype=torch.float64))
