"""Reading all that MLflow holds of a dataset, page by page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Experiment, Run, RunData, RunInfo, RunTag
from mlflow.store.entities import PagedList

from flows.home.settings import Settings
from flows.lineage.tracing.graph import Graph
from flows.lineage.tracing.records import Records
from flows.lineage.tracking import Lineage


class _ManyRuns:
    """An MLflow with a training and its many evaluations, which counts what it is asked."""

    def __init__(self, number: int) -> None:
        self.asked = 0
        shared = {"pairflow.dataset_digest": "d" * 64, "pairflow.training_run": "0" * 32}
        self._runs = [_run(0, {"pairflow.stage": "train", "pairflow.dataset_digest": "d" * 64})]
        self._runs += [_run(index, {"pairflow.stage": "evaluate", **shared}) for index in range(1, number)]

    def search_experiments(self, *_: Any, **__: Any) -> PagedList[Experiment]:
        self.asked += 1
        return PagedList([Experiment("1", "pairflow-nci", "", "active")], None)

    def search_runs(
        self, _: Sequence[str], filter_string: str, __: int, size: int, ___: Any, token: str | None
    ) -> PagedList[Run]:
        self.asked += 1
        found = self._runs if "dataset_digest" in filter_string else []
        start = int(token or 0)
        more = str(start + size) if start + size < len(found) else None
        return PagedList(found[start : start + size], more)

    def search_logged_models(self, *_: Any, **__: Any) -> PagedList[Any]:
        self.asked += 1
        return PagedList([], None)

    def search_registered_models(self, *_: Any, **__: Any) -> PagedList[Any]:
        self.asked += 1
        return PagedList([], None)


class _Pairings:
    """An MLflow with runs of pairs, in two pages; the third was deleted."""

    def search_experiments(self, *_: Any, **__: Any) -> PagedList[Experiment]:
        return PagedList([Experiment("1", "pairflow-nci", "", "active"), Experiment("2", "theirs", "", "active")], None)

    def search_runs(
        self, experiments: Sequence[str], filter_string: str, _: int, __: int, ___: Any, token: str | None
    ) -> PagedList[Run]:
        assert (experiments, filter_string) == (["1"], "tags.`pairflow.pairs_fingerprint` LIKE '%'")
        runs = [_run(index, {"pairflow.pairs_fingerprint": f"{index:064x}"}, deleted=index == 2) for index in range(4)]
        return PagedList(runs[2:], None) if token else PagedList(runs[:2], "more")


def _run(index: int, tags: dict[str, str], *, deleted: bool = False) -> Run:
    info = RunInfo(f"{index:032x}", "1", "me", "FINISHED", index, index + 1, "deleted" if deleted else "active")
    return Run(info, RunData(tags=[RunTag(key, value) for key, value in tags.items()]))


def test_thousands_of_runs_are_read_in_pages() -> None:
    client = _ManyRuns(3000)
    records = Records(client)  # type: ignore[arg-type]
    records.read({"d" * 64})
    assert client.asked < 12  # 6 pages of runs, and one search for each other kind
    graph = Graph(records)
    chain = graph.around([f"run:{'0' * 32}"])
    assert len(chain.nodes) == 3001  # the data too
    assert len(chain.after[f"run:{'0' * 32}"]) == 2999


def test_runs_that_were_deleted_refer_to_their_pairs_too(tmp_path: Path) -> None:
    """They can be restored."""
    lineage = Lineage(Settings(home=tmp_path, mlflow_uri="http://127.0.0.1:9"))
    lineage.client = _Pairings()  # type: ignore[assignment]
    assert lineage.runs_of_pairs() == {f"{index:064x}": f"{index:032x}" for index in range(4)}
