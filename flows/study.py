"""The flow `study`: the paper's comparison of methods, over training seeds."""

from prefect import flow
from prefect.runtime import flow_run

from flows.comparison import compare
from flows.methods import in_words
from flows.parameters import StudyParameters, validated
from flows.results import ComparisonResult


def _run_name() -> str:
    parameters = validated(StudyParameters, flow_run.parameters["parameters"])
    return f"study {parameters.dataset.name} {parameters.preset} {in_words(parameters.methods)}"


@flow(name="study", flow_run_name=_run_name)
def study(parameters: StudyParameters) -> ComparisonResult:
    """Train, distil and evaluate several methods with several training seeds; ends in one table and one figure.

    What an earlier run or another flow finished is used again: to add a method or a seed costs that one alone.
    """
    return compare(validated(StudyParameters, parameters), "study")
