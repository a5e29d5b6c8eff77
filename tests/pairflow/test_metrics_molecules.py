"""Molecules' properties against RDKit's documented values, distances by hand, diversity by brute force, FCD against the
features of its package and another form of the distance."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from pairflow import metrics
from pairflow.datasets.base import DatasetReport, TokenDataset
from pairflow.datasets.vocabulary import Vocabulary
from pairflow.metrics import chemnet, extras
from pairflow.metrics.molecules import MoleculeEvaluator, ParsedMolecules
from pairflow.metrics.properties import internal_diversity, properties, property_distances

VOCAB = Vocabulary(("<bos>", "<eos>", "<pad>", "C", "O", "N", "(", ")", "c", "1", "n", "="))
CHAINS = ("C", "CC", "CCO", "CCC", "CCN", "CCCO", "OCCO", "NCCO", "CCCC", "CN", "CO", "CCOC", "c1ccccc1", "Cc1ccccc1")


def molecules(*smiles):
    return [Chem.MolFromSmiles(text) for text in smiles]


def rows(*smiles, length=14):
    return VOCAB.encode([list(text) for text in smiles], length).astype(int)


def dataset(train, test=()):
    tokens = rows(*test, *train).astype(np.uint8)
    return TokenDataset(
        name="made-up",
        tokens=tokens,
        vocab_size=VOCAB.size,
        kind="molecules",
        vocab=VOCAB,
        image_shape=None,
        labels=None,
        splits={"train": np.arange(len(test), len(tokens)), "test": np.arange(len(test))},
        report=DatasetReport("made here", len(tokens), len(tokens)),
    )


@pytest.fixture
def no_chemnet(monkeypatch):
    monkeypatch.setattr(extras, "chemnet_release", lambda: None)


@pytest.mark.parametrize(
    ("smiles", "name", "expected", "tolerance"),
    [
        # The examples of rdkit/Chem/QED.py, which gives three figures.
        ("N=C(CCSCc1csc(N=C(N)N)n1)NS(N)(=O)=O", "qed", 0.2535, 5e-4),
        ("CNC(=NCCSCc1nc[nH]c1C)NC#N", "qed", 0.2345, 5e-4),
        ("CCCCCNC(=N)NN=Cc1c[nH]c2ccc(CO)cc12", "qed", 0.2345, 5e-4),
        # Getting Started with the RDKit in Python, "Descriptor Calculation".
        ("c1ccccc1C(=O)O", "log_p", 1.3848, 5e-5),
        # The examples of rdkit/Chem/Descriptors.py.
        ("CC", "molecular_weight", 30.07, 5e-4),
        ("[NH4+].[Cl-]", "molecular_weight", 53.49, 1e-2),
        # Cubane's six faces are alike, so RDKit's symmetrised SSSR has all, and not the five that span its cycles.
        ("C12C3C4C1C5C2C3C45", "ring_count", 6, 0),
        ("c1ccc2ccccc2c1", "ring_count", 2, 0),
        ("CCO", "ring_count", 0, 0),
    ],
)
def test_properties_are_those_that_rdkit_documents(smiles, name, expected, tolerance):
    values = properties(molecules(smiles))[name]
    assert values.dtype == np.float64
    assert values.tolist() == [pytest.approx(expected, abs=tolerance)]


def test_property_distances_by_hand():
    """W₁ of equally many values is the mean distance of the sorted ones; of one against many, their mean distance."""
    reference = properties(molecules("C", "CC", "C1CC1", "c1ccc2ccccc2c1"))  # 0, 0, 1 and 2 rings
    found = property_distances(molecules("C1CC1", "C12C3C4C1C5C2C3C45", "C", "C1CC1"), reference)
    assert set(found) == {f"{name}_wasserstein" for name in ("qed", "log_p", "molecular_weight", "ring_count")}
    assert found["ring_count_wasserstein"] == pytest.approx((0 + 1 + 0 + 4) / 4)  # of 0, 1, 1, 6
    lone = property_distances(molecules("CC"), reference)
    weights = np.array([16.043, 30.070, 42.081, 128.174])  # g/mol, by the standard atomic weights 12.011 and 1.008
    assert lone["molecular_weight_wasserstein"] == pytest.approx(np.abs(weights - 30.070).mean(), abs=2e-3)
    same = property_distances(molecules("c1ccc2ccccc2c1", "C", "C1CC1", "CC"), reference)
    assert same == {name: pytest.approx(0, abs=1e-12) for name in found}


def test_property_distances_of_nothing_or_to_nothing_are_absent():
    assert property_distances([], properties(molecules("C"))) == {}
    assert property_distances(molecules("C"), properties([])) == {}


WITHOUT_KEKULE = "C=c1nnncC=1"
"""A sample of a real model: RDKit parses it, and cannot remove its hydrogens, nor parse what it writes of it."""


def test_a_molecule_without_a_property_is_left_out_of_it_alone(no_chemnet):
    both, whole = properties(molecules("CC", WITHOUT_KEKULE)), properties(molecules("CC"))
    counts = {name: len(values) for name, values in both.items()}
    assert counts == {"qed": 1, "log_p": 2, "molecular_weight": 2, "ring_count": 2}
    assert both["qed"] == whole["qed"]
    assert "qed_wasserstein" not in property_distances(molecules(WITHOUT_KEKULE), whole)
    evaluator = metrics.evaluator(dataset(CHAINS), device="cpu", progress=False)
    scores, of_whole = evaluator.measure(rows("CC", WITHOUT_KEKULE)), evaluator.measure(rows("CC", "C("))
    assert (scores["num_valid"], scores["num_novel"]) == (2, 1)
    assert scores["qed_wasserstein"] == of_whole["qed_wasserstein"]


def test_internal_diversity_by_brute_force():
    """1 − mean |A ∩ B| / |A ∪ B| over all pairs of fingerprints, as sets of bits."""
    known = molecules("CCO", "CCN", "c1ccccc1", "Cc1ccccc1", "C1CC1", "CC(=O)OC", "OCC")
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    bits = [set(generator.GetFingerprint(each).GetOnBits()) for each in known]
    similar = [len(a & b) / len(a | b) for a, b in itertools.combinations(bits, 2)]
    assert internal_diversity(known) == pytest.approx(1 - np.mean(similar))
    assert internal_diversity(molecules("CCO", "OCC")) == 0
    assert internal_diversity(known[:1]) is None
    assert internal_diversity([]) is None


def test_distinct_molecules_are_those_of_different_canonical_smiles():
    parsed = ParsedMolecules(["OCC", "C(", "CCO", "", "CC", "C(C)O"])
    assert parsed.num_samples == 6
    assert list(parsed.distinct()) == ["CCO", "CC"]
    assert [each.GetNumAtoms() for each in parsed.distinct().values()] == [3, 2]


def test_evaluator_compares_valid_samples_with_the_training_part(no_chemnet):
    evaluator = metrics.evaluator(dataset(CHAINS[:8], CHAINS[8:12]), device="cpu", progress=False)
    scores = evaluator.measure(rows("CC", "CCO", "OCC", "C(", "c1ccccc1"))
    assert {name: scores[name] for name in ("num_samples", "num_valid", "num_unique", "num_novel")} == {
        "num_samples": 5,
        "num_valid": 4,
        "num_unique": 3,
        "num_novel": 1,
    }
    reference = properties(molecules(*CHAINS[:8]))
    valid = molecules("CC", "CCO", "OCC", "c1ccccc1")  # repeats count
    for name, value in property_distances(valid, reference).items():
        assert scores[name] == pytest.approx(value)
    assert scores["internal_diversity"] == pytest.approx(internal_diversity(molecules("CC", "CCO", "c1ccccc1")))
    held_out = property_distances(molecules(*CHAINS[8:12]), reference)
    assert {name: evaluator.facts[f"held_out_{name}"] for name in held_out} == held_out
    assert evaluator.facts["reference_molecules"] == 8


def test_training_rows_as_samples_have_no_distance(no_chemnet):
    evaluator = metrics.evaluator(dataset(CHAINS), device="cpu", progress=False)
    scores = evaluator.measure(rows(*CHAINS))
    assert [value for name, value in scores.items() if name.endswith("_wasserstein")] == [pytest.approx(0)] * 4
    assert not any(name.startswith("held_out") for name in evaluator.facts)  # nothing is held out


@pytest.mark.parametrize(
    ("samples", "absent"),
    [
        (("C(", "("), {"internal_diversity", "qed_wasserstein", "ring_count_wasserstein"}),
        (("CC", "("), {"internal_diversity"}),
        (("CCO", "OCC"), {"internal_diversity"}),
    ],
)
def test_what_cannot_be_had_of_few_molecules_is_absent_and_never_nan(no_chemnet, samples, absent):
    scores = metrics.evaluator(dataset(CHAINS), device="cpu", progress=False).measure(rows(*samples))
    assert not absent & set(scores)
    assert all(map(math.isfinite, scores.values()))
    json.dumps(scores, allow_nan=False)


def test_a_large_part_is_stood_for_by_a_seeded_choice(no_chemnet, monkeypatch):
    monkeypatch.setattr("pairflow.metrics.molecules.REFERENCE_SIZE", 5)
    data = dataset(CHAINS, CHAINS[:7])
    first, second = (MoleculeEvaluator(data, device="cpu", progress=False) for _ in range(2))
    assert first.facts["reference_molecules"] == 5
    assert first.facts["training_molecules"] == len(CHAINS)  # novelty is counted against all
    assert first.facts == second.facts


def test_without_the_package_chemnet_is_not_measured_and_it_says_so(no_chemnet, caplog):
    caplog.set_level("INFO", logger="pairflow.metrics")
    data = dataset(CHAINS, CHAINS[:4])
    evaluator = metrics.evaluator(data, device="cpu", progress=False)
    assert "frechet_chemnet_distance" not in evaluator.measure(rows(*CHAINS))
    assert "pip install 'pairflow[fcd]'" in caplog.text
    assert metrics.version(data) == metrics.VERSION


def distance_of_samples(first, second):
    """Fréchet distance without a covariance: tr (C₁ C₂)^½ is the nuclear norm of the centred features' product."""
    centred = [each - each.mean(axis=0) for each in (first, second)]
    traces = sum(np.square(each).sum() / (len(each) - 1) for each in centred)
    product = centred[0] @ centred[1].T / np.sqrt((len(first) - 1) * (len(second) - 1))
    shift = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    return shift + traces - 2 * np.linalg.svd(product, compute_uv=False).sum()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the package's use of numpy
