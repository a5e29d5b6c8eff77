"""Validity, uniqueness and novelty of generated SMILES (docs/method.md §6), compared with the data's; by RDKit."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from rdkit import Chem, rdBase

from pairflow import metrics
from pairflow.datasets.base import TokenDataset
from pairflow.devices import resolve_device
from pairflow.errors import DatasetError
from pairflow.metrics import chemnet, extras
from pairflow.metrics.frechet import Gaussian, frechet_distance
from pairflow.metrics.memory import Memory
from pairflow.metrics.properties import internal_diversity, properties, property_distances
from pairflow.progress import Progress, bar

REFERENCE_SIZE = 2000
"""Rows of the training part, and of the held-out part, whose properties are computed: a seeded choice."""
CHEMNET_REFERENCE_SIZE = 10_000
"""The same for ChemNet's features."""
_SEED = 0


@dataclass(frozen=True)
class MoleculeMetrics:
    """Counts over one set of samples: with C the canonical SMILES of the valid ones and A those of the training set,
    |C|, |set(C)| and |set(C) ∖ A|, docs/method.md, Eq. (6.1).

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


class ParsedMolecules:
    """The valid ones among SMILES strings, each parsed once.

    Attributes:
        num_samples: all strings.
        molecules: the valid ones in their order, repeats included.
        smiles: their canonical SMILES.
    """

    def __init__(self, smiles: Iterable[str]) -> None:
        texts = list(smiles)
        with rdBase.BlockLogs():
            self.num_samples = len(texts)
            self.molecules = [molecule for molecule in map(parse, texts) if molecule is not None]
            self.smiles = [Chem.MolToSmiles(molecule) for molecule in self.molecules]

    def distinct(self) -> dict[str, Chem.Mol]:
        """Canonical SMILES -> molecule, each once, in the order of first appearance."""
        return dict(reversed(list(zip(reversed(self.smiles), reversed(self.molecules), strict=True))))

    def count(self, known: TrainingMolecules) -> MoleculeMetrics:
        """The valid, unique and novel."""
        unique = set(self.smiles)
        novel = sum(text not in known for text in unique)
        return MoleculeMetrics(self.num_samples, len(self.smiles), len(unique), novel)


def parse(smiles: str) -> Chem.Mol | None:
    """The molecule of a string, or None for one that is empty or that RDKit does not parse into atoms."""
    molecule = Chem.MolFromSmiles(smiles) if smiles else None
    return molecule if molecule is not None and molecule.GetNumAtoms() else None


def canonical(smiles: str) -> str | None:
    """Canonical SMILES, or None for a string that is empty or that RDKit does not parse into a molecule."""
    molecule = parse(smiles)
    return None if molecule is None else Chem.MolToSmiles(molecule)


def measure(smiles: Iterable[str], training_smiles: Iterable[str] | TrainingMolecules) -> MoleculeMetrics:
    """Counts the valid, unique and novel among generated strings.

    Args:
        smiles: decoded samples, the text between <bos> and <eos>.
        training_smiles: the model's own training set; a `TrainingMolecules` when it is used more than once.
    """
    known = training_smiles
    if not isinstance(known, TrainingMolecules):
        known = TrainingMolecules(known, progress=False)
    return ParsedMolecules(smiles).count(known)


class AuthorsProtocol:
    """Counts as the authors' code makes them (docs/method.md §6), which asks less of a sample than ours.

    A row is cut at the first <eos>, and then every <bos>, <eos> and <pad> dropped; one without <eos> is taken whole,
    and none needs a <bos>. Distinct and novel are raw strings; novel is what is not in the whole published set,
    held-out rows included, as far as the dataset at hand has it.

    Metrics:
        num_valid_authors: strings that are not empty and that RDKit parses.
        num_unique_authors: distinct strings among those.
        num_novel_authors: of the distinct, those that no row of the data is decoded to.
    """

    def __init__(self, dataset: TokenDataset) -> None:
        if dataset.vocab is None:
            raise DatasetError(f"'{dataset.name}' has no vocabulary, so its rows are no strings")
        self._vocab = dataset.vocab
        self._published = frozenset(self.decode(dataset.tokens))

    def decode(self, tokens: np.ndarray) -> list[str]:
        """Rows [B, D] as strings."""
        vocab = self._vocab
        eos = vocab.index(vocab.eos)
        specials = {vocab.index(special) for special in (vocab.bos, vocab.eos, vocab.pad)}
        texts = ["" if token in specials else text for token, text in enumerate(vocab.tokens)]
        return [
            "".join(texts[token] for token in (row[: row.index(eos)] if eos in row else row)) for row in tokens.tolist()
        ]

    def measure(self, tokens: np.ndarray) -> dict[str, float]:
        """Metrics of samples [N, D]; see the class."""
        with rdBase.BlockLogs():
            valid = [text for text in self.decode(tokens) if parse(text) is not None]
        distinct = set(valid)
        counts = {"valid": len(valid), "unique": len(distinct), "novel": len(distinct - self._published)}
        return {f"num_{name}_authors": float(count) for name, count in counts.items()}


class MoleculeEvaluator:
    """Decodes samples, counts the valid, unique and novel among them, and compares the valid ones with the data.

    Metrics besides the fields of `MoleculeMetrics`, all over the valid samples of one call:
        qed_wasserstein, log_p_wasserstein, molecular_weight_wasserstein, ring_count_wasserstein: distance of the
            property's distribution to that of the training part; see `property_distances`.
        internal_diversity: of the distinct molecules; see that function.
        those of `Memory`, and of `AuthorsProtocol`.
        frechet_chemnet_distance: to the training part, where the package `fcd` is installed. It falls with the number
            of molecules, so it compares only at like numbers; the literature takes 10,000.

    What cannot be had of so few valid molecules is absent: of none the distances, below two the last two. Only
    `REFERENCE_SIZE` of the training part's rows, chosen by a fixed seed, stand for it, and `CHEMNET_REFERENCE_SIZE`
    for ChemNet. `facts` has the same scores of as many held-out rows: what samples as good as unseen data would get
    (and more for few held-out rows).
    """

    # Not the valid: one string drawn a thousand times is a thousand of those.
    headline = metrics.Headline("num_unique", "distinct valid molecules", higher_is_better=True)

    def __init__(self, dataset: TokenDataset, *, device: str = "auto", progress: Progress = True) -> None:
        self._dataset = dataset
        train = dataset.part("train")
        self._known = TrainingMolecules(train.decode(train.tokens), progress=progress)
        reference, held_out = (
            ParsedMolecules(_chosen(dataset.part(name), REFERENCE_SIZE)) for name in ("train", "test")
        )
        with rdBase.BlockLogs():
            self._reference = properties(reference.molecules)
        facts = {
            "training_molecules": float(len(self._known)),
            "reference_molecules": float(len(reference.smiles)),
            **{f"held_out_{name}": value for name, value in self._compare(held_out).items()},
        }
        self._memory, self._authors = Memory(dataset), AuthorsProtocol(dataset)
        facts |= self._memory.facts
        self._chemnet = None if extras.chemnet_release() is None else chemnet.ChemNet(resolve_device(device))
        self._chemnet_reference: Gaussian | None = None
        if self._chemnet is not None:
            texts = (_chosen(dataset.part(name), CHEMNET_REFERENCE_SIZE) for name in ("train", "test"))
            wide, wide_held_out = map(ParsedMolecules, texts)
            self._chemnet_reference = self._gaussian(wide)
            if (distance := self._chemnet_distance(wide_held_out)) is not None:
                facts["held_out_frechet_chemnet_distance"] = distance
        self.facts: Mapping[str, float] = facts
        missing = "Fréchet ChemNet Distance: not measured; it needs `pip install 'pairflow[fcd]'`"
        self.notes: tuple[str, ...] = (missing,) if self._chemnet is None else ()

    def measure(self, samples: np.ndarray) -> dict[str, float]:
        """Metrics of samples [N, D]; see the class."""
        tokens = metrics.check_samples(samples, self._dataset)
        parsed = ParsedMolecules(self._dataset.decode(tokens))
        counts = {name: float(count) for name, count in asdict(parsed.count(self._known)).items()}
        distance = self._chemnet_distance(parsed)
        scores = counts | self._compare(parsed) | self._memory.measure(tokens) | self._authors.measure(tokens)
        return scores | ({} if distance is None else {"frechet_chemnet_distance": distance})

    def _compare(self, parsed: ParsedMolecules) -> dict[str, float]:
        """The metrics that RDKit's properties give, those that can be had."""
        with rdBase.BlockLogs():
            scores = property_distances(parsed.molecules, self._reference)
            diversity = internal_diversity(list(parsed.distinct().values()))
        return scores if diversity is None else scores | {"internal_diversity": diversity}

    def _chemnet_distance(self, parsed: ParsedMolecules) -> float | None:
        features = self._gaussian(parsed)
        if features is None or self._chemnet_reference is None:
            return None
        return frechet_distance(features, self._chemnet_reference)

    def _gaussian(self, parsed: ParsedMolecules) -> Gaussian | None:
        """Of ChemNet's features, where there are some and they have a covariance."""
        if self._chemnet is None or len(parsed.smiles) < 2:
            return None
        return Gaussian.of(self._chemnet.features(parsed.smiles))


def _chosen(part: TokenDataset, at_most: int) -> list[str]:
    """The strings of at most that many rows, chosen by the seed."""
    rows = np.arange(len(part))
    if len(rows) > at_most:
        rows = np.sort(np.random.default_rng(_SEED).choice(rows, at_most, replace=False))
    return part.decode(part.tokens[rows])
