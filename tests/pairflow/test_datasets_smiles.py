"""SMILES to tokens and back, and what becomes of rows that RDKit or the tokeniser does not take."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

from pairflow import datasets
from pairflow.datasets.screening import Verdict, screen, screen_rows
from pairflow.datasets.vocabulary import Vocabulary, tokenise
from pairflow.errors import DatasetError, SpecError
from pairflow.spec import DatasetSpec, parse


@pytest.mark.parametrize(
    ("smiles", "tokens"),
    [
        ("CCO", ["C", "C", "O"]),
        ("ClCBr", ["Cl", "C", "Br"]),
        ("C[C@@H](N)C(=O)[O-]", ["C", "[C@@H]", "(", "N", ")", "C", "(", "=", "O", ")", "[O-]"]),
        ("[13CH4]", ["[13CH4]"]),
        ("C%12CC%12", ["C", "%12", "C", "C", "%12"]),
        ("C%(123)C", ["C", "%(123)", "C"]),
        ("c1cc[nH]c1", ["c", "1", "c", "c", "[nH]", "c", "1"]),
        ("F/C=C\\F", ["F", "/", "C", "=", "C", "\\", "F"]),
        ("[Na+].[Cl-]", ["[Na+]", ".", "[Cl-]"]),
        ("N->[Pt]<-N", ["N", "->", "[Pt]", "<-", "N"]),
        ("CC1=CSC=C1I", ["C", "C", "1", "=", "C", "S", "C", "=", "C", "1", "I"]),
        ("C~C:c*", ["C", "~", "C", ":", "c", "*"]),
        ("", []),
    ],
)
def test_tokens_of_smiles(smiles, tokens):
    assert tokenise(smiles) == tokens


@pytest.mark.parametrize("text", ["C C", "CXC", "[C", "C]", "C@C", "<bos>", "C%1", "Ĉ", "C\n", "[]", "C١"])
def test_what_is_no_smiles_has_no_tokens(text):
    assert tokenise(text) is None


@given(st.text(alphabet="BCNOFHclrnos[]()=#@+-%0123/\\. ", max_size=30))
def test_tokens_join_to_their_text_or_there_are_none(text):
    tokens = tokenise(text)
    assert tokens is None or "".join(tokens) == text


smiles_like = st.lists(
    st.sampled_from(["C", "c", "Cl", "Br", "B", "[C@@H]", "[nH]", "%10", "1", "(", ")", "=", "[O-]", "->"]),
    max_size=18,
)


@given(st.lists(smiles_like, min_size=1, max_size=8))
def test_decode_inverts_encode(rows):
    vocab = Vocabulary.from_rows(rows)
    encoded = vocab.encode(rows, 20)
    assert encoded.shape == (len(rows), 20)
    assert vocab.decode(encoded) == ["".join(row) for row in rows]


@given(st.lists(smiles_like, min_size=1, max_size=8), st.randoms())
def test_vocabulary_does_not_depend_on_the_order_of_rows(rows, random):
    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert Vocabulary.from_rows(rows) == Vocabulary.from_rows(shuffled)


def test_vocabulary_is_specials_then_code_points():
    vocab = Vocabulary.from_rows([["c", "Br"], ["C", "[nH]", "1"]])
    assert vocab.tokens == ("<bos>", "<eos>", "<pad>", "1", "Br", "C", "[nH]", "c")
    assert (vocab.size, vocab.index("Br"), vocab.ids["c"]) == (8, 4, 7)
    assert (Vocabulary.bos, Vocabulary.eos, Vocabulary.pad) == vocab.tokens[:3]


def test_encode_refuses_what_does_not_fit():
    vocab = Vocabulary.from_rows([["C", "O"]])
    np.testing.assert_array_equal(vocab.encode([["O"], []], 4), [[0, 4, 1, 2], [0, 1, 2, 2]])
    with pytest.raises(DatasetError, match=r"row 1: token 'N' is not among the vocabulary's 5 tokens"):
        vocab.encode([["C"], ["C", "N"]], 8)
    with pytest.raises(DatasetError, match="row 0 has 3 tokens, at most 2 fit"):
        vocab.encode([["C", "C", "C"]], 4)
    with pytest.raises(DatasetError, match="'N' is not among"):
        vocab.index("N")
    with pytest.raises(DatasetError, match="'a' stands in it more than once"):
        Vocabulary(("a", "b", "a"))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([0, 3, 4, 1, 2, 2], "CO"),
        ([0, 3, 1, 4, 1, 2], "C"),  # the first <eos> ends it
        ([2, 0, 3, 1, 2, 2], "C"),  # the first <bos> begins it
        ([3, 4, 3, 1, 2, 2], ""),
        ([0, 3, 4, 3, 4, 3], ""),
        ([1, 0, 3, 4, 3, 4], ""),
        ([0, 1, 3, 3, 3, 3], ""),
        ([0, 3, 2, 3, 1, 2], "C<pad>C"),
        ([0, 3, 0, 3, 1, 2], "C<bos>C"),
    ],
)
def test_decoding_what_a_model_may_write(row, text):
    assert Vocabulary.from_rows([["C", "O"]]).decode(np.array([row])) == [text]


def test_decode_refuses_what_are_no_rows():
    vocab = Vocabulary.from_rows([["C"]])
    assert vocab.decode(np.empty((0, 5), dtype=np.uint8)) == []
    for rows, message in [
        (np.zeros(3, dtype=int), r"\[B, D\]"),
        (np.zeros((1, 3)), "float64"),
        (np.array([[0, 4]]), "0 … 4, expected 0 … 3"),
        (np.array([[-1, 0]]), "-1 … 0"),
    ]:
        with pytest.raises(DatasetError, match=message):
            vocab.decode(rows)


def test_screening_counts_every_row_by_what_became_of_it(tmp_path):
    path = tmp_path / "some.smi"
    path.write_text("OCC a name\n\nnonsense\nC(C)(C)(C)(C)C\n[Na+].CC(=O)[O-]\nC1CC\n")
    bad = [Verdict.EMPTY, Verdict.UNREADABLE, Verdict.UNREADABLE]

    def screened(treatment):
        found = screen(path, treatment=treatment, cache_dir=tmp_path, progress=False)
        return found.smiles, found.verdicts.tolist()

    texts, verdicts = screened("published")
    assert texts == ["OCC", "", "nonsense", "C(C)(C)(C)(C)C", "[Na+].CC(=O)[O-]", "C1CC"]
    assert verdicts == [Verdict.KEPT, *bad, Verdict.KEPT, Verdict.UNREADABLE]
    texts, verdicts = screened("canonical")
    assert (texts[0], texts[4]) == ("CCO", "CC(=O)[O-].[Na+]")
    texts, verdicts = screened("standardised")
    assert (texts[0], texts[4]) == ("CCO", "CC(=O)[O-]")
    assert verdicts == [Verdict.KEPT, *bad, Verdict.KEPT, Verdict.UNREADABLE]
    assert len(list((tmp_path / "prepared").iterdir())) == 3


def _one_by_one(rows):
    """What is to come of rows, by RDKit's calls for one molecule."""
    chooser = rdMolStandardize.LargestFragmentChooser()
    with rdBase.BlockLogs():
        for text in rows:
            if (molecule := Chem.MolFromSmiles(text)) is None:
                yield text, Verdict.UNREADABLE
            else:
                yield Chem.MolToSmiles(chooser.choose(rdMolStandardize.Cleanup(molecule))), Verdict.KEPT


