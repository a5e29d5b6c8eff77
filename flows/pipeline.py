"""The flow `pipeline`: from data to a report, without pairs and with both kinds."""

from prefect import flow
from prefect.runtime import flow_run

from flows.comparison import compare
from flows.evaluate import message
from flows.parameters import PipelineParameters, validated
from flows.results import ComparisonResult
from flows.stages import hooks
from flows.stages.command_line import command_line
from flows.stages.flow_run import describe_run, ended, show_decided


def _run_name() -> str:
    parameters = validated(PipelineParameters, flow_run.parameters["parameters"])
    return f"pipeline {parameters.dataset.name} {parameters.preset}"


@flow(
    name="pipeline",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def pipeline(parameters: PipelineParameters) -> ComparisonResult:
    """Couple the data in closed form and by assignment, train with and without pairs, evaluate all, and report.

    Models are trained side by side. What an earlier run finished is used again.
    """
    parameters = validated(PipelineParameters, parameters)
    describe_run(tags=("pipeline", parameters.dataset.name, parameters.preset))
    show_decided(parameters)
    result = compare(parameters.study, "pipeline", command=command_line("pipeline", parameters))
    return ended(result, message(result.evaluation))
