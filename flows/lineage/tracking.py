"""The MLflow that the settings name: runs that are begun, and found again by what they compute."""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES

from flows.cluster.protocol import JobContext
from flows.home.places import sqlite_path
from flows.home.settings import Settings
from flows.lineage import tags as tag
from flows.lineage.beginning import beginning
from flows.lineage.database import make_whole
from flows.lineage.errors import LineageError
from flows.lineage.finished_runs import FinishedRun
from flows.lineage.leftovers import Sent, send_leftovers
from flows.lineage.machine_metrics import watching
from flows.lineage.outbox import Operation, Outbox
from flows.lineage.provenance import Input
from flows.lineage.search import all_runs, experiment_id_of, experiment_ids, find_experiment, find_run, model_ids_of
from flows.lineage.stage_run import StageRun
from flows.lineage.waiting import be_quick, first_line, insist, or_none, without_password
from flows.lineage.writer import RunWriter, inputs_of
from pairflow.spec import Spec

T = TypeVar("T")
_FAILED_PATIENCE_S = 2.0  # Ray kills a job that it stops after three seconds; what is not sent is kept
_logger = logging.getLogger("pairflow.lineage")


class Lineage:
    """The MLflow that `settings` name; it is first contacted when something is asked of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        uri = settings.tracking_uri
        self._uri = without_password(uri)  # for messages
        be_quick()
        for noisy in ("alembic", "mlflow.store.db.utils"):  # a page of migrations in the first run's log
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.unsent = settings.home / "mlflow" / "unsent"
        if (database := sqlite_path(uri)) is not None:
            make_whole(database, settings.home / "mlflow" / "artifacts")
        try:
            self.client = MlflowClient(uri)  # for this room alone: whoever else asks has a method here
        except MlflowException as error:
            raise LineageError(
                f"MLFLOW_TRACKING_URI is {self._uri!r}: {first_line(error)}; expected http://…, or unset it to use "
                "SQLite under PAIRFLOW_HOME"
            ) from error

    @property
    def uri(self) -> str:
        """Where MLflow is."""
        return self._uri

    def insist(self, action: Callable[[], T], *, patience_s: float | None = None) -> T:
        """What `action` returns, asked again while MLflow does not answer.

        Args:
            action: asks something of MLflow.
            patience_s: how long, in seconds; default that of the settings.

        Raises:
            LineageError: MLflow refuses, or does not answer in that time.
        """
        return insist(action, self._uri, self._settings.mlflow_patience if patience_s is None else patience_s)

    def experiment(self, dataset: str) -> str:
        """The id of a dataset's experiment, which is made if there is none.

        Raises:
            LineageError: MLflow does not answer.
        """
        return self.insist(lambda: experiment_id_of(self.client, dataset, self._artifacts))

    def finished(self, dataset: str, stage: str, fingerprint: str) -> str | None:
        """The run of a stage that is done, by what it computes.

        Raises:
            LineageError: MLflow does not answer.
        """
        experiment_id = self.experiment(dataset)
        run = self.insist(lambda: find_run(self.client, experiment_id, stage, fingerprint))
        return str(run.info.run_id) if run is not None and run.info.status == "FINISHED" else None

    def finished_run(self, dataset: str, stage: str, fingerprint: str) -> FinishedRun | None:
        """The same for who waits for nothing and makes nothing (see `finished_runs`); None if MLflow does not say."""
        with contextlib.suppress(MlflowException):
            experiment = find_experiment(self.client, dataset)
            if experiment is not None and experiment.lifecycle_stage == LifecycleStage.ACTIVE:
                run = find_run(self.client, experiment.experiment_id, stage, fingerprint)
                if run is not None and run.info.status == "FINISHED":
                    begun_by = run.data.tags.get(tag.PREFECT_RUN_ID, "")
                    return FinishedRun(str(run.info.run_id), str(experiment.experiment_id), begun_by)
        return None

    def inputs_of(self, run_id: str) -> tuple[Input, ...]:
        """The data that a run used.

        Raises:
            LineageError: MLflow has no such run, or does not answer.
        """
        return inputs_of(self.insist(lambda: self.client.get_run(run_id)))

    def model_made_by(self, run_id: str) -> str | None:
        """The id of the logged model that a run made; None if it made none, or there is no such run.

        Raises:
            LineageError: MLflow does not answer.
        """
        run = self.insist(lambda: or_none(lambda: self.client.get_run(run_id)), patience_s=0)
        made = model_ids_of(run) if run is not None else []
        return made[0] if made else None

    def model_tags(self, model_id: str) -> dict[str, str]:
        """The tags of a logged model.

        Raises:
            LineageError: MLflow has no such model, or does not answer.
        """
        return dict(self.insist(lambda: self.client.get_logged_model(model_id)).tags)

    def runs_of_pairs(self) -> dict[str, str] | None:
        """Fingerprint of pairs -> a run that made or used them; None if nothing of ours was ever run there.

        Those that somebody has deleted count as well, as they can be restored.

        Raises:
            LineageError: MLflow does not answer.
        """

        def ask() -> dict[str, str] | None:
            experiments = list(chain.from_iterable(experiment_ids(self.client, deleted=True).values()))
            runs = all_runs(self.client, experiments, f"tags.`{tag.PAIRS_FINGERPRINT}` LIKE '%'")
            found = {run.data.tags[tag.PAIRS_FINGERPRINT]: str(run.info.run_id) for run in runs}
            return found if experiments else None

        return self.insist(ask, patience_s=0)

    def runs_of_data(self) -> dict[str, str]:
        """Digest of a training part -> a run that used it; deleted ones count as well.

        Raises:
            LineageError: MLflow does not answer.
        """

        def ask() -> dict[str, str]:
            experiments = list(chain.from_iterable(experiment_ids(self.client, deleted=True).values()))
            runs = all_runs(self.client, experiments, f"tags.`{tag.DATASET_DIGEST}` LIKE '%'")
            return {run.data.tags[tag.DATASET_DIGEST]: str(run.info.run_id) for run in runs}

        return self.insist(ask, patience_s=0)

    def is_active(self, run_id: str) -> bool:
        """Whether there is such a run, and nobody has deleted it.

        Raises:
            LineageError: MLflow does not answer.
        """
        run = self.insist(lambda: or_none(lambda: self.client.get_run(run_id)))
        return run is not None and run.info.lifecycle_stage == "active"

    def adopt(self, run_id: str, parent_run_id: str) -> None:
        """Makes a run that is over the child of another."""
        self.insist(lambda: self.client.set_tag(run_id, tag.PARENT_RUN, parent_run_id))

    def fetch_model(self, model_id: str, folder: Path) -> Path:
        """A copy of a logged model's checkpoint on this disk, below `folder`; a finished one is used again.

        Raises:
            LineageError: there is no such model, or it cannot be had.
        """
        copy, uri = folder / model_id, self._settings.tracking_uri
        if copy.is_dir():
            return copy
        try:
            where = self.client.get_logged_model(model_id).artifact_location  # models:/… would follow the environment
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=f".{model_id}-") as partial:
                found = download_artifacts(artifact_uri=where, dst_path=partial, tracking_uri=uri)
                with contextlib.suppress(OSError):  # another process was quicker
                    Path(found).rename(copy)
        except (MlflowException, OSError) as error:
            raise LineageError(
                f"MLflow at {self._uri} gives no model {model_id}: {first_line(error)}; correct the id, or "
                "MLFLOW_TRACKING_URI"
            ) from None
        return copy

    def attach(self, run_id: str, path: Path) -> None:
        """Logs a file with a run.

        Raises:
            LineageError: MLflow does not answer, or refuses.
        """
        self.insist(lambda: self.client.log_artifact(run_id, str(path)))

    def experiment_of(self, run_id: str) -> str:
        """The id of a run's experiment.

        Raises:
            LineageError: MLflow has no such run, or does not answer.
        """
        return str(self.insist(lambda: self.client.get_run(run_id)).info.experiment_id)

    def send_unsent(self) -> Sent:
        """Sends what earlier processes of this home could not.

        Raises:
            LineageError: MLflow does not answer.
        """
        return self.insist(lambda: send_leftovers(self.unsent, self.client, self._artifacts), patience_s=0)

    @contextlib.contextmanager
    def run(
        self,
        dataset: str,
        stage: str,
        fingerprint: str,
        *,
        name: str,
        specs: Mapping[str, Spec],
        context: JobContext,
        about: Mapping[str, str] | None = None,
        started: float | None = None,
    ) -> Iterator[StageRun]:
        """The run of a stage: a new one, or the one in which the same work was begun before.

        A server that is away does not hold the work up: what the block says is kept and sent by another thread. Only
        at its end MLflow must be there, within the patience of the settings.

        Args:
            dataset: name of the dataset.
            stage: name of the flow, such as "train".
            fingerprint: of the stage's result.
            name: shown in MLflow.
            specs: become the run's parameters, flattened, and its `pairflow.spec` tag.
            context: whose Prefect run, Ray job and parent it belongs to.
            about: parameters that people sort and choose by, such as method and seed; dataset and preset come by
                themselves.
            started: Unix time at which the work began, if that was before now.

        Raises:
            LineageError: the work is done, but MLflow does not answer or refuses; the same again finds what was done.
        """
        about_run = beginning(
            dataset, stage, fingerprint, name=name, specs=specs, context=context, about=about or {}, started=started
        )
        writer = RunWriter(self.client, self._artifacts)
        outbox = Outbox(self.unsent, f"{stage}-{fingerprint[:12]}", self._deliverer(writer), self._uri)
        outbox.put(about_run.operation)
        patience = self._settings.mlflow_patience
        run = StageRun(self.client, outbox, writer, lines=about_run.lines, patience_s=patience)
        status = "KILLED"
        # The machine of the flow itself mostly waits.
        measured = watching(run) if context.submission_id is not None else contextlib.nullcontext()
        try:
            with measured:
                yield run
            run.settle()
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            run.end(status)
            done = outbox.close(patience if status == "FINISHED" else _FAILED_PATIENCE_S)
        if not done:
            raise LineageError(f"MLflow at {self._uri} did not take the end of run {run.run_id}; run the same again")

    def _artifacts(self, experiment: str) -> str | None:
        """Where an experiment's files go without a server: MLflow would put them under the working directory."""
        if urlsplit(self._uri).scheme.partition("+")[0] not in DATABASE_ENGINES:
            return None
        return (self._settings.home / "mlflow" / "artifacts" / experiment).as_uri()

    def _deliverer(self, writer: RunWriter) -> Callable[[Sequence[Operation]], None]:
        """Sends what was left by others before anything of its own, as that was said earlier."""
        cleared = False

        def deliver(operations: Sequence[Operation]) -> None:
            nonlocal cleared
            if not cleared:
                send_leftovers(self.unsent, self.client, self._artifacts)
                cleared = True
            writer.deliver(operations)

        return deliver
