"""A comparison of which every stage is finished: found as its stages are, one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flows.home.settings import Settings
from flows.jobs import evaluations, finished
from flows.lineage.finished_runs import finished_run, waits_to_be_sent
from flows.parameters import FlowParameters, StudyParameters
from flows.requests import DistillRequest, EvaluateRequest, PairRequest, Plan, TrainRequest, result_of
from flows.results import ComparisonResult, Found

K = TypeVar("K")


@dataclass(frozen=True)
class FoundComparison:
    """A comparison that was there already.

    Attributes:
        result: as the flow that made it handed it back, and of that run.
        stages: in their order.
    """

    result: ComparisonResult
    stages: tuple[Found[Any], ...]


class _ToDo(Exception):  # noqa: N818 - no error: there is work
    """A stage is not finished, or only a job can tell."""


def find(parameters: StudyParameters, stage: str, settings: Settings) -> FoundComparison | None:
    """What the flow of that name would find with nothing to do; None if it has something to do, or may have.

    Args:
        parameters: what is compared.
        stage: name of the flow, as MLflow knows its run.
        settings: where to look.
    """
    settings = settings.at_store(parameters.store)
    if not settings.jobs_run_here or waits_to_be_sent(settings):
        return None
    try:
        return _find(parameters, stage, settings)
    except _ToDo:
        return None


def _find(parameters: StudyParameters, stage: str, settings: Settings) -> FoundComparison:
    plan = Plan(parameters)
    stages: list[Found[Any]] = []

    def result(found: Found[Any] | None) -> Any:
        if found is None:
            raise _ToDo
        stages.append(found)
        return found.result

    def pairs(wanted: FlowParameters) -> Any:
        return result(finished.find_pairs(PairRequest.of(wanted), settings))

    def each(wanted: Mapping[K, FlowParameters], request_type: type[TrainRequest]) -> dict[K, Any]:
        return {key: result(finished.find_model(request_type.of(one), settings)) for key, one in wanted.items()}

    coupled = {group: pairs(wanted) for group, wanted in plan.pairings().items()}
    run = finished_run(settings, parameters.dataset.name, stage, plan.fingerprint(coupled))
    if run is None:
        raise _ToDo
    trained = each(plan.trainings(coupled), TrainRequest)
    redi_pairs = tuple(pairs(wanted) for wanted in plan.own_pairings(trained))
    refined = each(plan.refinements(coupled, trained), DistillRequest)
    evaluation = result(evaluations.find(EvaluateRequest.of(plan.evaluation(coupled)), settings))
    compared = result_of(
        coupled,
        redi_pairs,
        trained,
        refined,
        evaluation,
        mlflow_run_id=run.run_id,
        mlflow_experiment_id=run.experiment_id,
        prefect_run_id=run.prefect_run_id,
    )
    return FoundComparison(compared, tuple(stages))
