"""The comparison of methods, from data to report: what the flows `pipeline` and `study` have in common."""

import time
from functools import partial
from typing import Any

from prefect.runtime import flow_run

from flows.distill import distill
from flows.evaluate import evaluate, show_comparison
from flows.lineage import Lineage, StageRun
from flows.methods import METHODS, MethodName, bases, in_order
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
from flows.results import ComparisonResult, EvaluateResult, PairResult, TrainResult
from flows.stage import job_context, nested_under, shared_cluster, side_by_side
from flows.train import train
from pairflow.spec import Spec, fingerprint

_Key = tuple[MethodName, int | None]  # method and training seed


def compare(parameters: StudyParameters, stage: str) -> ComparisonResult:
    """Pairs, trains, refines and evaluates every method; each stage is a flow run of its own, on one Ray cluster.

    What an earlier run finished is used again, in whichever comparison it was made.

    Args:
        parameters: what to compare.
        stage: the flow's name, for lineage.
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
            context=job_context(submission_id=None),
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
            _report(parent, result)
        return result


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

    def pair(self) -> PairResult:
        """The pairs that PairFlow is trained on."""
        return pair(PairParameters(**self._common, **self._sharding, coupling=self.preset.coupling))

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


def _report(parent: StageRun, result: ComparisonResult) -> None:
    """Makes the comparison's MLflow run the place from which everything else is found."""
    evaluation = result.evaluation
    tags = {"comparison": evaluation.figure, "samples": evaluation.grid, "table": evaluation.table}
    tags["report"] = evaluation.report_address
    tags["dataset_digest"] = result.trainings[0].dataset_digest
    if result.pairs is not None:
        tags |= {"pairs_fingerprint": result.pairs.fingerprint, "pairs_url": result.pairs.url}
        tags["pairing_run"] = result.pairs.mlflow_run_id or ""
    for trained in (*result.trainings, *result.distillations):
        name = f"{METHODS[trained.method].key}.seed{trained.training_seed}"
        tags |= {f"training_run.{name}": trained.mlflow_run_id, f"model.{name}": trained.mlflow_model_id}
    for scored in evaluation.models:
        name = f"{METHODS[scored.method].key}.seed{scored.training_seed}"
        tags[f"evaluation_run.{name}"] = scored.mlflow_run_id
    parent.tag(**tags)
    for method in evaluation.methods:
        for step in method.steps:
            score = step.scores[method.headline.name]
            parent.log({f"{method.headline.name}.{METHODS[method.method].key}": score.mean}, step=step.num_steps)
    for cost in evaluation.costs:
        seconds = {part: getattr(cost, part).mean for part in ("pairing", "training", "refinement")}
        parent.log({f"{part}_seconds.{METHODS[cost.method].key}": value for part, value in seconds.items()})
