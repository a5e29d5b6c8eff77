"""Rows of SMILES in two files, and what is prepared of them."""

from pathlib import Path

import pytest

from pairflow import datasets
from pairflow.datasets import Preparation, TokenDataset, pieces
from pairflow.spec import DatasetSpec

SMILES = ["CCO", "c1cc[nH]c1", "", "nonsense", "C" * 90, "[13CH4]", "CC\u00e9", "ClCBr", "C(", "N->[Pt]<-N", "F/C=C\\F"]
ROWS = [SMILES[number * 7 % len(SMILES)] for number in range(200)]


def own(path: Path, **fields: object) -> DatasetSpec:
    return DatasetSpec.model_validate({"name": "smiles", "path": str(path), "holdout": 0.2, **fields})


def plan_of(spec: DatasetSpec, tmp_path: Path) -> Preparation:
    return datasets.prepare(spec, cache_dir=tmp_path / "cache", progress=False)


def in_pieces(plan: Preparation, piece_bytes: int) -> TokenDataset:
    assert plan.recipe is not None
    recipe = plan.recipe
    return plan.assemble(pieces.prepare(piece, recipe) for piece in plan.pieces(piece_bytes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, of which one table has fields with line ends, commas and quotes in them."""
    folder = tmp_path / "rows"
    folder.mkdir()
    table = ["name,smiles"]
    table += [f'"a ""b"",\nc {number}",{smiles}' for number, smiles in enumerate(ROWS)]
    (folder / "a.csv").write_text("\n".join(table), encoding="utf-8")
    (folder / "b.smi").write_text(
        "\n".join(f"{smiles} x" if smiles else "" for smiles in ROWS) + "\nO=C=O\n", encoding="utf-8"
    )
    return folder
