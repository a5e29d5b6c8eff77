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
)
from flows.recipes.changes import resolve, with_seed
from flows.recipes.methods import DEFAULT_PAIRS, METHODS, bases, coupling_of, in_order, pair_groups
from flows.results import ComparisonResult, EvaluateResult, PairResult, TrainResult
from flows.stages.side_by_side import side_by_side
from flows.stages.surroundings import job_context, nested_under, shared_cluster
from flows.train import train
from pairflow.presets import Preset
from pairflow.spec import Spec, fingerprint

_Key = tuple[str, int | None]  # method and training seed
_Pairs = dict[str, PairResult]  # by the group of settings that they are made by


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
            at_once = cluster.settings.jobs_at_once
            trained = work.train(pairs, at_once)
            redi_pairs = work.own_pairs(trained)
            refined = work.refine(pairs, trained, at_once)
            evaluation = work.evaluate(pairs)
            show_comparison(evaluation, parameters.dataset.name)
            result = ComparisonResult(
                pairs=pairs.get(DEFAULT_PAIRS),
                other_pairs=tuple(made for group, made in pairs.items() if group != DEFAULT_PAIRS),
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


class Comparison:
    """The stages of one comparison, with the parameters that each gets."""

    def __init__(self, parameters: StudyParameters) -> None:
        self.parameters = parameters
        self.preset = resolve(parameters)
        self.methods = in_order(parameters.methods)
        self.seeds = tuple(dict.fromkeys(parameters.training_seeds or (None,)))
        self.refined = [METHODS[name] for name in self.methods if METHODS[name].refinement is not None]
        self.pair_groups = pair_groups(self.methods, self.preset)

    @property
    def specs(self) -> dict[str, Spec]:
        """For the MLflow run: all that decides about the result."""
        return {
            "dataset": self.parameters.dataset,
            **{name: getattr(self.preset, name) for name in type(self.preset).model_fields},
        }

    def fingerprint(self, pairs: _Pairs) -> str:
        """Of the comparison; without pairs it is the dataset's spec that says what data it is about."""
        about = ",".join(made.fingerprint for made in pairs.values()) or fingerprint(self.parameters.dataset)
        seeds = ",".join(map(str, self.seeds))
        return fingerprint(self.preset, data=about, methods=",".join(self.methods), seeds=seeds)

    def pair(self, extend: str | None = None) -> _Pairs:
        """The pairs that the methods are trained on, by group of settings; PairFlow's may extend those at a URL."""
        return {
            group: pair(
                PairParameters(
                    **self._common,
                    **self._sharding,
                    coupling=coupling_of(self.preset, group),
                    extend=extend if group == DEFAULT_PAIRS else None,
                )
            )
            for group in self.pair_groups
        }

    def train(self, pairs: _Pairs, at_once: int) -> dict[_Key, TrainResult]:
        """The base of every method, with every seed; several at the same time."""
        wanted: dict[_Key, Any] = {
            (base, seed): TrainParameters(
                **self._common,
                **self._chosen(seed, TrainParameters),
                method=base,
                pairs=_url(pairs, METHODS[base].pairs),
            )
            for seed in self.seeds
            for base in bases(self.methods)
        }
        done = side_by_side(*(partial(train, each) for each in wanted.values()), at_most=at_once)
        return dict(zip(wanted, done, strict=True))

    def own_pairs(self, trained: dict[_Key, TrainResult]) -> tuple[PairResult, ...]:
        """The pairs that models make themselves, one model after the other: each keeps all cores busy."""
        return tuple(
            pair(
                PairParameters(
                    **self._common, **self._sharding, redi=spec, base_model=trained[method.base, seed].checkpoint
                )
            )
            for method in self.refined
            if method.refinement is not None and (spec := method.refinement.own_pairs(self.preset)) is not None
            for seed in self.seeds
        )

    def refine(self, pairs: _Pairs, trained: dict[_Key, TrainResult], at_once: int) -> dict[_Key, TrainResult]:
        """Every refined method, with every seed; several at the same time."""
        wanted: dict[_Key, Any] = {
            (method.name, seed): DistillParameters(
                **self._common,
                **self._chosen(seed, DistillParameters),
                method=method.name,
                base_model=trained[method.base, seed].checkpoint,
                pairs=_url(pairs, method.refined_on(self.preset)),
            )
            for seed in self.seeds
            for method in self.refined
        }
        done = side_by_side(*(partial(distill, each) for each in wanted.values()), at_most=at_once)
        return dict(zip(wanted, done, strict=True))

    def evaluate(self, pairs: _Pairs, models: tuple[str, ...] = ()) -> EvaluateResult:
        """All models, and others by reference, in one job: what measures them is prepared once."""
        return evaluate(
            EvaluateParameters(
                **self._common,
                **self._chosen(None, EvaluateParameters),
                methods=self.methods,
                models=models,
                training_seeds=self.parameters.training_seeds,
                pairs=_url(pairs, DEFAULT_PAIRS),
            )
        )

    @property
    def _common(self) -> dict[str, Any]:
        return {name: getattr(self.parameters, name) for name in ("dataset", "engine", "store")}

    @property
    def _sharding(self) -> dict[str, Any]:
        return {name: getattr(self.parameters, name) for name in ("format", "shard_size", "num_workers")}

    def _chosen(self, seed: int | None, parameters_type: type[Spec]) -> dict[str, Any]:
        """The preset's name, and its specs with a training seed, as far as a stage has them."""
        seeded = with_seed(self.preset, seed)
        specs = {name: getattr(seeded, name) for name in Preset.model_fields if name in parameters_type.model_fields}
        return {"preset": self.parameters.preset, **specs}


def _url(pairs: _Pairs, group: str | None) -> str | None:
    return pairs[group].url if group in pairs else None
