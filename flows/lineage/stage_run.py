"""One MLflow run that is under way: its inputs, metrics and model."""

import json
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput, Metric, RunTag
from mlflow.exceptions import MlflowException

from flows.provenance import Input

_DIGEST_LENGTH = 36  # MLflow's limit; the whole digest is a tag of the input
_FLUSH_EVERY_S = 2.0
_logger = logging.getLogger("pairflow.lineage")


def _entity(used: Input) -> DatasetInput:
    """An input as MLflow keeps it; the source type "code" is one that every MLflow reads back."""
    dataset = Dataset(
        name=used.name,
        digest=used.digest[:_DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": dict(used.source)}),
        profile=json.dumps(dict(used.profile)),
    )
    tags = [InputTag("mlflow.data.context", used.role), InputTag("pairflow.digest", used.digest)]
    return DatasetInput(dataset=dataset, tags=tags)


class StageRun:
    """An MLflow run that is under way."""

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self._client = client
        self._pending: list[Metric] = []
        self._flushed = time.monotonic()

    def tag(self, **tags: str) -> None:
        """Sets `pairflow.*` tags."""
        self._client.log_batch(self.run_id, tags=[RunTag(f"pairflow.{key}", value) for key, value in tags.items()])

    def use(self, *inputs: Input, model_id: str | None = None) -> None:
        """Links what this run used."""
        models = [LoggedModelInput(model_id)] if model_id else None
        self._client.log_inputs(self.run_id, [_entity(each) for each in inputs], models)

    def log(
        self, metrics: Mapping[str, float], *, step: int = 0, model_id: str | None = None, data: Input | None = None
    ) -> None:
        """Takes down metrics, which reach MLflow within seconds.

        A tracking server that is away for a while costs no training: what could not be sent is sent with the next.
        """
        now = int(time.time() * 1000)
        for key, value in metrics.items():
            self._pending.append(
                Metric(
                    key,
                    value,
                    now,
                    step,
                    model_id=model_id,
                    dataset_name=None if data is None else data.name,
                    dataset_digest=None if data is None else data.digest[:_DIGEST_LENGTH],
                    run_id=self.run_id,
                )
            )
        if time.monotonic() - self._flushed >= _FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Sends the metrics that are waiting."""
        self._flushed = time.monotonic()
        try:
            while self._pending:
                self._client.log_batch(self.run_id, metrics=self._pending[:1000])
                del self._pending[:1000]
        except MlflowException as error:
            _logger.warning("MLflow did not take %d metrics, which are kept for later: %s", len(self._pending), error)

    def log_model(self, name: str, checkpoint: Path, *, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Logs a checkpoint (safetensors and JSON, no pickle) as this run's model, which MLflow can load and serve.

        Args:
            name: shown in MLflow.
            checkpoint: a step-N folder.
            params: of the model.
            tags: of the model.

        Returns:
            The model's id.
        """
        from flows.lineage.packaging import package  # it loads torch, which a flow's process must not

        model = self._client.create_logged_model(
            self.experiment_id,
            name=name,
            source_run_id=self.run_id,
            params=dict(params),
            tags=dict(tags),
            model_type="pairflow-denoiser",
        )
        model_id = str(model.model_id)
        with tempfile.TemporaryDirectory(prefix="pairflow-model-") as scratch:
            folder = Path(scratch) / "model"
            package(
                checkpoint, folder, model_id=model_id, run_id=self.run_id, artifact_path=str(model.artifact_location)
            )
            self._client.log_model_artifacts(model_id, str(folder))
        self._client.finalize_logged_model(model_id, "READY")
        self._client.log_outputs(self.run_id, [LoggedModelOutput(model_id, step=0)])
        return model_id
