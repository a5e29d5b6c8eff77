"""The comparison of methods, from data to report: what the flows `pipeline` and `study` have in common."""

import time
from functools import partial
from typing import Any

from prefect.runtime import flow_run

from flows.distill import distill
from flows.evaluate import evaluate, show_comparison
from flows.lineage.tracking import Lineage
from flows.pages import artifacts, comparison_page
from flows.pair import pair
from flows.parameters import (
    DistillParameters,
    EvaluateParameters,
    PairParameters,
    StudyParameters,
    TrainParameters,
    recipe,
    with_seed,
)
from flows.recipes.methods import METHODS, MethodName, bases, in_order
from flows.results import ComparisonResult, EvaluateResult, PairResult, TrainResult
from flows.stages.side_by_side import side_by_side
from flows.stages.surroundings import job_context, nested_under, shared_cluster
from flows.train import train
from pairflow.spec import Spec, fingerprint

_Key = tuple[MethodName, int | None]  # method and training seed


def compare(parameters: StudyParameters, stage: str, *, command: str | None) -> ComparisonResult:
    """Pairs, trains, refines and evaluates every method; each stage is a flow run of its own, on one Ray cluster.

    What an earlier run finished is used again, in whichever comparison it was made.

    Args:
        parameters: what to compare.
        stage: the flow's name, for lineage.
        command: the command line that asks for the same again.
    """
    started = time.time()
    work = Comparison(parameters)
    with shared_cluster(parameters.store) as cluster:
        lineage = Lineage(cluster.settings)
        pairs = work.pair() if work.needs_pairs else None
        run = lineage.run(
            parameters.dataset.name,
            stage,
            work.fingerprint(pairs),
            name=f"{stage} {parameters.dataset.name} {parameters.preset}",
            specs=work.specs,
            context=job_context(submission_id=None, command=command),
            started=started,
        )
        with run as parent, nested_under(parent.run_id):
            if pairs is not None and pairs.mlflow_run_id is not None and not pairs.skipped:
                lineage.adopt(pairs.mlflow_run_id, parent.run_id)
            at_once = cluster.settings.jobs_at_once
            trained = work.train(pairs, at_once)
            redi_pairs = work.redi_pairs(trained)
            refined = work.refine(pairs, trained, at_once)
            evaluation = work.evaluate(pairs)
            show_comparison(evaluation, parameters.dataset.name)
            result = ComparisonResult(
                pairs=pairs,
                redi_pairs=redi_pairs,
                trainings=tuple(trained.values()),
                distillations=tuple(refined.values()),
                evaluation=evaluation,
                mlflow_run_id=parent.run_id,
                mlflow_experiment_id=parent.experiment_id,
                prefect_run_id=str(flow_run.id),
            )
            comparison_page.fill(parent, result, lineage)
        _show_summary(result, f"{stage} {parameters.dataset.name}")
        return result


def _show_summary(result: ComparisonResult, title: str) -> None:
    """What there is in the end, and where: the last artifact on the flow run's page."""
    made: dict[str, str | None] = {"the comparison": result.mlflow_run_id}
    if result.pairs is not None:
        made[f"pairs: {result.pairs.rows:,} rows"] = result.pairs.mlflow_run_id
    for trained in (*result.trainings, *result.distillations):
        made[f"model: {METHODS[trained.method].label}, seed {trained.training_seed}"] = trained.mlflow_run_id
    for scored in result.evaluation.models:
        made[f"scores: {scored.label}, seed {scored.training_seed}"] = scored.mlflow_run_id
    report = {name: f"`{getattr(result.evaluation, name)}`" for name in ("report", "table", "figure", "grid")}
    artifacts.show_facts(
        f"summary-{result.evaluation.fingerprint[:12]}",
        f"Summary of {title}",
        {**report, **{name: artifacts.mlflow_link(run_id) for name, run_id in made.items()}},
        note="The report's files, and the runs in MLflow. The stages' own pages link to their Ray jobs.",
    )


