"""What a stage logs on its way to MLflow: which failures are waited out, and the file that nothing is lost from."""

import json
import resource
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST

from flows.lineage.errors import LineageError
from flows.lineage.leftovers import send_leftovers
from flows.lineage.outbox import Operation, Outbox, read_operations
from flows.lineage.waiting import first_line, insist, or_none, passes


class TestWaiting:
    def test_what_passes_and_what_does_not(self) -> None:
        assert passes(MlflowException("no connection"))
        assert not passes(MlflowException("wrong", INVALID_PARAMETER_VALUE))

    def test_password_in_an_address_is_not_shown(self) -> None:
        error = MlflowException("no answer from http://me:secret@host:5000/x and sqlite:////home/a@b/c\nmore")
        assert first_line(error) == "no answer from http://host:5000/x and sqlite:////home/a@b/c"
        assert first_line(MlflowException("http://me:secret@h")) == "http://h"

    def test_asks_until_there_is_an_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        failures = [MlflowException("away"), MlflowException("away")]

        def ask() -> str:
            if failures:
                raise failures.pop()
            return "here"

        assert insist(ask, "http://x", 60) == "here"
        assert [record.getMessage() for record in caplog.records] == [
            "MLflow at http://x does not answer, waiting for it: away"
        ]

    def test_gives_up(self) -> None:
        def away() -> None:
            raise MlflowException("away")

        def refuses() -> None:
            raise MlflowException("wrong", INVALID_PARAMETER_VALUE)

        with pytest.raises(LineageError, match="cannot be reached at http://x"):
            insist(away, "http://x", 0)
        with pytest.raises(LineageError, match="refuses: wrong"):
            insist(refuses, "http://x", 60)


class TestOutbox:
    def test_far_more_than_fits_a_chunk_arrives_in_order(self, tmp_path: Path) -> None:
        got: list[int] = []
        outbox = Outbox(tmp_path, "train", lambda some: got.extend(each["n"] for each in some), "http://x")
        for n in range(3000):
            outbox.put({"n": n, "text": "x" * 1000})
        assert outbox.close(60)
        assert got == list(range(3000))
        assert list(tmp_path.iterdir()) == []

    def test_a_server_that_never_comes_costs_no_operation(self, tmp_path: Path) -> None:
        def deliver(_: Sequence[Operation]) -> None:
            raise MlflowException("away")

        outbox = Outbox(tmp_path, "train", deliver, "http://x")
        started = time.monotonic()
        outbox.put(*({"n": n} for n in range(10)))
        assert not outbox.close(0.2)
        assert time.monotonic() - started < 30
        (kept,) = tmp_path.iterdir()
        assert len(kept.read_text().splitlines()) == 10

    @pytest.mark.parametrize("line", ["[broken", '{"do": "tags", "tags": {"a": "b"}}', '{"do": "other"}', "[]"])
    def test_file_that_makes_no_sense_is_set_aside(
        self, tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "train-1.jsonl").write_text(f"{line}\n")
        done = send_leftovers(tmp_path, None, lambda _: None)  # type: ignore[arg-type]  # nothing is to be asked
        assert done.refused == (tmp_path / "train-1.refused",)
        assert [path.name for path in tmp_path.iterdir()] == ["train-1.refused"]
        assert "refuses what an earlier run left" in caplog.text

    def test_file_of_a_process_that_lives_is_left_alone(self, tmp_path: Path) -> None:
        busy = threading.Event()
        outbox = Outbox(tmp_path, "train", lambda _: busy.wait(30) and None, "http://x")
        outbox.put({"do": "tags"})
        assert send_leftovers(tmp_path, None, lambda _: None).refused == ()  # type: ignore[arg-type]
        busy.set()
        assert outbox.close(60)

    def test_a_line_that_did_not_fit_on_the_disk_leaves_no_part_of_itself(self, tmp_path: Path) -> None:
        got: list[int] = []
        outbox = Outbox(tmp_path, "train", lambda some: got.extend(each["n"] for each in some), "http://x")
        outbox.put({"n": 0})
        (file,) = tmp_path.iterdir()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 20, hard))  # a disk with room for 20 bytes
        try:
            with pytest.raises(LineageError, match="make room on that disk"):
                outbox.put({"n": 1, "text": "x" * 1000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        outbox.put({"n": 2})
        assert outbox.close(60)
        assert got == [0, 2]

    def test_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(LineageError, match="cannot write"):
            Outbox(tmp_path / "file", "train", lambda _: None, "http://x")


class TestOthersFiles:
    """What lies among the outboxes is removed only if MLflow has taken what it says."""

    def test_a_line_longer_than_a_chunk_is_read_whole(self, tmp_path: Path) -> None:
        lines = [{"do": "begin", "text": "x" * 3_000_000}, {"do": "end\u2028\x1c"}]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
        with (tmp_path / "a.jsonl").open("rb") as file:
            first, end = read_operations(file.fileno(), 0)
            second, last = read_operations(file.fileno(), end)
        assert [*first, *second] == lines
        assert last == (tmp_path / "a.jsonl").stat().st_size

    @pytest.mark.parametrize(
        "text", ["not JSON\n", "torn off in the first li", '{"mine": 1}\n', "[1]\n", "[" * 99_999 + "\n"]
    )
    def test_what_is_no_outbox_is_kept(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "diary.jsonl").write_text(text)
        sent = send_leftovers(tmp_path, MlflowClient(f"sqlite:///{tmp_path}/x.db"), lambda _: None)
        (kept,) = sent.refused
        assert (sent.sent, kept.read_text()) == ((), text)


def test_a_page_that_is_not_mlflows_is_no_answer() -> None:
    """A proxy's 404 has no word about models; MLflow's own has."""

    def proxy() -> None:
        raise MlflowException(
            "API request to endpoint /api/2.0/mlflow/registered-models/get failed with error code 404 != 200. "
            "Response body: '<html>nginx'",
            RESOURCE_DOES_NOT_EXIST,
        )

    def mlflow() -> None:
        raise RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"})

    def store() -> None:
        raise MlflowException("no such model", RESOURCE_DOES_NOT_EXIST)

    with pytest.raises(MlflowException, match="nginx"):
        or_none(proxy)
    assert or_none(mlflow) is None
    assert or_none(store) is None
