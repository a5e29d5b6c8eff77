"""The evaluate job: `python -m flows.jobs.evaluate` on the Ray cluster."""

import logging
import sys
import time
from functools import cached_property
from pathlib import PurePath

from flows.cluster.protocol import JobContext, ProgressLines, main
from flows.home.kept_results import KeptFolder
from flows.home.settings import Settings
from flows.jobs import evaluations, inputs, presentation
from flows.jobs.contestants import Contestant
from flows.jobs.evaluations import Trained
from flows.jobs.machine import keep_freed_memory, use_threads
from flows.jobs.scoring import score
from flows.lineage import score_table
from flows.lineage import tags as tag
from flows.lineage.models import on_this_disk
from flows.lineage.stage_run import StageRun
from flows.lineage.tracking import Lineage
from flows.pages.figures import pair_quality
from flows.requests import EvaluateRequest
from flows.results import EvaluateResult, Headline, ModelScores
from pairflow import metrics
from pairflow.checkpoint import load_model
from pairflow.models import count_parameters
from pairflow.presets import Preset
from pairflow.sampling import network_calls
from pairflow.spec import Spec

_logger = logging.getLogger("pairflow.job")
_SAMPLES_KEPT = 8  # of each model and number of steps, for the grid


def run(request: EvaluateRequest, context: JobContext) -> EvaluateResult:
    """Scores the models that are not scored yet, and draws the comparison.

    Raises:
        DatasetError: the data cannot be had.
        StoreError: the pairs of a paired model are not there.
        CheckpointError: a model is not trained, or its checkpoint is damaged.
        SpecError: a model that was named by reference is of another vocabulary, length or kind of data.
        LineageError: a model is not in MLflow.
    """
    started = time.perf_counter()
    evaluation = _Evaluation(request, context)
    models, everyone = evaluation.everyone()
    scored = [evaluation.scores(each) for each in everyone]
    result = evaluations.put_together(
        request,
        models,
        [scores for scores, _ in scored],
        evaluation.settings,
        experiment_id=evaluation.lineage.experiment(request.dataset.name),
        found=all(found for _, found in scored),
        seconds=time.perf_counter() - started,
    )
    if not result.skipped:
        evaluation.report(result)
    else:
        _logger.info("%s", evaluations.sentence(result))
    return result


