"""References to pairs, and every command that takes a REF: what it refuses before anything is started."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import storage
from flows.command.app import app
from flows.home import references
from flows.lineage import stored_pairs
from pairflow.errors import CheckpointError, PairFlowError, StoreError

from .conftest import Cli

_ID, _HASH = "m-" + "0a" * 16, "0123456789abcdef" * 4
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
    "export-model": (),
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
    after = ["folder"] if command == "export-model" else []
    done = CliRunner().invoke(app, [command, *arguments, reference, *after])
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