def _rows_of_nci(count):
    path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    return [line.split()[0] for line in path.read_text().splitlines()[:count]]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_molecules_are_cleaned_up_together_as_each_by_itself(num_threads):
    rows = ["nonsense", *_rows_of_nci(700)]
    found = screen_rows(rows, "standardised", of_records=False, num_threads=num_threads)
    assert [*zip(found.smiles, found.verdicts, strict=True)] == [*_one_by_one(rows)]


def test_one_that_cannot_be_cleaned_up_keeps_no_other_from_it(monkeypatch):
    rows = _rows_of_nci(20)
    clean, bad = rdMolStandardize.Cleanup, Chem.CanonSmiles(rows[7])

    def clean_in_place(molecules, num_threads):
        for molecule in molecules[:5]:
            molecule.GetAtomWithIdx(0).SetFormalCharge(3)  # it had begun
        raise RuntimeError("Invariant Violation")

    def clean_one(molecule):
        if Chem.MolToSmiles(molecule) == bad:
            raise ValueError("Can't kekulize mol")
        return clean(molecule)

    monkeypatch.setattr(rdMolStandardize, "CleanupInPlace", clean_in_place)
    expected = [*_one_by_one(rows)]
    expected[7] = rows[7], Verdict.NOT_STANDARDISED
    monkeypatch.setattr(rdMolStandardize, "Cleanup", clean_one)
    found = screen_rows(rows, "standardised", of_records=False)
    assert [*zip(found.smiles, found.verdicts, strict=True)] == expected


def test_a_changed_file_is_screened_again(tmp_path):
    path = tmp_path / "some.smi"
    for text in ("CCO\nCCC\n", "CCO\nCCN\n"):
        path.write_text(text)
        assert screen(path, treatment="published", cache_dir=tmp_path, progress=False).smiles == text.split()


