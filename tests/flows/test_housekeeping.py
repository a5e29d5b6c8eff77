"""`pairflow verify --repair`, `ls`, `gc` and `export`, from the command line, on a real Ray cluster and real MLflow."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import storage
from flows.cluster.local import head_command
from storage.garbage import LONGEST_WAIT_S

from .conftest import Cli, Finished


def _json(done: Finished) -> dict[str, Any]:
    assert done.code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.last_line)
    return document


def _files(url: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(url).rglob("*") if path.is_file()}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def made(cli: Cli, tokens_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Pairs of forty rows in six shards, in a store of their own."""
    store = tmp_path_factory.mktemp("housekeeping") / "store"
    options = ["--num-steps", 5, "--shard-size", 7, "--store", store, "--json"]
    return _json(cli("pair", "--dataset", "tokens", "--path", tokens_file, "--vocab-size", 5, *options))


@pytest.fixture
def copy(made: dict[str, Any], tmp_path: Path) -> str:
    """The pairs in a store that a test may damage."""
    store = storage.store_of(made["url"])
    shutil.copytree(f"{store}/pairs", tmp_path / "store" / "pairs")
    return str(made["url"]).replace(store, str(tmp_path / "store"))


def test_verify_repairs_every_kind_of_file(cli: Cli, copy: str) -> None:
    sound = _files(copy)
    for name in (
        "_header.json",
        "_records/00001.json",
        "zarr.json",
        "source/zarr.json",
        "target/c.2.0",
        "source/c.4.0",
    ):
        _flip(Path(copy) / name)
    found = cli("verify", copy)
    assert found.code == 1
    assert "shard 2 is bad: hash mismatch" in found.stderr
    assert "6 files of" in found.stderr
    repaired = cli("verify", copy, "--repair")
    assert repaired.code == 0, repaired.stderr
    assert "made shard 2 again" in repaired.stdout
    assert f"put back {copy}/_records/00001.json" in repaired.stdout
    assert f"all 6 shards are whole: {copy}" in repaired.last_line
    assert _files(copy) == sound


def test_verify_repairs_a_manifest_without_any_cluster(bare_cli: Cli, copy: str) -> None:
    sound = _files(copy)
    _flip(Path(copy) / "_manifest.json")
    document = _json(bare_cli("verify", copy, "--repair", "--json", RAY_ADDRESS="http://127.0.0.1:9"))
    assert document == {
        "url": copy,
        "num_shards": 6,
        "ok": True,
        "bad": [],
        "restored": [f"{copy}/_manifest.json"],
        "made_again": [],
        "lost": [],
    }
    assert _files(copy) == sound


def test_a_damaged_manifest_and_shard_are_repaired_together(cli: Cli, copy: str) -> None:
    """The manifest goes, the pairs are partial, and the pair job ends them: with figures of its own."""
    content = storage.open_pairs(copy).manifest.content_sha256
    (Path(copy) / "_manifest.json").write_bytes(b"{")
    _flip(Path(copy) / "source" / "c.4.0")
    document = _json(cli("verify", copy, "--repair", "--json"))
    assert document["made_again"] == [4]
    assert "figures of the run" in document["lost"][0]
    assert storage.open_pairs(copy).manifest.content_sha256 == content


def test_a_repair_that_would_make_other_pairs_stops(cli: Cli, copy: str, made: dict[str, Any]) -> None:
    """The same folder under another name: what its header asks for has another fingerprint."""
    other = Path(copy).with_name(f"{'0' * 64}.zarr")
    header = storage.read_header(copy).model_copy(update={"fingerprint": "0" * 64})
    storage.begin_pairs(other, header)
    pairs = storage.open_pairs(copy)
    for shard in header.plan():
        rows = slice(shard.start, shard.stop)
        storage.write_shard(other, header, shard.index, pairs.source[rows], pairs.target[rows], pairs.sample_id[rows])
    storage.commit_pairs(other, header, {}, progress=False)
    _flip(other / "source" / "c.1.0")
    stopped = cli("verify", other, "--repair")
    assert stopped.code == 1
    assert f"have the fingerprint {'0' * 64}, but this data" in stopped.stderr
    assert made["fingerprint"] in stopped.stderr
    assert "Traceback" not in stopped.stderr
    moved = shutil.copytree(other, other.parents[2] / "elsewhere")
    misplaced = cli("verify", moved, "--repair")
    assert misplaced.code == 1
    assert "does not lie in a store" in misplaced.stderr


