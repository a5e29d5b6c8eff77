"""One MLflow run that is under way: its inputs, metrics and model."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus

from flows.lineage import page_text
from flows.lineage import tags as tag
from flows.lineage.errors import LineageError
from flows.lineage.outbox import Outbox
from flows.lineage.provenance import Input
from flows.lineage.search import all_models
from flows.lineage.waiting import first_line
from flows.lineage.writer import DIGEST_LENGTH, RunWriter
from pairflow.data_card import DataCard


class StageRun:
    """An MLflow run that is under way.

    Nothing but `run_id`, `experiment_id`, `settle` and `log_model` waits for MLflow: all else is taken down, and sent
    by the outbox.
    """

    def __init__(
        self, client: MlflowClient, outbox: Outbox, writer: RunWriter, *, lines: Mapping[str, str], patience_s: float
    ) -> None:
        self._client, self._outbox, self._writer = client, outbox, writer
        self._lines, self._first = dict(lines), ""
        self._patience_s = patience_s

    @property
    def run_id(self) -> str:
        """MLflow's id of the run. That of a run which somebody deletes meanwhile changes.

        Raises:
            LineageError: MLflow has not begun the run, and does not answer.
        """
        self._await_begun()
        return self._writer.run_id

    @property
    def experiment_id(self) -> str:
        """Of the run's experiment.

        Raises:
            LineageError: as for `run_id`.
        """
        self._await_begun()
        return self._writer.experiment_id

    def settle(self) -> None:
        """Waits until MLflow has taken all that was logged so far.

        Raises:
            LineageError: it does not within the patience of the settings, or it refuses.
        """
        if not self._outbox.wait(self._patience_s):
            raise self._not_taken()

    def tag(self, tags: Mapping[str, str]) -> None:
        """Sets tags; `flows.lineage.tags` has their names."""
        self._outbox.put({"do": "tags", "tags": dict(tags)})

    def tell(self, lines: Mapping[str, str], *, first: str = "") -> None:
        """Adds lines to the text at the top of the run's page.

        Args:
            lines: by what they are about, as markdown.
            first: markdown above them, in place of what was there.
        """
        self._lines |= lines
        self._first = first or self._first
        self._outbox.put({"do": "tags", "tags": {tag.NOTE: page_text.describe(self._lines, self._first)}})

    def use(self, *inputs: Input, model_id: str | None = None) -> None:
        """Links what this run used, and says it on the run's page."""
        used = [
            {
                "name": each.name,
                "digest": each.digest,
                "role": each.role,
                "source": dict(each.source),
                "profile": dict(each.profile),
            }
            for each in inputs
        ]
        self._outbox.put({"do": "inputs", "inputs": used, "model_id": model_id})
        self.tell(page_text.used(inputs, model_id))

    def log(
        self, metrics: Mapping[str, float], *, step: int = 0, model_id: str | None = None, data: Input | None = None
    ) -> None:
        """Takes down metrics, which reach MLflow within seconds, or when it is back."""
        self._outbox.put(
            {
                "do": "metrics",
                "values": {key: float(value) for key, value in metrics.items()},
                "time": int(time.time() * 1000),
                "step": step,
                "model_id": model_id,
                "dataset_name": None if data is None else data.name,
                "dataset_digest": None if data is None else data.digest[:DIGEST_LENGTH],
            }
        )

    def show(self, pictures: Sequence[Path]) -> None:
        """Adds pictures that MLflow's page steps through, named by `page_pictures.write`; they are sent from there."""
        self._outbox.put({"do": "files", "paths": [str(path) for path in pictures], "folder": "images"})
        self._outbox.put({"do": "tags", "tags": {tag.LOGGED_IMAGES: "True"}})

    def end(self, status: str) -> None:
        """The run's last word: FINISHED, FAILED or KILLED."""
        self._outbox.put({"do": "end", "status": status, "time": int(time.time() * 1000)})

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

        if (fingerprint := tags.get(tag.FINGERPRINT)) is not None:
            self._remove_unfinished(fingerprint)
        model = self._client.create_logged_model(
            self.experiment_id,
            name=name,
            source_run_id=self.run_id,
            params=dict(params),
            tags=dict(tags),
            model_type="pairflow-denoiser",
        )
        model_id = str(model.model_id)
        card = DataCard.read(checkpoint)
        text = page_text.model(model_id, self.run_id, self.experiment_id, "tokens" if card is None else card.kind)
        self._client.set_logged_model_tags(model_id, {tag.NOTE: text})
        with tempfile.TemporaryDirectory(prefix="pairflow-model-") as scratch:
            folder = Path(scratch) / "model"
            package(
                checkpoint, folder, model_id=model_id, run_id=self.run_id, artifact_path=str(model.artifact_location)
            )
            self._client.log_model_artifacts(model_id, str(folder))
        self._client.finalize_logged_model(model_id, "READY")
        self._client.log_outputs(self.run_id, [LoggedModelOutput(model_id, step=0)])
        return model_id

    def _remove_unfinished(self, fingerprint: str) -> None:
        """Removes the models without files that are left where logging this one was cut off, or failed."""
        same = f"tags.`{tag.FINGERPRINT}` = '{fingerprint}'"
        for model in all_models(self._client, [self.experiment_id], same):
            run_id = model.source_run_id
            if model.status != LoggedModelStatus.READY and (run_id == self.run_id or not self._works(run_id)):
                self._client.delete_logged_model(model.model_id)

    def _works(self, run_id: str | None) -> bool:
        """Whether a run, of another home perhaps, is at work."""
        return run_id is not None and self._client.get_run(run_id).info.status == "RUNNING"

    def _await_begun(self) -> None:
        deadline = time.monotonic() + self._patience_s
        while not self._writer.begun.wait(0.1):
            if self._outbox.refused is not None or time.monotonic() > deadline:
                raise self._not_taken()

    def _not_taken(self) -> LineageError:
        if (refused := self._outbox.refused) is not None:
            return LineageError(
                f"MLflow refuses what this stage logs: {first_line(refused)}; what it computed is kept: put that right "
                "and run the same command again"
            )
        return LineageError(
            f"MLflow has not answered for {self._patience_s:,.0f} s; what was computed is kept, and so is what was to "
            "be logged: run the same command again when it is back, or correct MLFLOW_TRACKING_URI"
        )
