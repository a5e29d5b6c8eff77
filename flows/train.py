"""The flow `train`: trains a denoiser on coupled pairs (PairFlow), with independent sources (UDLM) or masks (MDLM)."""

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.pages import artifacts
from flows.parameters import TrainParameters, validated
from flows.recipes.methods import METHODS
from flows.requests import TrainRequest
from flows.results import TrainResult
from flows.stages import hooks
from flows.stages.command_line import command_line
from flows.stages.flow_run import describe_run, ended, show_decided
from flows.stages.run_job import Ran, run_job


def _run_name() -> str:
    parameters = validated(TrainParameters, flow_run.parameters["parameters"])
    return f"train {parameters.dataset.name} {parameters.method}"


@flow(
    name="train",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def train(parameters: TrainParameters) -> TrainResult:
    """Train a denoiser; a training that was interrupted goes on, and one that is finished is found."""
    from flows.jobs import finished  # here, as in every flow: see flows/stages/hooks.py

    parameters = validated(TrainParameters, parameters)
    describe_run(tags=("training", parameters.dataset.name, parameters.method))
    show_decided(parameters)
    ran = run_job(
        "train",
        TrainRequest.of(parameters),
        TrainResult,
        store=parameters.store,
        find=finished.find_model,
        command=command_line("train", parameters),
        preset=parameters.preset,
        on_gpu=True,
        by_workers=True,
    )
    return show_model(ran, parameters.dataset.name)


def show_model(ran: Ran[TrainResult], dataset: str) -> TrainResult:
    """Shows a model, trained or distilled, on the flow run's page; the flow ends with what this returns."""
    result = ran.result
    if result.skipped:
        get_run_logger().info("nothing to do: this model is trained already, at %s", result.checkpoint)
    facts = {
        "checkpoint": result.checkpoint,
        "started from": result.base_checkpoint,
        "optimiser steps": result.num_steps,
        "training seconds": result.training_seconds,
        "weights": result.num_parameters,
        "training loss (nats a token)": result.loss,
        "held-out NLL (nats a token)": result.validation_nll,
        "pairs": result.pairs_url,
        "fingerprint": result.fingerprint,
        "MLflow run": artifacts.mlflow_link(result.mlflow_run_id, result.mlflow_experiment_id),
        "Ray job": ran.page,
        "MLflow model": result.mlflow_model_id,
    }
    artifacts.show_facts(
        f"model-{result.fingerprint[:12]}",
        f"{METHODS[result.method].label} model of {dataset}",
        facts,
        note="This model was trained already." if result.skipped else "",
    )
    held_out = "" if result.validation_nll is None else f", held-out NLL {result.validation_nll:.4g}"
    took = "trained already" if result.skipped else f"{result.training_seconds:,.3g} s"
    return ended(
        result,
        f"{METHODS[result.method].label}: loss {result.loss:.4g}{held_out} nats a token after "
        f"{result.num_steps:,} steps, {took}",
    )
