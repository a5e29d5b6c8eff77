"""`--extend`: rows of earlier pairs are taken over as they were, and only new rows are walked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import storage
from flows.jobs.extension import Earlier, TakenOver, donors
from pairflow.coupling import Coupled, couple
from pairflow.datasets import TokenDataset, load
from pairflow.errors import SpecError, StoreError
from pairflow.spec import CouplingSpec, DatasetSpec

from .conftest import Cli, Finished

_SPEC = CouplingSpec(num_steps=6, seed=3, sources_per_target=2)


def test_donors_are_rows_with_the_same_tokens_each_used_once() -> None:
    random = np.random.default_rng(0)
    earlier, rows = (random.integers(3, size=(num_rows, 4), dtype=np.uint8) for num_rows in (60, 90))
    found = donors(earlier, rows)
    free: dict[bytes, list[int]] = {}
    for number, row in enumerate(earlier):
        free.setdefault(row.tobytes(), []).append(number)
    expected = [free[row.tobytes()].pop(0) if free.get(row.tobytes()) else -1 for row in rows]
    assert found.tolist() == expected
    assert min(expected) == -1
    assert max(expected) > 0


def test_donors_of_wider_tokens_and_of_nothing_alike() -> None:
    earlier = np.array([[0, 256], [1, 0]], np.uint32)
    rows = np.array([[1, 0], [256, 0], [0, 256]], np.uint16)
    assert donors(earlier, rows).tolist() == [1, -1, 0]
    assert donors(earlier, rows[1:2]).tolist() == [-1]


def _arguments(dataset: list[object], store: Path, *more: object) -> list[object]:
    chosen = ["--num-steps", _SPEC.num_steps, "--seed", _SPEC.seed, "--sources-per-target", _SPEC.sources_per_target]
    return ["pair", *dataset, "--store", store, *chosen, *more]


def _json(done: Finished) -> dict[str, Any]:
    assert done.code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.last_line)
    return document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    np.save(folder / "a.npy", np.arange(40)[:, None] // 3 ** np.arange(6) % 3)
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> list[object]:
    return ["--dataset", "tokens", "--path", folder, "--vocab-size", 3]


@pytest.fixture(scope="module")
def made(
    cli: Cli, folder: Path, dataset: list[object], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pairs of forty rows, and those of fifty-five that extend them."""
    store = tmp_path_factory.mktemp("store")
    earlier = _json(cli(*_arguments(dataset, store, "--format", "parquet", "--json")))
    np.save(folder / "b.npy", np.arange(60, 75)[:, None] // 3 ** np.arange(6) % 3)
    cut = ["--shard-size", 9, "--extend", earlier["url"], "--json"]
    return earlier, _json(cli(*_arguments(dataset, store, *cut)))


def _train(folder: Path) -> TokenDataset:
    return load(DatasetSpec(name="tokens", path=str(folder), vocab_size=3), progress=False).part("train")


def test_old_rows_keep_their_sources_and_new_ones_are_coupled_with_all(
    made: tuple[dict[str, Any], dict[str, Any]], folder: Path
) -> None:
    earlier, extended = (storage.open_pairs(each["url"]) for each in made)
    train = _train(folder).tokens
    np.testing.assert_array_equal(extended.target[:], np.tile(train, (2, 1)))
    np.testing.assert_array_equal(extended.sample_id[:], np.tile(np.arange(len(train)), 2))
    known = {
        (row.tobytes(), number // (len(earlier) // 2)): source
        for number, (row, source) in enumerate(zip(earlier.target[:], earlier.source[:], strict=True))
    }
    walked = []
    for number, (row, source) in enumerate(zip(extended.target[:], extended.source[:], strict=True)):
        before = known.get((row.tobytes(), number // len(train)))
        if before is None:
            walked.append(number)
        else:
            np.testing.assert_array_equal(source, before)
    assert 0 < len(walked) < len(extended) // 2
    assert dict(extended.manifest.summary)["rows_taken_over"] == len(train) - len(walked) // 2
    # As the library couples them: a seed of their own, by row number and replica, over all rows.
    number = np.array(walked)
    alike = {"sample_ids": number % len(train), "replicas": number // len(train), "vocab_size": 3, "engine": "cpu"}
    spec = _SPEC.model_copy(update={"seed": _seed(extended, earlier)})
    expected = couple(extended.target[number], train, spec=spec, **alike)  # type: ignore[arg-type]
    np.testing.assert_array_equal(extended.source[number], expected)


def _seed(extended: storage.Pairs, earlier: storage.Pairs) -> int:
    from hashlib import sha256

    extends = {"fingerprint": earlier.manifest.fingerprint, "content_sha256": earlier.manifest.content_sha256}
    assert extended.manifest.spec["extends"] == extends
    return int(sha256(f"3/{earlier.manifest.content_sha256}".encode()).hexdigest()[:16], 16) // 2


def test_a_rerun_finds_them_and_they_are_not_the_exact_ones(
    cli: Cli, made: tuple[dict[str, Any], dict[str, Any]], dataset: list[object]
) -> None:
    earlier, extended = made
    store = Path(earlier["url"]).parents[1]
    again = _json(cli(*_arguments(dataset, store, "--extend", earlier["url"], "--json")))
    assert again["skipped"] is True
    assert again["url"] == extended["url"]
    assert again["extends"] == earlier["fingerprint"]
    exact = _json(cli(*_arguments(dataset, store, "--json")))
    assert exact["extends"] is None
    assert exact["fingerprint"] != extended["fingerprint"]
    assert exact["content_sha256"] != extended["content_sha256"]


def test_a_support_in_parts_makes_the_same(
    cli: Cli, made: tuple[dict[str, Any], dict[str, Any]], dataset: list[object], tmp_path: Path
) -> None:
    earlier, extended = made
    done = cli(*_arguments(dataset, tmp_path, "--extend", earlier["url"], "--json"), PAIRFLOW_SUPPORT_PARTS="2")
    again = _json(done)
    assert again["skipped"] is False
    assert again["content_sha256"] == extended["content_sha256"]


def test_lineage_tells_of_both(cli: Cli, made: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for each in made:
        done = cli("lineage", each["url"], "--json")
        assert done.code == 0, done.stderr
        chain = json.loads(done.stdout)
        before, after = (f"pairs:{each['fingerprint']}" for each in made)
        (pairing,) = (link["from"] for link in chain["links"] if link["to"] == after)
        assert {"from": before, "to": pairing} in chain["links"]


def test_a_damaged_shard_is_made_again(cli: Cli, made: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    earlier, extended = made
    shard = Path(extended["url"]) / "source" / "c.2.0"
    sound = shard.read_bytes()
    shard.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    hidden = tmp_path / "hidden"
    Path(earlier["url"]).rename(hidden)
    done = cli("verify", "--repair", extended["url"])
    assert done.code == 1
    assert "which are not in" in done.stderr
    assert "without --extend" in done.stderr
    hidden.rename(earlier["url"])
    done = cli("verify", "--repair", extended["url"])
    assert done.code == 0, done.stderr
    assert shard.read_bytes() == sound


def test_the_command_refuses_what_it_cannot_extend(
    cli: Cli, made: tuple[dict[str, Any], dict[str, Any]], dataset: list[object], tmp_path: Path
) -> None:
    done = cli(*_arguments(dataset, tmp_path, "--extend", made[0]["url"], "--num-steps", 7))
    assert done.code != 0
    assert "coupling.num_steps is 6 and it would be 7 now" in done.stderr
    assert "Traceback" not in done.stderr
    done = cli("pair", *dataset, "--store", tmp_path, "--extend", made[0]["url"], "--coupling", "redi")
    assert done.code == 2
    assert "--extend is not for --coupling redi" in done.stderr


def test_only_what_is_coupled_alike_can_be_extended(
    made: tuple[dict[str, Any], dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    train, url = _train(folder), made[0]["url"]
    np.save(tmp_path / "rows.npy", train.tokens)
    other = load(DatasetSpec(name="tokens", path=str(tmp_path), vocab_size=4), progress=False).part("train")
    with pytest.raises(SpecError, match=r"their vocab_size is 3 and it would be 4 now.*without --extend"):
        Earlier.of(url, other, _SPEC, "cpu/1")
    with pytest.raises(SpecError, match="their engine is cpu/1 and it would be dense/1 now"):
        Earlier.of(url, train, _SPEC, "dense/1")
    with pytest.raises(SpecError, match=r"their coupling.seed is 3 and it would be 4 now"):
        Earlier.of(url, train, _SPEC.model_copy(update={"seed": 4}), "cpu/1")
    with pytest.raises(StoreError, match="no pairs at"):
        Earlier.of(str(tmp_path / "nothing.zarr"), train, _SPEC, "cpu/1")
    # An extension is extended like any other pairs.
    assert Earlier.of(made[1]["url"], train, _SPEC, "cpu/1").num_new == 0


def test_earlier_pairs_that_change_meanwhile_are_noticed(made: tuple[dict[str, Any], dict[str, Any]]) -> None:
    earlier = storage.open_pairs(made[0]["url"])
    target = earlier.target[:2][::-1]

    def walk(rows: np.ndarray) -> Coupled:
        raise AssertionError(rows)

    with pytest.raises(StoreError, match="have changed"):
        TakenOver(earlier.url, np.array([0, 1])).couple(target, walk)
