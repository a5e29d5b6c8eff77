"""The flow `train`: trains a denoiser on coupled pairs (PairFlow) or with independent sources (UDLM)."""

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows import artifacts, hooks
from flows.parameters import LABELS, TrainParameters, recipe, validated
from flows.results import TrainResult
from flows.stage import describe_run, run_job


def _run_name() -> str:
    parameters = validated(TrainParameters, flow_run.parameters["parameters"])
    return f"train {parameters.dataset.name} {recipe(parameters).training.coupling}"


@flow(
    name="train",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def train(parameters: TrainParameters) -> TrainResult:
    """Train a denoiser; a training that was interrupted goes on, and one that is finished is found."""
    parameters = validated(TrainParameters, parameters)
    describe_run(tags=("training", parameters.dataset.name, recipe(parameters).training.coupling))
    result = run_job("train", parameters, TrainResult, store=parameters.store, on_gpu=True)
    if result.skipped:
        get_run_logger().info("nothing to do: this model is trained already, at %s", result.checkpoint)
    artifacts.show_facts(
        f"model-{result.fingerprint[:12]}",
        f"{LABELS[result.coupling]} model of {parameters.dataset.name}",
        {
            "checkpoint": result.checkpoint,
            "optimiser steps": result.num_steps,
            "weights": result.num_parameters,
            "training loss (nats a token)": result.loss,
            "held-out NLL (nats a token)": result.validation_nll,
            "pairs": result.pairs_url,
            "fingerprint": result.fingerprint,
            "MLflow run": artifacts.mlflow_link(result.mlflow_run_id),
            "MLflow model": result.mlflow_model_id,
        },
        note="This model was trained already." if result.skipped else "",
    )
    return result
