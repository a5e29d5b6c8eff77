"""The flow `pipeline`: from data to a report, with and without coupled pairs."""

import time
from functools import partial

from prefect import flow
from prefect.runtime import flow_run

from flows import hooks
from flows.evaluate import evaluate
from flows.lineage import Lineage, StageRun
from flows.pair import pair
from flows.parameters import (
    Coupling,
    EvaluateParameters,
    PairParameters,
    PipelineParameters,
    TrainParameters,
    recipe,
    validated,
    with_coupling,
)
from flows.results import EvaluateResult, PairResult, PipelineResult, TrainResult
from flows.stage import describe_run, job_context, nested_under, shared_cluster, side_by_side
from flows.train import train
from pairflow.spec import fingerprint

_COMPARED: tuple[Coupling, ...] = ("independent", "paired")


def _run_name() -> str:
    parameters = validated(PipelineParameters, flow_run.parameters["parameters"])
    return f"pipeline {parameters.dataset.name} {parameters.preset}"


@flow(
    name="pipeline",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def pipeline(parameters: PipelineParameters) -> PipelineResult:
    """Couple the data, train with independent and with paired sources, evaluate both, and report.

    Each stage is a flow run of its own, on one Ray cluster, and both models are trained at the same time. What an
    earlier run finished is used again.
    """
    parameters = validated(PipelineParameters, parameters)
    describe_run(tags=("pipeline", parameters.dataset.name, parameters.preset))
    preset = recipe(parameters)
    common = {"dataset": parameters.dataset, "engine": parameters.engine, "store": parameters.store}
    chosen = {"preset": parameters.preset, "coupling": preset.coupling, "model": preset.model}
    started = time.time()
    with shared_cluster(parameters.store) as cluster:
        pairs = pair(
            PairParameters(
                **common,
                coupling=preset.coupling,
                format=parameters.format,
                shard_size=parameters.shard_size,
                num_workers=parameters.num_workers,
            )
        )
        lineage = Lineage(cluster.settings)
        # Only now is it known what data this run is about, and so whether MLflow has a run of it already.
        run = lineage.run(
            parameters.dataset.name,
            "pipeline",
            fingerprint(preset, pairs=pairs.fingerprint),
            name=f"pipeline {parameters.dataset.name} {parameters.preset}",
            specs={
                "dataset": parameters.dataset,
                **{name: getattr(preset, name) for name in type(preset).model_fields},
            },
            context=job_context(submission_id=None),
            started=started,
        )
        with run as parent, nested_under(parent.run_id):
            if pairs.mlflow_run_id is not None and not pairs.skipped:
                lineage.adopt(pairs.mlflow_run_id, parent.run_id)
            trainings = side_by_side(
                *(
                    partial(
                        train,
                        TrainParameters(
                            **common,
                            **chosen,
                            training=with_coupling(preset.training, kind),
                            pairs=pairs.url if kind == "paired" else None,
                        ),
                    )
                    for kind in _COMPARED
                )
            )
            evaluation = evaluate(
                EvaluateParameters(
                    **common,
                    **chosen,
                    training=preset.training,
                    evaluation=preset.evaluation,
                    pairs=pairs.url,
                    models=_COMPARED,
                )
            )
            _report(parent, pairs, trainings, evaluation)
        return PipelineResult(
            pairs=pairs,
            trainings=trainings,
            evaluation=evaluation,
            mlflow_run_id=parent.run_id,
            mlflow_experiment_id=parent.experiment_id,
            prefect_run_id=str(flow_run.id),
        )


def _report(
    parent: StageRun, pairs: PairResult, trainings: tuple[TrainResult, ...], evaluation: EvaluateResult
) -> None:
    """Makes the pipeline's MLflow run the place from which everything else is found."""
    parent.tag(
        dataset_digest=pairs.dataset_digest,
        pairs_fingerprint=pairs.fingerprint,
        pairs_url=pairs.url,
        pairing_run=pairs.mlflow_run_id or "",
        **{f"training_run.{each.coupling}": each.mlflow_run_id for each in trainings},
        **{f"model.{each.coupling}": each.mlflow_model_id for each in trainings},
        **{f"evaluation_run.{each.coupling}": each.mlflow_run_id for each in evaluation.models},
        comparison=evaluation.figure,
        samples=evaluation.grid,
    )
    for model in evaluation.models:
        for step in model.steps:
            score = step.scores[model.headline.name]
            parent.log({f"{model.headline.name}.{model.coupling}": score.mean}, step=step.num_steps)