def test_ls_shows_datasets_and_couplings(cli: Cli, made: dict[str, Any]) -> None:
    store = storage.store_of(made["url"])
    document = _json(cli("ls", store, "--json"))
    (coupling,) = document["couplings"]
    assert coupling["url"] == made["url"]
    assert (coupling["state"], coupling["num_rows"], coupling["shards_written"]) == ("complete", 36, 6)
    (dataset,) = document["datasets"]
    assert (dataset["name"], dataset["digest"], dataset["couplings"]) == ("tokens", made["dataset_digest"], 1)
    assert document["jobs"]["count"] == 1
    shown = cli("ls", PAIRFLOW_STORE=store)
    assert shown.code == 0, shown.stderr
    titles, line, total = shown.stdout.splitlines()[:3]
    words = line.split()
    assert titles.split() == ["ID", "DATASET", "KIND", "T", "ROWS", "SIZE", "AGE", "FORMAT"]
    assert words[:3] == [made["fingerprint"][:12], "tokens", "closed"]
    assert "36" in words
    assert len(line) <= 80
    assert store in total
    assert "no pairs in" in cli("ls", f"{store}/nothing").stdout


def test_gc_removes_what_nobody_needs_and_keeps_what_mlflow_refers_to(
    cli: Cli, copy: str, made: dict[str, Any]
) -> None:
    store = storage.store_of(copy)
    (Path(copy) / "_manifest.json").unlink()  # partial, and the MLflow run that made it has its fingerprint
    unknown = storage.pairs_url(store, "ab" * 32, "zarr")
    storage.begin_pairs(unknown, storage.read_header(copy).model_copy(update={"fingerprint": "ab" * 32}))
    young = _json(cli("gc", store, "--json"))
    assert young["removed"] == young["kept"] == []
    plan = _json(cli("gc", store, "--older-than", 0, "--dry-run", "--json"))
    assert [each["url"] for each in plan["removed"]] == [unknown]
    assert [(each["url"], each["mlflow_run_id"]) for each in plan["kept"]] == [(copy, made["mlflow_run_id"])]
    assert Path(unknown).is_dir()
    done = cli("gc", store, "--older-than", 0)
    assert done.code == 0, done.stderr
    assert f"kept {copy}: partial, but MLflow run {made['mlflow_run_id']} refers to it" in done.stderr
    assert f"to remove, partial: {unknown}" in done.stdout
    assert not Path(unknown).exists()
    assert Path(copy).is_dir()
    forced = _json(cli("gc", store, "--older-than", 0, "--force", "--json"))
    assert [each["url"] for each in forced["removed"]] == [copy]
    assert not Path(copy).exists()


def test_gc_of_whole_couplings_asks_mlflow(cli: Cli, copy: str, made: dict[str, Any], tmp_path: Path) -> None:
    store = storage.store_of(copy)
    arguments = ["gc", store, "--older-than", 0, "--unreferenced", "--force", "--json"]
    assert _json(cli(*arguments))["removed"] == []
    assert storage.verify_pairs(copy, progress=False).ok
    # A home in which nothing was ever run: nobody was asked, so nobody said that these are not needed.
    elsewhere = {"PAIRFLOW_HOME": str(tmp_path / "home")}
    refused = cli(*arguments, **elsewhere)
    assert refused.code == 1
    assert "no MLflow history was found to ask which of the 1 couplings" in refused.stderr
    assert storage.verify_pairs(copy, progress=False).ok
    assert not (tmp_path / "home" / "mlflow").exists()


def test_gc_without_a_history_keeps_partial_couplings_too(cli: Cli, copy: str, tmp_path: Path) -> None:
    (Path(copy) / "_manifest.json").unlink()
    arguments = ["gc", storage.store_of(copy), "--older-than", 0, "--json"]
    elsewhere = {"PAIRFLOW_HOME": str(tmp_path / "home")}
    kept = _json(cli(*arguments, **elsewhere))
    assert (kept["removed"], [(each["url"], each["mlflow_run_id"]) for each in kept["kept"]]) == ([], [(copy, None)])
    # What an earlier run could not send to an MLflow that was away refers to its pairs all the same.
    unsent = tmp_path / "home" / "mlflow" / "unsent" / "pair-x.jsonl"
    unsent.parent.mkdir(parents=True)
    unsent.write_text(json.dumps({"do": "tags", "tags": {"pairs_fingerprint": Path(copy).stem}}) + "\n")
    kept = _json(cli(*arguments, **elsewhere))
    assert [each["mlflow_run_id"] for each in kept["kept"]] == ["pair-x.jsonl"]
    assert [each["url"] for each in _json(cli(*arguments, "--force", **elsewhere))["removed"]] == [copy]


