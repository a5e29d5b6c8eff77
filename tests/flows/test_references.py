"""REF: one grammar, whichever command reads it, and one text that says what is expected."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import storage
from flows import references
from flows.cluster.protocol import JobContext
from flows.command.app import app
from flows.home.settings import Settings
from flows.lineage import models, stored_pairs, tags
from flows.lineage import trial as trials
from flows.lineage.errors import LineageError
from flows.lineage.registry import Registry
from flows.lineage.tracing import starts
from flows.lineage.tracking import Lineage
from flows.references import Digits, Folder, ModelId, Other, PairsUrl, RegisteredModel
from pairflow.errors import CheckpointError, PairFlowError, StoreError
from pairflow.spec import DatasetSpec

from .conftest import Cli
from .model_files import trained

# MLflow's own: of a SQLAlchemy that is newer than it, and of its own type hints.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

_ID, _HASH = "m-" + "0a" * 16, "0123456789abcdef" * 4


class TestGrammar:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (_ID, ModelId(_ID)),
            (f"models:/{_ID}", ModelId(_ID)),
            ("pairflow-qm9@champion", RegisteredModel("pairflow-qm9", "champion")),
            ("models:/pairflow-qm9@champion", RegisteredModel("pairflow-qm9", "champion")),
            ("pairflow-qm9/3", RegisteredModel("pairflow-qm9", "3")),
            (_HASH, Digits(_HASH)),
            (_HASH[:6], Digits(_HASH[:6])),
            ("123456", Digits("123456")),
            (f"/store/pairs/{_HASH}.zarr", PairsUrl(f"/store/pairs/{_HASH}.zarr", _HASH)),
            (f"s3://a/b/pairs/{_HASH}.parquet/", PairsUrl(f"s3://a/b/pairs/{_HASH}.parquet", _HASH)),
            ("qm9", Other("qm9")),
            ("/nosuch/folder", Other("/nosuch/folder")),
            ("", Other("")),
            # Too short, too long, in capitals, no hexadecimal digits, of another folder, not quite a model's.
            *((text, Other(text)) for text in (_HASH[:5], f"{_HASH}0", _HASH.upper(), "12345g")),
            *((text, Other(text)) for text in (f"/x/{_HASH}.zarr", f"/pairs/{_HASH}.csv", f"/pairs/{_HASH[:9]}.zarr")),
            *((text, Other(text)) for text in ("m-123", _ID[:-1], "a@b@c", "a/b/3", "a@", "@b", "a/", "-a@b", "a/x")),
        ],
    )
    def test_form(self, text: str, expected: references.Reference) -> None:
        assert references.parse(text) == expected

    def test_paths_mean_the_same_elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("abcdef", "qm9", "m"):  # a folder that is there comes before what its name looks like
            (tmp_path / name).mkdir()
            assert references.parse(name) == references.parse(f"~/{name}") == Folder(tmp_path / name)
            assert references.absolute(name) == references.absolute(f"./{name}") == str(tmp_path / name)
        url = f"pairs/{_HASH}.zarr"
        assert references.parse(url) == PairsUrl(str(tmp_path / url), _HASH)
        assert references.absolute(f"~/{url}") == references.absolute(url) == str(tmp_path / url)
        for text in (_ID, f"models:/{_ID}", "a@b", "models:/a/3", _HASH, "digits", f"s3://b/{url}"):
            assert references.absolute(text) == text

    @given(st.text())
    def test_any_text_is_something(self, text: str) -> None:
        """Of no kind but `Other` unless it is made of what that kind is made of."""
        kind = type(references.parse(text))
        plain = text.isascii() and not any(each.isspace() for each in text)
        assert kind in (Other, Folder) or (kind is PairsUrl and "pairs/" in text) or plain

    @pytest.mark.parametrize("text", ["\0", "~nobody-of-this-name/x", "x" * 5000, "/".join(["x" * 300] * 20), "\ud800"])
    def test_what_can_be_no_path(self, text: str) -> None:
        assert references.parse(text) == Other(text)
        with pytest.raises(CheckpointError, match="no model"):
            models.resolve(text, Settings())


@dataclass(frozen=True)
class _Known:
    """One training that this home and MLflow know, its model registered, and all that stands for the model."""

    settings: Settings
    lineage: Lineage
    model_id: str
    run_id: str
    fingerprint: str
    checkpoint: Path
    version: str


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> _Known:
    settings = Settings(home=tmp_path_factory.mktemp("known"))
    fingerprint = "fedcba9876543210" * 4
    checkpoint, train = trained(DatasetSpec(name="digits", max_rows=40), settings.runs_dir / fingerprint)
    (settings.runs_dir / fingerprint / "result.json").write_text("{}")  # it is finished, and says nothing of MLflow
    lineage = Lineage(settings)
    context = JobContext(submission_id=None, flow_run_id="1")
    with lineage.run("digits", "train", fingerprint, name="train", specs={}, context=context) as run:
        sha256 = models.FoundModel.at(checkpoint).sha256
        made = {tags.DATASET_DIGEST: train.digest, tags.CHECKPOINT_SHA256: sha256, tags.FINGERPRINT: fingerprint}
        run.tag(made)
        model_id = run.log_model("digits-udlm", checkpoint, params={}, tags=made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "sample_once", lambda *_: None)  # test_registry.py is about that
        version = Registry(lineage).register("digits", model_id, description="", tags={})
    Registry(lineage).promote(version, "the first")
    return _Known(settings, lineage, model_id, run.run_id, fingerprint, checkpoint, str(version.number))


def _references_of(known: _Known) -> dict[str, str]:
    """Reference -> what a trace of it starts from."""
    model, version = f"model:{known.model_id}", f"version:pairflow-digits/{known.version}"
    return {
        known.model_id: model,
        f"models:/{known.model_id}": model,
        "pairflow-digits@champion": version,
        f"models:/pairflow-digits/{known.version}": version,
        known.fingerprint: model,
        known.fingerprint[:6]: model,
        str(known.checkpoint): model,
        str(known.checkpoint.parents[1]): model,
        known.run_id: f"run:{known.run_id}",
    }


def test_every_form_stands_for_the_model_and_for_its_node(known: _Known) -> None:
    sha256 = models.FoundModel.at(known.checkpoint).sha256
    for reference, node in _references_of(known).items():
        assert models.resolve(reference, known.settings).sha256 == sha256
        assert models.for_job(reference) == reference
        assert starts.find(references.parse(reference), known.lineage.client).nodes == (node,)


def test_a_run_that_made_no_model(known: _Known) -> None:
    client = known.lineage.client
    other = client.create_run(known.lineage.experiment("digits")).info.run_id
    for run_id in (other, "0" * 32):
        with pytest.raises(CheckpointError, match=f"no model '{run_id}': no training under"):
            models.resolve(run_id, known.settings)


def test_a_home_without_a_history_does_not_get_one_by_asking(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no training under"):
        models.resolve("0" * 32, Settings(home=tmp_path))
    assert list(tmp_path.iterdir()) == []


_HEADER = {
    "num_rows": 6,
    "length": 2,
    "vocab_size": 7,
    "shard_size": 4,
    "spec": {"kind": "closed_form", "num_steps": 20, "seed": 0, "temperature": 1.0},
    "dataset": {"name": "tokens", "digest": "cd" * 32},
    "engine": "cpu/1",
}
_FIRST, _SECOND, _PARTIAL = "aaaaaa1" + "0" * 57, "aaaaaa2" + "0" * 57, "bbbbbb" + "0" * 58


def _write(store: str, fingerprint: str, format: str = "zarr", *, whole: bool = True) -> str:
    header = storage.PairsHeader.model_validate({**_HEADER, "fingerprint": fingerprint, "format": format})
    url = storage.pairs_url(store, fingerprint, header.format)
    header = storage.begin_pairs(url, header)
    for shard in header.plan() if whole else ():
        rows = np.arange(shard.start, shard.stop)
        tokens = np.stack([rows, rows], axis=1).astype(header.dtype)
        storage.write_shard(url, header, shard.index, tokens, tokens, rows)
    if whole:
        storage.commit_pairs(url, header, {}, progress=False)
    return url


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two couplings whose fingerprints begin alike, one of them in both formats, and a partial one."""
    url = str(tmp_path_factory.mktemp("references") / "store")
    for fingerprint, format in ((_FIRST, "parquet"), (_FIRST, "zarr"), (_SECOND, "parquet")):
        _write(url, fingerprint, format)
    _write(url, _PARTIAL, whole=False)
    return url


