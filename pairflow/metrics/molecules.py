"""Validity, uniqueness and novelty of generated SMILES (method.md §6), by RDKit."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from rdkit import Chem, rdBase

from pairflow import metrics
from pairflow.datasets.base import TokenDataset
from pairflow.progress import Progress, bar


@dataclass(frozen=True)
class MoleculeMetrics:
    """Counts over one set of samples.

    Attributes:
        num_samples: all strings.
        num_valid: strings that are not empty and that RDKit parses.
        num_unique: distinct molecules among the valid, by canonical SMILES.
        num_novel: of those distinct molecules, the ones not in the training set.
    """

    num_samples: int
    num_valid: int
    num_unique: int
    num_novel: int


class TrainingMolecules:
    """The canonical SMILES of a training set; making it takes about 0.2 ms a row, so make it once.

    Args:
        smiles: the training set's strings; any that do not parse are left out.
        progress: show a progress bar.
    """

    def __init__(self, smiles: Iterable[str], *, progress: Progress = True) -> None:
        rows = list(smiles)
        with rdBase.BlockLogs():
            shown = bar(rows, desc="canonical training SMILES", unit=" rows", progress=progress)
            self._known = frozenset(filter(None, map(canonical, shown)))

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, canonical_smiles: object) -> bool:
        return canonical_smiles in self._known


def canonical(smiles: str) -> str | None:
    """Canonical SMILES, or None for a string that is empty or that RDKit does not parse into a molecule."""
    molecule = Chem.MolFromSmiles(smiles) if smiles else None
    if molecule is None or molecule.GetNumAtoms() == 0:
        return None
    return Chem.MolToSmiles(molecule)


def measure(smiles: Iterable[str], training_smiles: Iterable[str] | TrainingMolecules) -> MoleculeMetrics:
    """Counts the valid, unique and novel among generated strings.

    Args:
        smiles: decoded samples, the text between <bos> and <eos>.
        training_smiles: the model's own training set; a `TrainingMolecules` when it is used more than once.
    """
    known = training_smiles
    if not isinstance(known, TrainingMolecules):
        known = TrainingMolecules(known, progress=False)
    samples = list(smiles)
    with rdBase.BlockLogs():
        valid = [text for text in map(canonical, samples) if text is not None]
    unique = set(valid)
    return MoleculeMetrics(len(samples), len(valid), len(unique), sum(text not in known for text in unique))


class MoleculeEvaluator:
    """Decodes samples and counts the valid, unique and novel among them."""

    headline = metrics.Headline("num_valid", "valid molecules", higher_is_better=True)

    def __init__(self, dataset: TokenDataset, *, progress: Progress = True) -> None:
        self._dataset = dataset
        train = dataset.part("train")
        self._known = TrainingMolecules(train.decode(train.tokens), progress=progress)
        self.facts: Mapping[str, float] = {"training_molecules": float(len(self._known))}

    def measure(self, samples: np.ndarray) -> dict[str, float]:
        """The fields of `MoleculeMetrics` for samples [N, D]."""
        tokens = metrics.check_samples(samples, self._dataset)
        result = measure(self._dataset.decode(tokens), self._known)
        return {name: float(count) for name, count in asdict(result).items()}
