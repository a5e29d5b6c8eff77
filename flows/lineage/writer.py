"""Does to one MLflow run what an outbox holds; everything here may happen twice and counts once."""

import contextlib
import functools
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from flows.lineage import tags as tag
from flows.lineage.outbox import Operation, StartAgain
from flows.lineage.provenance import Input
from flows.lineage.search import Artifacts, all_runs, experiment_id_of, find_run
from flows.lineage.waiting import first_line, passes

_METRICS_AT_ONCE, _PAIRS_AT_ONCE = 1000, 100  # MLflow's limits of a request
_STARTS = 3
_IN_TROUBLE = 500  # and above: a server's own failures, which pass
DIGEST_LENGTH = 36
"""MLflow's limit; the whole digest is a tag of the input."""
_logger = logging.getLogger("pairflow.lineage")


class RunWriter:
    """The run of a stage as its outbox makes it: found or begun, then written to.

    Args:
        client: MLflow's.
        artifacts: where the files of a new experiment go.
        late: the process that wrote the outbox is gone: what a later one has made of the run stays as it is.
    """

    def __init__(self, client: MlflowClient, artifacts: Artifacts, *, late: bool = False) -> None:
        self.begun = threading.Event()
        self.run_id = ""
        self.experiment_id = ""
        self._client, self._artifacts, self._late = client, artifacts, late
        self._others = {"tags": self._tags, "inputs": self._inputs, "files": self._files, "end": self._end}
        self._starts = 0
        self._asked = False
        self._untouched = False

    def deliver(self, operations: Sequence[Operation]) -> None:
        """Does all of them, in order.

        Raises:
            StartAgain: somebody deleted the run, and a new one is to be begun.
            MlflowException: MLflow cannot be reached, or refuses to begin a run.
        """
        metrics: list[Metric] = []
        for each in operations:
            if each["do"] == "metrics":
                metrics += self._metrics(each)
                continue
            self._send_metrics(metrics)
            if each["do"] == "begin":
                self._begin(each)
            elif not self._untouched:
                self._attempt(functools.partial(self._others[each["do"]], each))
        self._send_metrics(metrics)

    def abandon(self) -> None:
        """Marks a run as ended whose process is gone without a last word, if it was begun only now."""
        if self._starts:
            self._client.set_terminated(self.run_id, "KILLED")

    def _begin(self, operation: Operation) -> None:
        self.experiment_id = experiment_id_of(self._client, operation["dataset"], self._artifacts)
        found = find_run(self._client, self.experiment_id, operation["stage"], operation["fingerprint"])
        if found is not None and self._late:
            # Only metrics are missing from a run that a later process has finished.
            self._untouched = found.info.status == "FINISHED"
        if found is None:
            self._starts += 1
            self._asked = True
            made = self._client.create_run(
                self.experiment_id, operation["started"], tags=operation["tags"], run_name=operation["name"]
            )
            self.run_id = str(made.info.run_id)
        else:
            self.run_id = str(found.info.run_id)
            if self._asked:
                self._remove_twins(operation)
            if not self._late:
                self._client.update_run(self.run_id, status="RUNNING")
                self._tags(operation)
        params = [Param(key, value) for key, value in operation["params"].items()]
        for start in range(0, len(params), _PAIRS_AT_ONCE):
            # Those of a run that was begun by another release may differ, and cannot be changed.
            with contextlib.suppress(MlflowException) if found is not None else contextlib.nullcontext():
                self._client.log_batch(self.run_id, params=params[start : start + _PAIRS_AT_ONCE])
        self.begun.set()

    def _remove_twins(self, operation: Operation) -> None:
        """A server that was slow may have begun the run once for every time that it was asked."""
        mine = operation["tags"][tag.BEGUN_BY]
        twins = all_runs(self._client, [self.experiment_id], f"tags.`{tag.BEGUN_BY}` = '{mine}'")
        for each in [run for run in twins if run.info.run_id != self.run_id and run.info.lifecycle_stage == "active"]:
            self._client.delete_run(each.info.run_id)

    def _tags(self, operation: Operation) -> None:
        tags = [RunTag(key, value) for key, value in operation["tags"].items()]
        for start in range(0, len(tags), _PAIRS_AT_ONCE):
            self._client.log_batch(self.run_id, tags=tags[start : start + _PAIRS_AT_ONCE])

    def _inputs(self, operation: Operation) -> None:
        models = [LoggedModelInput(operation["model_id"])] if operation["model_id"] else None
        self._client.log_inputs(self.run_id, [_entity(each) for each in operation["inputs"]], models)

    def _files(self, operation: Operation) -> None:
        """Files keep their names, so that one that is sent twice is there once; one that is gone is left out."""
        for path in [path for path in operation["paths"] if Path(path).is_file()]:
            try:
                self._client.log_artifact(self.run_id, path, operation["folder"])
            except OSError as error:  # as requests has it: a server answered that it cannot
                if getattr(getattr(error, "response", None), "status_code", 0) >= _IN_TROUBLE:
                    raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from error
                _logger.warning("MLflow did not take %s for run %s: %s", path, self.run_id, first_line(error))

    def _end(self, operation: Operation) -> None:
        self._client.set_terminated(self.run_id, operation["status"], operation["time"])

    def _metrics(self, operation: Operation) -> list[Metric]:
        return [
            Metric(
                key,
                value,
                operation["time"],
                operation["step"],
                model_id=operation["model_id"],
                dataset_name=operation["dataset_name"],
                dataset_digest=operation["dataset_digest"],
                run_id=self.run_id,
            )
            for key, value in operation["values"].items()
        ]

    def _send_metrics(self, metrics: list[Metric]) -> None:
        while metrics:
            some = metrics[:_METRICS_AT_ONCE]
            self._attempt(functools.partial(self._client.log_batch, self.run_id, metrics=some))
            del metrics[:_METRICS_AT_ONCE]

    def _attempt(self, action: Callable[[], Any]) -> None:
        """Does it; what MLflow refuses is left out, unless that is because the run was deleted."""
        try:
            action()
        except MlflowException as error:
            if passes(error):
                raise
            if not self._deleted():
                _logger.warning("MLflow refuses what is logged with run %s: %s", self.run_id, first_line(error))
                return
            if self._late or self._starts >= _STARTS:
                raise
            _logger.warning(
                "somebody deleted the MLflow run %s, in which this stage is logged; the work goes on, and all of it is "
                "logged in a new run",
                self.run_id,
            )
            self.begun.clear()
            raise StartAgain from error

    def _deleted(self) -> bool:
        try:
            return self._client.get_run(self.run_id).info.lifecycle_stage == "deleted"
        except MlflowException as error:
            if passes(error):
                raise
            return True


def inputs_of(run: Run) -> tuple[Input, ...]:
    """The data that a run used: `_entity` the other way round."""
    found = []
    for each in run.inputs.dataset_inputs if run.inputs else []:
        tags = {found.key: found.value for found in each.tags}
        source = json.loads(each.dataset.source or "{}")
        found.append(
            Input(
                name=each.dataset.name,
                digest=tags.get(tag.DIGEST, each.dataset.digest),
                role=tags.get(tag.DATA_CONTEXT, ""),
                source=source.get("tags", {}),
                profile=json.loads(each.dataset.profile or "{}"),
            )
        )
    return tuple(found)


def _entity(used: Mapping[str, Any]) -> DatasetInput:
    """An input as MLflow keeps it; the source type "code" is one that every MLflow reads back."""
    dataset = Dataset(
        name=used["name"],
        digest=used["digest"][:DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": used["source"]}),
        profile=json.dumps(used["profile"]),
    )
    tags = [InputTag(tag.DATA_CONTEXT, used["role"]), InputTag(tag.DIGEST, used["digest"])]
    return DatasetInput(dataset=dataset, tags=tags)