def test_screening_without_a_place_to_keep_it(tmp_path, caplog):
    (tmp_path / "some.smi").write_text("CCO\n")
    (tmp_path / "file").write_text("")
    found = screen(tmp_path / "some.smi", treatment="published", cache_dir=tmp_path / "file", progress=False)
    assert found.smiles == ["CCO"]
    assert "not kept" in caplog.text


def test_bad_rows_are_reported_with_their_place(tmp_path):
    rows = ["smiles,y", *["CCO,1"] * 30, "CC(C,2", ",3", "C" * 40 + ",4", *["CCN,1"] * 10]
    (tmp_path / "qm9.csv").write_text("\n".join(rows))
    loaded = datasets.load(DatasetSpec(name="qm9"), data_dir=tmp_path, cache_dir=tmp_path, progress=False)
    assert loaded.report.rows_read == 43
    assert loaded.report.dropped == {"empty": 1, "longer than 30 tokens": 1, "not read by RDKit": 1}
    assert loaded.report.examples["not read by RDKit"] == ("qm9.csv row 30: 'CC(C'",)
    assert loaded.decode(loaded.tokens) == ["CCO"] * 30 + ["CCN"] * 10  # duplicates are samples too
    assert "40 of 43 rows kept" in loaded.report.summary()


def test_a_row_that_rdkit_reads_but_has_no_tokens(tmp_path):
    """RDKit passes over letters that are not ASCII; as text they belong to no token."""
    (tmp_path / "qm9.csv").write_text("smiles\n" + "CC\n" * 30 + "CC\u00e9\n")
    loaded = datasets.load(DatasetSpec(name="qm9"), data_dir=tmp_path, cache_dir=tmp_path, progress=False)
    assert loaded.report.dropped == {"not tokenised": 1}
    assert len(loaded) == 30


def test_no_row_left_is_an_error_with_the_reasons(tmp_path):
    (tmp_path / "qm9.csv").write_text("smiles\nnope\nC(\n")
    with pytest.raises(DatasetError, match=r"empty: 0 of 2 rows kept from .*qm9\.csv; dropped: 2 not read by RDKit"):
        datasets.load(DatasetSpec(name="qm9"), data_dir=tmp_path, cache_dir=tmp_path, progress=False)


class TestOwn:
    """A file or a folder of SMILES of one's own; rows are added by dropping a file in."""

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "molecules"
        folder.mkdir()
        (folder / "b.smi").write_text("CCO ethanol\nCC\n\nC(\n")
        (folder / "a.csv").write_text("name,smiles\nx,C#N\ny,C=O\n")
        return folder

    @staticmethod
    def load(path, tmp_path, **fields):
        spec = DatasetSpec(name="smiles", path=str(path), holdout=0.3, **fields)
        return datasets.load(spec, cache_dir=tmp_path / "cache", progress=False)

    def test_files_in_the_order_of_their_names(self, folder, tmp_path):
        loaded = self.load(folder, tmp_path)
        assert loaded.decode(loaded.tokens) == ["C#N", "C=O", "CCO", "CC"]
        assert loaded.length == 74
        assert loaded.report.source == str(folder)
        assert loaded.report.dropped == {"empty": 1, "not read by RDKit": 1}
        assert len(loaded.splits["test"]) == 1  # two files are no published split

    def test_another_file_and_unfinished_ones(self, folder, tmp_path):
        before = self.load(folder, tmp_path, max_length=8).digest
        for name in (".c.smi", "_c.smi", "c.smi.partial"):
            (folder / name).write_text("CCC\n")
        assert self.load(folder, tmp_path, max_length=8).digest == before
        (folder / ".c.smi").rename(folder / "c.smi")
        loaded = self.load(folder, tmp_path, max_length=8)
        assert loaded.decode(loaded.tokens)[-1] == "CCC"

    def test_one_file(self, folder, tmp_path):
        loaded = self.load(folder / "b.smi", tmp_path)
        assert loaded.decode(loaded.tokens) == ["CCO", "CC"]

    def test_what_is_refused(self, folder, tmp_path):
        with pytest.raises(DatasetError, match=r"nosuch\.smi does not exist"):
            self.load(folder / "nosuch.smi", tmp_path)
        with pytest.raises(DatasetError, match=r"molecules\.npy is no file of SMILES"):
            self.load("molecules.npy", tmp_path)
        (folder / "c.npy").touch()
        with pytest.raises(DatasetError, match=r"c\.npy is a file that ends in '\.npy'"):
            self.load(folder, tmp_path)
        for fields, says in (
            ({}, "needs a path"),
            ({"path": "x.smi", "vocab_size": 7}, "vocab_size can only be given"),
        ):
            with pytest.raises(SpecError, match=says):
                parse(DatasetSpec, {"name": "smiles", **fields})
