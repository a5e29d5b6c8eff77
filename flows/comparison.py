"""The comparison of methods, from data to report: what the flows `pipeline` and `study` have in common."""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger
from prefect.runtime import flow_run

from flows.distill import distill
from flows.evaluate import evaluate, show_comparison
from flows.home import kept_results
from flows.home.settings import Settings
from flows.lineage.stage_run import StageRun
from flows.lineage.tracking import Lineage
from flows.pages import artifacts, comparison_page
from flows.pair import pair
from flows.parameters import StudyParameters
from flows.recipes.methods import METHODS
from flows.requests import Key, Pairs, Plan, result_of
from flows.results import ComparisonResult, EvaluateResult, PairResult, TrainResult
from flows.stages.side_by_side import known_by, side_by_side
from flows.stages.surroundings import job_context, nested_under, shared_cluster
from flows.train import train

if TYPE_CHECKING:
    from flows.jobs.finished_comparison import FoundComparison


def compare(parameters: StudyParameters, stage: str, *, command: str | None) -> ComparisonResult:
    """Pairs, trains, refines and evaluates every method; each stage is a flow run of its own, on one Ray cluster.

    What an earlier run finished is used again, in whichever comparison it was made.

    Args:
        parameters: what to compare.
        stage: the flow's name, for lineage.
        command: the command line that asks for the same again.
    """
    started = time.time()
    from flows.jobs import finished_comparison  # here, as in every flow: see flows/stages/hooks.py

    if (found := finished_comparison.find(parameters, stage, Settings.read())) is not None:
        return _show_found(found, parameters, stage)
    work = Comparison(parameters)
    with shared_cluster(parameters.store) as cluster:
        lineage = Lineage(cluster.settings)
        pairs = work.pair()
        run = lineage.run(
            parameters.dataset.name,
            stage,
            work.fingerprint(pairs),
            name=f"{stage} {parameters.dataset.name} {parameters.preset}",
            specs=work.specs,
            context=job_context(submission_id=None, command=command, preset=parameters.preset),
            started=started,
        )
        with run as parent, nested_under(parent.run_id, parent.experiment_id, command):
            for made in pairs.values():
                if made.mlflow_run_id is not None and not made.skipped:
                    lineage.adopt(made.mlflow_run_id, parent.run_id)
            trained = work.train(pairs, cluster.settings)
            redi_pairs = work.own_pairs(trained)
            refined = work.refine(pairs, trained, cluster.settings)
            evaluation = work.evaluate(pairs, lineage=lineage, parent=parent)
            show_comparison(evaluation, parameters.dataset.name)
            result = result_of(
                pairs,
                redi_pairs,
                trained,
                refined,
                evaluation,
                mlflow_run_id=parent.run_id,
                mlflow_experiment_id=parent.experiment_id,
                prefect_run_id=str(flow_run.id),
            )
            comparison_page.fill(parent, result, lineage)
        _show_summary(result, f"{stage} {parameters.dataset.name}")
        return result


def _show_found(found: "FoundComparison", parameters: StudyParameters, stage: str) -> ComparisonResult:
    """Shows a comparison of which all was there; its run in MLflow stays as it is."""
    for each in found.stages:
        get_run_logger().info("%s: %s", each.run, each.sentence)
    result = found.result.model_copy(update={"prefect_run_id": str(flow_run.id)})
    show_comparison(result.evaluation, parameters.dataset.name)
    _show_summary(result, f"{stage} {parameters.dataset.name}")
    return result


def _show_summary(result: ComparisonResult, title: str) -> None:
    """What there is in the end, and where: the last artifact on the flow run's page."""
    made: dict[str, str | None] = {"the comparison": result.mlflow_run_id}
    for pairs in (result.pairs, *result.other_pairs):
        if pairs is not None:
            made[f"pairs: {pairs.rows:,} rows, {pairs.engine}"] = pairs.mlflow_run_id
    for trained in (*result.trainings, *result.distillations):
        made[f"model: {METHODS[trained.method].label}, seed {trained.training_seed}"] = trained.mlflow_run_id
    for scored in result.evaluation.models:
        made[f"scores: {scored.label}, seed {scored.training_seed}"] = scored.mlflow_run_id
    report = {name: f"`{getattr(result.evaluation, name)}`" for name in ("report", "table", "figure", "grid")}
    artifacts.show_facts(
        f"summary-{result.evaluation.fingerprint[:12]}",
        f"Summary of {title}",
        {
            **report,
            **{name: artifacts.mlflow_link(run_id, result.mlflow_experiment_id) for name, run_id in made.items()},
        },
        note="The report's files, and the runs in MLflow. The stages' own pages link to their Ray jobs.",
    )


class Comparison(Plan):
    """The stages of one comparison, each as a flow run of its own."""

    def pair(self, extend: str | None = None) -> Pairs:
        """The pairs that the methods are trained on; PairFlow's may extend those at a URL."""
        return {group: pair(each) for group, each in self.pairings(extend).items()}

    def train(self, pairs: Pairs, settings: Settings) -> dict[Key, TrainResult]:
        """The base of every method, with every seed; several at the same time."""
        wanted: dict[Key, Any] = {**self.trainings(pairs)}
        done = side_by_side(
            *(partial(known_by(train, f"{key}"), each) for key, each in wanted.items()),
            at_most=settings.trainings_at_once(len(wanted)),
        )
        return dict(zip(wanted, done, strict=True))

    def own_pairs(self, trained: dict[Key, TrainResult]) -> tuple[PairResult, ...]:
        """The pairs that models make themselves, one model after the other: each keeps all cores busy."""
        return tuple(pair(each) for each in self.own_pairings(trained))

    def refine(self, pairs: Pairs, trained: dict[Key, TrainResult], settings: Settings) -> dict[Key, TrainResult]:
        """Every refined method, with every seed; several at the same time."""
        wanted: dict[Key, Any] = {**self.refinements(pairs, trained)}
        done = side_by_side(
            *(partial(known_by(distill, f"{key}"), each) for key, each in wanted.items()),
            at_most=settings.trainings_at_once(len(wanted)),
        )
        return dict(zip(wanted, done, strict=True))

    def evaluate(
        self, pairs: Pairs, models: tuple[str, ...] = (), *, lineage: Lineage, parent: StageRun
    ) -> EvaluateResult:
        """All models, and others by reference; the page and its pictures are logged with the run above as well."""
        evaluation = evaluate(self.evaluation(pairs, models))
        with tempfile.TemporaryDirectory(prefix="pairflow-") as folder:
            for place in (evaluation.figure, evaluation.grid, evaluation.trajectories, evaluation.report):
                lineage.attach(parent.run_id, kept_results.brought(place, Path(folder)))
        return evaluation
