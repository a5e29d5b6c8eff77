"""`pairflow prepare` and who finds what it left, from the command line to the store, on a real Ray cluster."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import storage
from pairflow import datasets
from pairflow.spec import DatasetSpec

from .conftest import Cli, Finished

pytestmark = pytest.mark.story

_NUM_ROWS = 26_000  # more text than is prepared in the job's own process


def _json(done: Finished) -> dict[str, Any]:
    assert done.code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.last_line)
    return document


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chains and rings of many lengths, and now and then a row that is none."""
    path = tmp_path_factory.mktemp("source") / "rows.csv"
    rows = ["name,structure"]
    for number in range(_NUM_ROWS):
        chain = "C" * (number % 23 + 1)
        smiles = "C(" if number % 997 == 0 else f"{'N' * (number % 3)}{chain}c1ccc({chain[:9]}O)cc1"
        rows.append(f'"n, {number}",{smiles}')
    path.write_text("\n".join(rows))
    time.sleep(2.1)  # what was written a moment ago may be written again without a sign: nobody remembers it
    return path


@pytest.fixture(scope="module")
def arguments(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    store = tmp_path_factory.mktemp("prepared") / "store"
    return ["--dataset", "smiles", "--path", source, "--column", "structure", "--store", store]


@pytest.fixture(scope="module")
def prepared(cli: Cli, arguments: list[object]) -> dict[str, Any]:
    return _json(cli("prepare", *arguments, "--json"))


def test_tasks_give_what_one_process_gives(prepared: dict[str, Any], source: Path, tmp_path: Path) -> None:
    spec = DatasetSpec(name="smiles", path=str(source), column="structure")
    whole = datasets.load(spec, cache_dir=tmp_path, progress=False)
    assert prepared["digest"] == whole.digest
    assert prepared["digests"] == {part: whole.part(part).digest for part in ("train", "test")}
    assert prepared["dropped"] == whole.report.dropped == {"not read by RDKit": 27}
    assert prepared["examples"]["not read by RDKit"] == [f"rows.csv row {997 * n}: 'C('" for n in range(3)]
    assert (prepared["rows_read"], prepared["rows_kept"]) == (_NUM_ROWS, _NUM_ROWS - 27)
    assert prepared["skipped"] is False
    assert Path(prepared["url"]).name == prepared["fingerprint"]


def test_again_it_is_found_and_nothing_is_started(prepared: dict[str, Any], cli: Cli, arguments: list[object]) -> None:
    done = cli("prepare", *arguments, "--json")
    found = _json(done)
    assert found == prepared | {"skipped": True, "seconds": found["seconds"]}
    assert "nothing to do: these rows are prepared" in done.stderr


def test_damage_is_named_and_made_good(prepared: dict[str, Any], cli: Cli, arguments: list[object]) -> None:
    tokens = Path(prepared["url"]) / "tokens" / "c.0.0"
    sound = tokens.read_bytes()
    for command in (["prepare", *arguments], ["verify", prepared["url"], "--repair"]):
        _flip(tokens)
        found = cli("verify", prepared["url"])
        assert found.code == 1
        assert f"hash mismatch: its bytes are not those that were written ({tokens})" in found.stderr
        done = cli(*command)
        assert done.code == 0, done.stderr
        assert str(tokens) in done.stderr
        assert tokens.read_bytes() == sound
    assert cli("verify", prepared["url"], "--json").code == 0


def test_what_cannot_be_made_again_is_not_given_up(
    prepared: dict[str, Any], cli: Cli, source: Path, tmp_path: Path
) -> None:
    """What is not damaged would be lost with it."""
    tokens = Path(prepared["url"]) / "tokens" / "c.0.0"
    sound, rows = tokens.read_bytes(), source.read_bytes()
    _flip(tokens)
    before = {path: path.stat().st_mtime_ns for path in Path(prepared["url"]).rglob("*")}
    source.write_bytes(rows + b'\n"one more",CCO')
    changed = cli("verify", prepared["url"], "--repair")
    source.rename(tmp_path / "away")
    gone = cli("verify", prepared["url"], "--repair")
    source.write_bytes(rows)
    for done, says in ((changed, "is not what"), (gone, str(source))):
        assert done.code == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in Path(prepared["url"]).rglob("*")} == before
    tokens.write_bytes(sound)


def test_pairs_are_of_what_is_kept(prepared: dict[str, Any], cli: Cli, arguments: list[object]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(prepared["url"]).rglob("*")}
    options = ["--num-steps", 2, "--max-rows", 300, "--shard-size", 100, "--json"]
    pairs = _json(cli("pair", *arguments, *options))
    assert {path: path.stat().st_mtime_ns for path in Path(prepared["url"]).rglob("*")} == before
    kept = storage.take_inventory(arguments[-1]).datasets  # type: ignore[arg-type]
    assert [each.state for each in kept] == ["complete", "complete"]
    (chosen,) = [each for each in kept if each.fingerprint != prepared["fingerprint"]]
    assert chosen.header is not None
    assert chosen.header.digests["train"] == pairs["dataset_digest"]
    listed = json.loads(cli("ls", arguments[-1], "--json").last_line)["prepared"]
    assert {each["num_rows"] for each in listed} == {300, _NUM_ROWS - 27}
    assert "prepared datasets" in cli("ls", arguments[-1]).stdout


def test_what_a_run_or_pairs_need_is_not_removed(prepared: dict[str, Any], cli: Cli, arguments: list[object]) -> None:
    """The rows that were chosen have pairs; all rows have neither pairs nor a run, and can be made again."""
    options = ["--unreferenced", "--older-than", 0, "--yes", "--json"]
    removed = json.loads(cli("gc", arguments[-1], *options).last_line)["removed"]
    assert [each["url"] for each in removed if "/datasets/" in each["url"]] == [prepared["url"]]
    (left,) = storage.take_inventory(arguments[-1]).datasets  # type: ignore[arg-type]
    assert storage.verify_dataset(left.url).ok
    shutil.rmtree(Path(str(arguments[-1])) / "pairs")
    assert json.loads(cli("gc", arguments[-1], *options).last_line)["removed"] == []  # MLflow has a run of it
    assert left.header is not None
    assert left.url in cli("lineage", left.header.digests["train"], "--json").stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--column", "smiles"], r"has columns ['name', 'structure'], expected one named 'smiles'"),
        (["--store", "{source}"], "a file lies where a folder is needed"),
    ],
)
def test_what_is_refused(cli: Cli, arguments: list[object], source: Path, options: list[str], says: str) -> None:
    done = cli("prepare", *arguments, *(text.format(source=source) for text in options))
    assert done.code == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