class _Evaluation:
    """One job's work: the data, the evaluator and MLflow are had once for all of its models."""

    def __init__(self, request: EvaluateRequest, context: JobContext) -> None:
        self.request = request
        self.context = context
        self.settings = Settings.read()
        self.preset: Preset = request.settings
        self.data = inputs.load(request.dataset, self.settings)

    @cached_property
    def lineage(self) -> Lineage:
        """Asked for once it is known that the models are there."""
        return Lineage(self.settings)

    @cached_property
    def evaluator(self) -> metrics.Evaluator:
        """Prepared when the first model is scored; for images it trains a classifier."""
        use_threads(self.settings.threads_per_job)
        keep_freed_memory()
        how = evaluations.measures(self.request, self.settings)
        return metrics.evaluator(self.data.whole, progress=ProgressLines, **how)

    def everyone(self) -> tuple[Trained, list[Contestant]]:
        """What training left of the methods, and all models that are compared.

        Raises:
            CheckpointError: one of them is not trained.
        """

        def logged_tags(model_id: str) -> dict[str, str]:
            return self.lineage.model_tags(model_id)

        facts = self.data.facts
        models = evaluations.trained(self.request, facts, self.settings)
        return models, evaluations.contestants_of(self.request, models, facts, self.settings, logged_tags)

    def scores(self, contestant: Contestant) -> tuple[ModelScores, bool]:
        """The scores of a model, and whether they were there already."""
        known_as = evaluations.known_as(contestant, self.request, self.data.facts, self.settings)
        folder = evaluations.scores_folder(known_as, self.settings)
        name, model_id = self.request.dataset.name, contestant.mlflow_model_id
        found = folder.read("scores.json", ModelScores)
        if found is not None and self.lineage.finished(name, "evaluate", known_as) is not None:
            return evaluations.as_asked(found, contestant), True
        specs: dict[str, Spec] = {"dataset": self.request.dataset, "evaluation": self.preset.evaluation}
        with self.lineage.run(
            name,
            "evaluate",
            known_as,
            name=f"evaluate {name} {contestant.method}",
            specs=specs,
            context=self.context,
            about={"method": contestant.method, "seed": str(contestant.training_seed)},
        ) as stage:
            data = self.data.as_input("evaluation")
            stage.use(data, model_id=model_id)
            stage.tag(
                {
                    tag.METHOD: contestant.method,
                    tag.TRAINING_SEED: str(contestant.training_seed),
                    tag.CHECKPOINT_SHA256: contestant.sha256,
                    **({} if model_id is None else {tag.MODEL_ID: model_id}),
                    **contestant.origin,
                }
            )
            scores = self._score(contestant, known_as, folder, stage)
            stage.log(score_table.by_steps(scores), model_id=model_id, data=data)
            stage.log(scores.facts)
            for step in scores.steps:
                figures = {name: value.mean for name, value in step.scores.items()}
                if self.preset.evaluation.num_trials > 1:
                    figures |= {f"{name}_std": value.std for name, value in step.scores.items()}
                figures["samples_per_second"] = step.samples_per_second
                # The step of a curve in MLflow is the number of sampling steps.
                stage.log(figures, step=step.num_steps, model_id=model_id, data=data)
        score_table.note(self.lineage, scores, contestant.origin.get(tag.TRAINING_RUN))
        folder.write("scores.json", scores)
        return scores, False

    def report(self, result: EvaluateResult) -> None:
        """Draws the comparison, logs it with the runs that it compares, and writes the table last."""
        folder = evaluations.report_folder(result.fingerprint, self.settings)
        presentation.present(
            result,
            folder.here,
            self.data,
            self.preset,
            self.settings,
            self.context,
        )
        shown = [PurePath(each).name for each in evaluations.shown(result)]
        folder.keep(*shown)
        for each in result.models:
            for name in shown:
                self.lineage.attach(each.mlflow_run_id, folder.here / name)
        folder.write(PurePath(result.table).name, result)

    def _score(self, contestant: Contestant, known_as: str, folder: KeptFolder, stage: StageRun) -> ModelScores:
        spec = self.preset.evaluation
        evaluator = self.evaluator
        per_sample = sum(network_calls(num_steps, spec.final_step) for num_steps in spec.steps)
        total = per_sample * spec.num_samples * spec.num_trials
        description = f"evaluate {self.data.spec.name} {contestant.label}"
        with ProgressLines(desc=description, total=total, unit="network calls") as bar:
            loaded = load_model(on_this_disk(contestant.checkpoint, self.settings))
            scored = score(loaded, evaluator, spec, kept=_SAMPLES_KEPT, on_calls=bar.update)
        presentation.keep(scored, folder)
        pairs = (
            None
            if (known := contestant.origin.get(tag.PAIRS_FINGERPRINT)) is None
            else pair_quality.find(known, self.settings)
        )
        headline = evaluator.headline
        return ModelScores(
            method=contestant.method,
            label=contestant.label,
            reference=contestant.reference,
            training_seed=contestant.training_seed,
            checkpoint_sha256=contestant.sha256,
            training_fingerprint=contestant.training_fingerprint,
            evaluation_fingerprint=known_as,
            headline=Headline(name=headline.name, label=headline.label, higher_is_better=headline.higher_is_better),
            facts={**evaluator.facts, **({} if pairs is None else pair_quality.facts(pairs))},
            notes=tuple(evaluator.notes),
            pairs_fingerprint=known,
            steps=scored.steps,
            num_parameters=count_parameters(loaded.model),
            mlflow_run_id=stage.run_id,
            mlflow_model_id=contestant.mlflow_model_id,
        )


if __name__ == "__main__":
    sys.exit(main(EvaluateRequest, run))