def test_chemnet_distance_is_that_of_the_packages_features():
    fcd = pytest.importorskip("fcd")
    train, samples = list(CHAINS), ["CCCCC", "CC(C)O", "NCCN", "OCCCO", "Oc1ccccc1", "CCCN"]
    data = dataset(train, CHAINS[:4])
    evaluator = metrics.evaluator(data, device="cpu", progress=False)
    scores = evaluator.measure(rows(*samples, "C("))
    network = chemnet.ChemNet(torch.device("cpu"))._network
    features = [
        fcd.get_predictions(network, [Chem.CanonSmiles(text) for text in texts], n_jobs=0, device="cpu")
        for texts in (samples, train, CHAINS[:4])
    ]
    expected, held_out = (distance_of_samples(each, features[1]) for each in (features[0], features[2]))
    assert scores["frechet_chemnet_distance"] == pytest.approx(expected, rel=1e-3)
    assert evaluator.facts["held_out_frechet_chemnet_distance"] == pytest.approx(held_out, rel=1e-3)
    assert "frechet_chemnet_distance" not in evaluator.measure(rows("CC", "C("))
    assert evaluator.notes == ()
    assert metrics.version(data) == f"{metrics.VERSION} fcd/{fcd.__version__}"


def test_chemnet_features_do_not_depend_on_the_batch(monkeypatch):
    pytest.importorskip("fcd")
    network = chemnet.ChemNet(torch.device("cpu"))
    whole = network.features(CHAINS)
    assert whole.shape == (len(CHAINS), 512)
    assert whole.dtype == np.float64
    monkeypatch.setattr(chemnet, "_BATCH_SIZE", 3)
    np.testing.assert_allclose(network.features(CHAINS), whole, atol=1e-5)
