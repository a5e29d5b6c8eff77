"""The flow `study`: the paper's comparison of methods, over training seeds."""

from prefect import flow
from prefect.runtime import flow_run

from flows.comparison import compare
from flows.evaluate import message
from flows.parameters import StudyParameters, validated
from flows.recipes.methods import in_words
from flows.results import ComparisonResult
from flows.stages import hooks
from flows.stages.command_line import command_line
from flows.stages.flow_run import describe_run, ended, show_decided


def _run_name() -> str:
    parameters = validated(StudyParameters, flow_run.parameters["parameters"])
    return f"study {parameters.dataset.name} {parameters.preset} {in_words(parameters.methods)}"


@flow(
    name="study",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def study(parameters: StudyParameters) -> ComparisonResult:
    """Train, distil and evaluate several methods with several training seeds; ends in one table and one figure.

    What an earlier run or another flow finished is used again: to add a method or a seed costs that one alone.
    """
    parameters = validated(StudyParameters, parameters)
    describe_run(tags=("study", parameters.dataset.name, parameters.preset))
    show_decided(parameters)
    result = compare(parameters, "study", command=command_line("study", parameters))
    return ended(result, message(result.evaluation))