def test_gc_refuses_a_history_that_knows_nothing_of_the_store(cli: Cli, copy: str, tmp_path: Path) -> None:
    """As that of another home: only --force takes its word."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/other.db")
    experiment = client.create_experiment("pairflow-digits", artifact_location=str(tmp_path))
    deleted = client.create_run(experiment, tags={"pairflow.pairs_fingerprint": "ab" * 32})
    arguments = ["gc", storage.store_of(copy), "--older-than", 0, "--unreferenced", "--json"]
    other = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/other.db"}
    refused = cli(*arguments, **other)
    assert (refused.code, "refers to none of the 1 couplings" in refused.stderr) == (1, True)
    # A deleted run can be restored: it refers to its pairs.
    client.set_tag(deleted.info.run_id, "pairflow.pairs_fingerprint", Path(copy).stem)
    client.delete_run(deleted.info.run_id)
    assert _json(cli(*arguments, **other))["removed"] == []
    assert Path(copy, "_manifest.json").exists()


def test_gc_refuses_a_folder_that_is_no_store(cli: Cli, tmp_path: Path) -> None:
    script = tmp_path / "jobs" / "slurm" / "train.sh"
    script.parent.mkdir(parents=True)
    script.write_text("sbatch")
    refused = cli("gc", tmp_path, "--older-than", 0, "--force")
    assert (refused.code, "is no store of PairFlow" in refused.stderr) == (1, True)
    assert script.read_text() == "sbatch"


def test_gc_asks_at_a_terminal(cli: Cli, bare_environment: dict[str, str], copy: str) -> None:
    (Path(copy) / "_manifest.json").unlink()
    arguments = ["gc", storage.store_of(copy), "--older-than", "0", "--force"]
    for answer, code, there in (("n", 1, True), ("y", 0, False)):
        typed, shown = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "flows.command.app", *arguments],
            env=bare_environment,
            stdin=shown,
            stdout=subprocess.PIPE,
            stderr=shown,
            text=True,
        ) as command:
            os.write(typed, f"{answer}\n".encode())
            listed, _ = command.communicate(timeout=120)
        os.close(typed)
        os.close(shown)
        assert (command.returncode, Path(copy).exists()) == (code, there)
        assert f"to remove, partial: {copy}" in listed


def test_gc_does_not_remove_what_nobody_could_be_asked_about(bare_environment: dict[str, str], copy: str) -> None:
    (Path(copy) / "_manifest.json").unlink()
    command = [sys.executable, "-m", "flows.command.app", "gc", storage.store_of(copy), "--older-than", "0", "--force"]
    typed, shown = pty.openpty()
    done = subprocess.run(
        command, env=bare_environment, stdin=shown, capture_output=True, text=True, timeout=120, check=False
    )
    os.close(typed)
    os.close(shown)
    assert done.returncode == 2, done.stderr
    assert "add --yes" in done.stderr
    assert Path(copy).exists()


def test_gc_keeps_the_request_of_a_job_for_as_long_as_it_may_wait(tmp_path: Path) -> None:
    _, environment = head_command(tmp_path, 1, object_store_mb=1)
    assert float(environment["RAY_JOB_START_TIMEOUT_SECONDS"]) == LONGEST_WAIT_S


def test_export_writes_the_same_pairs_in_another_form(cli: Cli, made: dict[str, Any], tmp_path: Path) -> None:
    arguments = ["export", made["url"], "--format", "parquet", "--shard-size", 10, "--to", tmp_path / "copy"]
    document = _json(cli(*arguments, "--json"))
    assert document["url"] == f"{tmp_path}/copy/pairs/{made['fingerprint']}.parquet"
    assert (document["content_sha256"], document["shard_size"]) == (made["content_sha256"], 10)
    assert storage.verify_pairs(document["url"], progress=False).ok
    assert cli(*arguments).last_line == document["url"]
    refused = cli("export", made["url"], "--format", "zarr")
    assert refused.code == 2
    assert "would lie where the pairs lie" in refused.stderr
