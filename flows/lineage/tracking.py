"""The MLflow that the settings name: experiments, and runs that are found again by what they compute."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Param, RunTag
from mlflow.exceptions import MlflowException

from flows.jobs.protocol import JobContext
from flows.lineage.errors import LineageError
from flows.lineage.stage_run import StageRun
from flows.provenance import code_version, flatten
from flows.settings import Settings
from pairflow.spec import Spec, canonical_json

_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # else the page opens as one on agents


class Lineage:
    """The MLflow that `settings` name.

    Raises:
        LineageError: it cannot be reached.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        if settings.tracking_uri.startswith("sqlite:///"):
            Path(settings.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        for noisy in ("alembic", "mlflow.store.db.utils"):  # a page of migrations in the first run's log
            logging.getLogger(noisy).setLevel(logging.WARNING)
        try:
            self.client = MlflowClient(settings.tracking_uri)
            self.client.search_experiments(max_results=1)
        except MlflowException as error:
            raise LineageError(
                f"MLflow cannot be reached at {settings.tracking_uri}: {error}; correct MLFLOW_TRACKING_URI, or unset "
                "it to use SQLite under PAIRFLOW_HOME"
            ) from error

    def experiment(self, dataset: str) -> str:
        """The id of a dataset's experiment, which is made if there is none."""
        name = f"pairflow-{dataset}"
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # Without a server MLflow would keep artifacts under the working directory.
        local = self._settings.tracking_uri.startswith("sqlite:")
        location = (self._settings.home / "mlflow" / "artifacts" / name).as_uri() if local else None
        try:
            return str(self.client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))
        except MlflowException:
            found = self.client.get_experiment_by_name(name)  # another process was quicker
            if found is None:
                raise
            return str(found.experiment_id)

    def finished(self, dataset: str, stage: str, fingerprint: str) -> str | None:
        """The run of a stage that is done, by what it computes."""
        run = self._find(self.experiment(dataset), stage, fingerprint)
        return run.info.run_id if run is not None and run.info.status == "FINISHED" else None

    def adopt(self, run_id: str, parent_run_id: str) -> None:
        """Makes a run that is over the child of another."""
        self.client.set_tag(run_id, "mlflow.parentRunId", parent_run_id)

    def describe(self, run_id: str, markdown: str) -> None:
        """Sets the text at the top of a run's page."""
        self.client.set_tag(run_id, "mlflow.note.content", markdown)

    def fetch_model(self, model_id: str, folder: Path) -> Path:
        """A copy of a logged model's checkpoint on this disk, below `folder`; a finished one is used again.

        Raises:
            LineageError: there is no such model, or it cannot be had.
        """
        copy = folder / model_id
        if copy.is_dir():
            return copy
        try:
            where = self.client.get_logged_model(model_id).artifact_location  # models:/… would follow the environment
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=f".{model_id}-") as partial:
                found = download_artifacts(
                    artifact_uri=where, dst_path=partial, tracking_uri=self._settings.tracking_uri
                )
                with contextlib.suppress(OSError):  # another process was quicker
                    Path(found).rename(copy)
        except (MlflowException, OSError) as error:
            raise LineageError(
                f"MLflow at {self._settings.tracking_uri} gives no model {model_id}: {error}; correct the id, or "
                "MLFLOW_TRACKING_URI"
            ) from None
        return copy

    def attach(self, run_id: str, path: Path) -> None:
        """Logs a file with a run."""
        self.client.log_artifact(run_id, str(path))

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
        started: float | None = None,
    ) -> Iterator[StageRun]:
        """The run of a stage: a new one, or the one in which the same work was begun before.

        Args:
            dataset: name of the dataset.
            stage: name of the flow, such as "train".
            fingerprint: of the stage's result.
            name: shown in MLflow.
            specs: become the run's parameters, flattened, and its `pairflow.spec` tag.
            context: whose Prefect run, Ray job and parent it belongs to.
            started: Unix time at which the work began, if that was before now.
        """
        experiment_id = self.experiment(dataset)
        tags = {
            "mlflow.runName": name,
            "pairflow.stage": stage,
            "pairflow.fingerprint": fingerprint,
            "pairflow.spec": canonical_json({key: spec.model_dump(mode="json") for key, spec in specs.items()}),
            "pairflow.prefect_run_id": context.flow_run_id,
            **code_version(),
        }
        if context.submission_id is not None:
            tags["pairflow.ray_submission_id"] = context.submission_id
        if context.flow_run_url:
            tags["pairflow.prefect_run_url"] = context.flow_run_url
            tags["mlflow.note.content"] = f"[Prefect flow run]({context.flow_run_url})"
        if context.parent_mlflow_run_id:
            tags["mlflow.parentRunId"] = context.parent_mlflow_run_id
        begun = self._find(experiment_id, stage, fingerprint)
        if begun is None:
            start_time = None if started is None else int(started * 1000)
            run_id = str(self.client.create_run(experiment_id, start_time, run_name=name).info.run_id)
            params = [Param(key, value) for key, value in flatten(specs).items()]
            self.client.log_batch(run_id, params=params)
        else:
            run_id = str(begun.info.run_id)
            self.client.update_run(run_id, status="RUNNING")
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        run = StageRun(self.client, run_id, experiment_id)
        status = "KILLED"
        try:
            yield run
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            run.flush()
            self.client.set_terminated(run_id, status)

    def _find(self, experiment_id: str, stage: str, fingerprint: str) -> Any:
        runs = self.client.search_runs(
            [experiment_id],
            f"tags.`pairflow.fingerprint` = '{fingerprint}' and tags.`pairflow.stage` = '{stage}'",
            max_results=1,
            order_by=["start_time DESC"],
        )
        return runs[0] if runs else None
