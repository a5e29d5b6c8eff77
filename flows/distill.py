"""The flow `distill`: distils a trained model (DCD), or trains it further on pairs that it made itself (ReDi)."""

from prefect import flow
from prefect.runtime import flow_run

from flows.parameters import DistillParameters, validated
from flows.requests import DistillRequest
from flows.results import TrainResult
from flows.stages import hooks
from flows.stages.command_line import command_line
from flows.stages.flow_run import describe_run, show_decided
from flows.stages.run_job import run_job
from flows.train import show_model


def _run_name() -> str:
    parameters = validated(DistillParameters, flow_run.parameters["parameters"])
    return f"distill {parameters.dataset.name} {parameters.method}"


@flow(
    name="distill",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def distill(parameters: DistillParameters) -> TrainResult:
    """Make a few-step model of a trained one; what was interrupted goes on, and what is finished is found."""
    from flows.jobs import finished  # here, as in every flow: see flows/stages/hooks.py

    parameters = validated(DistillParameters, parameters)
    describe_run(tags=("distillation", parameters.dataset.name, parameters.method))
    show_decided(parameters)
    ran = run_job(
        "distill",
        DistillRequest.of(parameters),
        TrainResult,
        store=parameters.store,
        find=finished.find_model,
        command=command_line("distill", parameters),
        preset=parameters.preset,
        on_gpu=True,
        by_workers=True,
    )
    return show_model(ran, parameters.dataset.name)
