"""Distributions of molecules' properties, how far they lie from the data's, and how diverse molecules are; by RDKit."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import QED, Crippen, Descriptors, rdFingerprintGenerator, rdMolDescriptors
from scipy.stats import wasserstein_distance

PROPERTIES: dict[str, Callable[[Chem.Mol], float]] = {
    "qed": QED.qed,  # Bickerton et al., Nature Chemistry 4 (2012), 0 to 1
    "log_p": Crippen.MolLogP,  # type: ignore[attr-defined]  # Wildman and Crippen, J. Chem. Inf. Comput. Sci. 39 (1999)
    "molecular_weight": Descriptors.MolWt,  # type: ignore[attr-defined]  # g/mol, hydrogens included
    "ring_count": rdMolDescriptors.CalcNumRings,  # of the symmetrised smallest set of smallest rings: cubane has 6
}
_MOST_COMPARED = 5000  # molecules of which all pairs are compared: 12.5 million
_RADIUS, _BITS = 2, 2048


def properties(molecules: Sequence[Chem.Mol]) -> dict[str, np.ndarray]:
    """Property's name -> its values of `molecules`, float64 [N]; about a millisecond a molecule.

    A molecule that RDKit parses and then finds no value for is left out of that property, which is shorter by it. QED
    has such molecules: it rebuilds them without hydrogens, and C=c1nnncC=1 has no Kekulé form any more.
    """
    found: dict[str, list[float]] = {name: [] for name in PROPERTIES}
    for name, of in PROPERTIES.items():
        for molecule in molecules:
            with contextlib.suppress(ValueError, RuntimeError):  # RDKit's kinds
                found[name].append(of(molecule))
    return {name: np.array(values, np.float64) for name, values in found.items()}


def property_distances(molecules: Sequence[Chem.Mol], reference: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`<property>_wasserstein`: the distance W₁ between the molecules' property values and the reference's.

    It is in the property's own unit: how far values must be moved, on average, to turn one distribution into the
    other. Of no values, or to none, there is none.

    Args:
        molecules: valid samples, repeats included.
        reference: result of `properties` for the data.
    """
    return {
        f"{name}_wasserstein": float(wasserstein_distance(values, reference[name]))
        for name, values in properties(molecules).items()
        if len(values) and len(reference[name])
    }


def internal_diversity(molecules: Sequence[Chem.Mol]) -> float | None:
    """1 − the mean Tanimoto similarity over all pairs of two different molecules, 0 to 1; None below two molecules.

    On Morgan fingerprints of radius 2 and 2,048 bits, as the Therapeutics Data Commons defines diversity
    (arXiv 2102.09548). IntDiv₁ of MOSES (arXiv 1811.12823) differs: it takes 1,024 bits and counts each molecule as a
    pair with itself too, so it is lower, by its share of 1/N. Of more than 5,000 molecules the first 5,000 are taken.

    Args:
        molecules: distinct molecules.
    """
    if len(molecules) < 2:
        return None
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=_RADIUS, fpSize=_BITS)
    prints = [generator.GetFingerprint(molecule) for molecule in molecules[:_MOST_COMPARED]]
    similar = sum(
        float(np.sum(DataStructs.BulkTanimotoSimilarity(prints[i], prints[:i]))) for i in range(1, len(prints))
    )
    return 1 - similar / (len(prints) * (len(prints) - 1) / 2)