class TestPairs:
    def test_fingerprints(self, store: str) -> None:
        assert stored_pairs.url_of(_FIRST, store) == f"{store}/pairs/{_FIRST}.zarr"
        assert stored_pairs.url_of(_SECOND[:7], store) == f"{store}/pairs/{_SECOND}.parquet"
        assert stored_pairs.url_of(_PARTIAL[:6], store) == f"{store}/pairs/{_PARTIAL}.zarr"

    def test_what_is_whole_comes_before_a_partial_twin(self, tmp_path: Path) -> None:
        whole = _write(str(tmp_path), _FIRST, "parquet")
        _write(str(tmp_path), _FIRST, "zarr", whole=False)
        assert stored_pairs.url_of(_FIRST[:6], str(tmp_path)) == whole

    def test_urls_are_not_looked_for(self, tmp_path: Path) -> None:
        nowhere = f"{tmp_path}/nosuch/pairs/{_FIRST}.zarr"
        for url in (nowhere, f"s3://nosuch/pairs/{_FIRST}.parquet", str(tmp_path), f"{tmp_path}/copy.zarr"):
            assert stored_pairs.url_of(url, "/nosuch/store") == url

    @pytest.mark.parametrize(
        ("reference", "says"),
        [
            ("aaaaaa", r"stands for 2 pairs in .*: aaaaaa100000, aaaaaa200000; give more digits"),
            ("cccccc", "none in .* have a fingerprint that begins so"),
            ("aaaaa", "neither of these"),
            (_ID, "a model's id"),
            ("pairflow-qm9@champion", "a registered model"),
        ],
    )
    def test_what_is_wrong_is_said(self, store: str, reference: str, says: str) -> None:
        with pytest.raises(StoreError, match=says) as caught:
            stored_pairs.url_of(reference, store)
        assert "more digits" in str(caught.value) or f"expected {references.PAIRS}" in str(caught.value)


