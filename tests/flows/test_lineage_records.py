"""Reading all that MLflow holds of a dataset, page by page."""

from collections.abc import Sequence
from typing import Any

from mlflow.entities import Experiment, Run, RunData, RunInfo, RunTag
from mlflow.store.entities import PagedList

from flows.lineage.tracing.graph import Graph
from flows.lineage.tracing.records import Records


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


def _run(index: int, tags: dict[str, str]) -> Run:
    info = RunInfo(f"{index:032x}", "1", "me", "FINISHED", index, index + 1, "active")
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
