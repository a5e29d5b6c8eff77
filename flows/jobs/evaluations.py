"""What an evaluation is of and what it comes to, whether its scores are made or found."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from flows.home.kept_results import KeptFolder
from flows.home.settings import Settings
from flows.jobs import contestants, finished
from flows.jobs.contestants import Contestant
from flows.jobs.known_data import DataFacts
from flows.lineage.finished_runs import finished_run
from flows.pages import report
from flows.recipes import methods
from flows.recipes.changes import with_seed
from flows.recipes.methods import METHODS
from flows.requests import EvaluateRequest
from flows.results import EvaluateResult, Found, MethodCost, ModelScores, TrainResult, mean_and_deviation, over_seeds
from pairflow import metrics
from pairflow.spec import fingerprint

Trained = Mapping[str, tuple[tuple[TrainResult, ...], ...]]
"""Method -> its models, of each the stages that made it."""


def trained(request: EvaluateRequest, data: DataFacts, settings: Settings) -> Trained:
    """What training left of the methods that are compared, with every seed.

    Raises:
        CheckpointError: one of them is not trained.
        StoreError: pairs that a fingerprint covers are not there.
    """
    seeds = tuple(dict.fromkeys(request.training_seeds or (None,)))
    # A seed of None is the preset's own.
    seeded = [request.model_copy(update={"settings": with_seed(request.settings, seed)}) for seed in seeds]
    return {
        name: tuple(finished.trained(METHODS[name], each, data, settings) for each in seeded)
        for name in methods.in_order(request.methods)
    }


def contestants_of(
    request: EvaluateRequest,
    models: Trained,
    data: DataFacts,
    settings: Settings,
    logged_tags: Callable[[str], Mapping[str, str]],
) -> list[Contestant]:
    """All that are scored: the methods' models, then those that were named by reference.

    Raises:
        PairFlowError: as `contestants.by_reference`.
    """
    of_methods = [Contestant.of(stages[-1]) for of_method in models.values() for stages in of_method]
    return [*of_methods, *contestants.by_reference(request.models, data, settings, logged_tags)]


def find(request: EvaluateRequest, settings: Settings) -> Found[EvaluateResult] | None:
    """A comparison of which all is there: the models' scores, and the files that show them."""
    return finished.looked_for(f"evaluate {request.dataset.name}", request, settings, _look)


def _look(request: EvaluateRequest, data: DataFacts, settings: Settings) -> tuple[EvaluateResult, str] | None:
    def logged_tags(model_id: str) -> Mapping[str, str]:
        from flows.lineage.tracking import Lineage

        return Lineage(settings).model_tags(model_id)

    models = trained(request, data, settings)
    scores, experiment_id = [], ""
    for each in contestants_of(request, models, data, settings, logged_tags):
        name = known_as(each, request, data, settings)
        found = scores_folder(name, settings).read("scores.json", ModelScores)
        if found is None or (run := finished_run(settings, request.dataset.name, "evaluate", name)) is None:
            return None
        scores.append(as_asked(found, each))
        experiment_id = run.experiment_id
    result = put_together(request, models, scores, settings, experiment_id=experiment_id, found=True, seconds=0.0)
    return (result, sentence(result)) if result.skipped else None


def scores_folder(known_as: str, settings: Settings) -> KeptFolder:
    """Where the scores of a model lie, and what pictures of it are drawn from."""
    return KeptFolder.at(settings.evaluations_dir / known_as, settings)


def report_folder(fingerprint: str, settings: Settings) -> KeptFolder:
    """Where a comparison lies."""
    return KeptFolder.at(settings.reports_dir / fingerprint, settings)


def as_asked(scores: ModelScores, contestant: Contestant) -> ModelScores:
    """Scores under the name that was asked for: the same weights may have been scored under another."""
    return scores.model_copy(update={"label": contestant.label, "reference": contestant.reference})


def measures(request: EvaluateRequest, settings: Settings) -> dict[str, Any]:
    """What decides how samples are measured, besides the data."""
    return {"image_features": request.settings.evaluation.image_features, "data_dir": settings.data_dir}


def known_as(contestant: Contestant, request: EvaluateRequest, data: DataFacts, settings: Settings) -> str:
    """Fingerprint of a model's scores: of the model, the data, and how it is sampled and measured."""
    inputs = {"dataset": data.train.digest}
    if data.test is not None:
        inputs["held_out"] = data.test.digest
    version = metrics.version(data.train, **measures(request, settings))
    return fingerprint(request.settings.evaluation, model=contestant.sha256, metrics=version, **inputs)


def put_together(
    request: EvaluateRequest,
    models: Trained,
    scores: Sequence[ModelScores],
    settings: Settings,
    *,
    experiment_id: str,
    found: bool,
    seconds: float,
) -> EvaluateResult:
    """The comparison of scores, and where its files lie; it is `skipped` if nothing of it was made now.

    Args:
        request: what was asked for.
        models: of the methods.
        scores: of every model.
        settings: where reports lie, and who shows them.
        experiment_id: of the runs of these models.
        found: that all scores were there already.
        seconds: that it took.
    """
    name = fingerprint(
        request.settings.evaluation,
        **{f"{each.label}, seed {each.training_seed}": each.evaluation_fingerprint for each in scores},
    )
    folder = report_folder(name, settings)
    result = EvaluateResult(
        fingerprint=name,
        models=tuple(scores),
        methods=over_seeds(scores),
        costs=tuple(_cost(name, of_method) for name, of_method in models.items()),
        table=folder.place("table.json"),
        figure=folder.place("comparison.png"),
        grid=folder.place("samples.png"),
        trajectories=folder.place("trajectories.png"),
        report=folder.place("report.html"),
        report_address=report.address(
            settings.mlflow_pages, experiment_id, scores[0].mlflow_run_id, folder.place("report.html")
        ),
        mlflow_experiment_id=experiment_id,
        skipped=False,
        seconds=seconds,
    )
    whole = found and all(folder.has(PurePath(each).name) for each in (result.table, *shown(result)))
    return result.model_copy(update={"skipped": whole})


def shown(result: EvaluateResult) -> tuple[str, ...]:
    """The files that people look at."""
    return result.figure, result.grid, result.trajectories, result.report


def sentence(result: EvaluateResult) -> str:
    """That there was nothing to do."""
    return f"nothing to do: these models are evaluated, the table is {result.table}"


def _cost(name: str, trained: Sequence[tuple[TrainResult, ...]]) -> MethodCost:
    """What a method cost, over its models, of each of which there are the stages."""
    return MethodCost(
        method=name,
        pairing=mean_and_deviation([sum(each.pairing_seconds for each in stages) for stages in trained]),
        training=mean_and_deviation([stages[0].training_seconds for stages in trained]),
        refinement=mean_and_deviation([sum(each.training_seconds for each in stages[1:]) for stages in trained]),
    )