class Comparison:
    """The stages of one comparison, with the parameters that each gets."""

    def __init__(self, parameters: StudyParameters) -> None:
        self.parameters = parameters
        self.preset = recipe(parameters)
        self.methods = in_order(parameters.methods)
        self.seeds = tuple(dict.fromkeys(parameters.training_seeds or (None,)))
        self.refined = [METHODS[name] for name in self.methods if METHODS[name].refinement is not None]
        states = self.preset.distillation.states
        self.needs_pairs = "pairflow" in bases(self.methods) or (
            states == "paired" and any(each.refinement == "dcd" for each in self.refined)
        )

    @property
    def specs(self) -> dict[str, Spec]:
        """For the MLflow run: all that decides about the result."""
        return {
            "dataset": self.parameters.dataset,
            **{name: getattr(self.preset, name) for name in type(self.preset).model_fields},
        }

    def fingerprint(self, pairs: PairResult | None) -> str:
        """Of the comparison; without pairs it is the dataset's spec that says what data it is about."""
        about = fingerprint(self.parameters.dataset) if pairs is None else pairs.fingerprint
        seeds = ",".join(map(str, self.seeds))
        return fingerprint(self.preset, data=about, methods=",".join(self.methods), seeds=seeds)

    def pair(self, extend: str | None = None) -> PairResult:
        """The pairs that PairFlow is trained on; they may extend those at a URL."""
        return pair(PairParameters(**self._common, **self._sharding, coupling=self.preset.coupling, extend=extend))

    def train(self, pairs: PairResult | None, at_once: int) -> dict[_Key, TrainResult]:
        """The base of every method, with every seed; several at the same time."""
        url = None if pairs is None else pairs.url
        wanted: dict[_Key, Any] = {
            (base, seed): TrainParameters(
                **self._common,
                **self._chosen(seed, "coupling", "model", "training"),
                method=base,
                pairs=url if METHODS[base].coupling == "paired" else None,
            )
            for seed in self.seeds
            for base in bases(self.methods)
        }
        done = side_by_side(*(partial(train, each) for each in wanted.values()), at_most=at_once)
        return dict(zip(wanted, done, strict=True))

    def redi_pairs(self, trained: dict[_Key, TrainResult]) -> tuple[PairResult, ...]:
        """The pairs that models make themselves, one model after the other: each keeps all cores busy."""
        return tuple(
            pair(
                PairParameters(
                    **self._common,
                    **self._sharding,
                    redi=self.preset.redi,
                    base_model=trained[method.base, seed].checkpoint,
                )
            )
            for method in self.refined
            if method.refinement == "redi"
            for seed in self.seeds
        )

    def refine(
        self, pairs: PairResult | None, trained: dict[_Key, TrainResult], at_once: int
    ) -> dict[_Key, TrainResult]:
        """Every refined method, with every seed; several at the same time."""
        names = ("coupling", "model", "training", "distillation", "redi", "redi_training")
        wanted: dict[_Key, Any] = {
            (method.name, seed): DistillParameters(
                **self._common,
                **self._chosen(seed, *names),
                method=method.name,
                base_model=trained[method.base, seed].checkpoint,
                pairs=None if pairs is None else pairs.url,
            )
            for seed in self.seeds
            for method in self.refined
        }
        done = side_by_side(*(partial(distill, each) for each in wanted.values()), at_most=at_once)
        return dict(zip(wanted, done, strict=True))

    def evaluate(self, pairs: PairResult | None, models: tuple[str, ...] = ()) -> EvaluateResult:
        """All models, and others by reference, in one job: what measures them is prepared once."""
        return evaluate(
            EvaluateParameters(
                **self._common,
                **self._chosen(None, *type(self.preset).model_fields),
                methods=self.methods,
                models=models,
                training_seeds=self.parameters.training_seeds,
                pairs=None if pairs is None else pairs.url,
            )
        )

    @property
    def _common(self) -> dict[str, Any]:
        return {name: getattr(self.parameters, name) for name in ("dataset", "engine", "store")}

    @property
    def _sharding(self) -> dict[str, Any]:
        return {name: getattr(self.parameters, name) for name in ("format", "shard_size", "num_workers")}

    def _chosen(self, seed: int | None, *names: str) -> dict[str, Any]:
        """The preset's name, and its specs with a training seed."""
        seeded = with_seed(self.preset, seed)
        return {"preset": self.parameters.preset, **{name: getattr(seeded, name) for name in names}}