# Each command that takes a REF, with what goes before it, and where its help says what it expects.
_DATA = ("--dataset", "digits")
_OF_A_MODEL = {
    "sample": ("--out", "out.npy", "--model"),
    "register": (),
    "pair": (*_DATA, "--coupling", "redi", "--model"),
    "distill": (*_DATA, "--method", "udlm+dcd", "--model"),
    "evaluate": (*_DATA, "--model"),
}
_OF_PAIRS = {
    "inspect": (),
    "verify": (),
    "export": ("--format", "parquet"),
    "train": (*_DATA, "--pairs"),
    "distill": (*_DATA, "--method", "pairflow+dcd", "--pairs"),
    "evaluate": (*_DATA, "--pairs"),
    "pair": (*_DATA, "--extend"),
}


def _refused(command: str, arguments: tuple[str, ...], reference: str) -> PairFlowError:
    done = CliRunner().invoke(app, [command, *arguments, reference])
    assert done.exit_code == 1
    assert isinstance(done.exception, PairFlowError), done.exception
    return done.exception


@pytest.fixture
def _nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.environ", {"PAIRFLOW_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)})
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_nothing_here")
class TestCommands:
    """A REF that stands for nothing is refused before any server is started."""

    @pytest.mark.parametrize("command", _OF_A_MODEL)
    @pytest.mark.parametrize("reference", ["m-123", "", "abc", f"/x/pairs/{_HASH}.zarr"])
    def test_no_model(self, command: str, reference: str, tmp_path: Path) -> None:
        error = _refused(command, _OF_A_MODEL[command], reference)
        assert isinstance(error, CheckpointError)
        assert f"no model '{reference}'" in str(error)
        assert f"expected {references.MODEL}" in str(error)
        assert not (tmp_path / "home" / "mlflow").exists()

    @pytest.mark.parametrize("command", _OF_PAIRS)
    @pytest.mark.parametrize("reference", ["cccccc", "", "abc", _ID, "pairflow-qm9/3"])
    def test_no_pairs(self, command: str, reference: str, tmp_path: Path) -> None:
        error = _refused(command, _OF_PAIRS[command], reference)
        assert isinstance(error, StoreError)
        assert f"no pairs '{reference}'" in str(error)
        assert f"expected {references.PAIRS}" in str(error)
        assert not (tmp_path / "home" / "mlflow").exists()

    @pytest.mark.parametrize("reference", ["m-123", "", "abc", "cccccc", "/nosuch"])
    def test_nothing_to_trace(self, reference: str, known: _Known, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PAIRFLOW_HOME", str(known.settings.home))
        error = _refused("lineage", (), reference)
        assert isinstance(error, LineageError)
        assert f"expected {references.ANYTHING}" in str(error)


def test_every_help_says_it_in_the_same_words() -> None:
    commands = vars(typer.main.get_command(app))["commands"]
    wants = {name: [each for each in command.params if each.metavar == "REF"] for name, command in commands.items()}
    helps = {name: [each.help for each in options] for name, options in wants.items() if options}
    assert set(helps) == {*_OF_A_MODEL, *_OF_PAIRS, "lineage"}
    expected = {name: [*(["model"] * (name in _OF_A_MODEL)), *(["pairs"] * (name in _OF_PAIRS))] for name in helps}
    expected["lineage"] = ["anything"]
    texts = {"model": references.MODEL, "pairs": references.PAIRS, "anything": references.ANYTHING}
    for name, kinds in expected.items():
        assert len(helps[name]) == len(kinds)
        for kind in kinds:
            assert any(texts[kind][1:] in text for text in helps[name]), (name, kind)  # of a sentence or within one


def test_pairs_by_a_short_fingerprint(bare_cli: Cli, store: str, tmp_path: Path) -> None:
    """`inspect`, `verify` and `export` say of it what they say of the URL."""
    shutil.copytree(store, tmp_path / "store")
    copied = str(tmp_path / "store")
    url = f"{copied}/pairs/{_SECOND}.parquet"

    def answer(*arguments: str) -> object:
        done = bare_cli(*arguments, "--json", PAIRFLOW_STORE=copied)
        assert done.code == 0, done.stderr
        return json.loads(done.last_line)

    assert answer("inspect", _SECOND[:7]) == answer("inspect", url)
    assert answer("verify", _SECOND[:7]) == answer("verify", url)
    exported = answer("export", _SECOND[:7], "--format", "zarr")
    assert isinstance(exported, dict)
    assert exported["url"] == f"{copied}/pairs/{_SECOND}.zarr"
    manifests = [storage.open_pairs(each).manifest for each in (url, exported["url"])]
    assert manifests[0].content_sha256 == manifests[1].content_sha256 == exported["content_sha256"]
    damaged = Path(copied, "pairs", f"{_FIRST}.zarr", "source", "zarr.json")
    damaged.write_bytes(b"{")
    found = bare_cli("verify", _FIRST[:7], PAIRFLOW_STORE=copied)
    assert found.code == 1
    assert str(damaged) in found.stderr
    several = bare_cli("verify", "aaaaaa", PAIRFLOW_STORE=copied)
    assert several.code == 1
    assert "give more digits" in several.stderr
    assert "Traceback" not in several.stderr
