"""The flow `evaluate`: samples trained models with few steps, measures, and compares them."""

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.pages import artifacts
from flows.pages.tables import comparison_rows
from flows.pages.verdict import measured, verdict
from flows.parameters import EvaluateParameters, validated
from flows.recipes.methods import in_words
from flows.requests import EvaluateRequest
from flows.results import EvaluateResult
from flows.stages import hooks
from flows.stages.command_line import command_line
from flows.stages.flow_run import describe_run, ended, show_decided
from flows.stages.run_job import run_job


def _run_name() -> str:
    parameters = validated(EvaluateParameters, flow_run.parameters["parameters"])
    models = f"{len(parameters.models)} model{'s' if len(parameters.models) > 1 else ''}" if parameters.models else ""
    what = " and ".join(filter(None, (in_words(parameters.methods), models)))
    return f"evaluate {parameters.dataset.name} {what}"


@flow(
    name="evaluate",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def evaluate(parameters: EvaluateParameters) -> EvaluateResult:
    """Compare trained models by the number of sampling steps; scores that are there already are used again."""
    from flows.jobs import evaluations  # here, as in every flow: see flows/stages/hooks.py

    parameters = validated(EvaluateParameters, parameters)
    describe_run(tags=("evaluation", parameters.dataset.name))
    show_decided(parameters)
    ran = run_job(
        "evaluate",
        EvaluateRequest.of(parameters),
        EvaluateResult,
        store=parameters.store,
        find=evaluations.find,
        command=command_line("evaluate", parameters),
        preset=parameters.preset,
        on_gpu=True,
    )
    result = ran.result
    if result.skipped:
        get_run_logger().info("nothing to do: these models are evaluated already, in %s", result.table)
    show_comparison(result, parameters.dataset.name)
    runs = {f"scores: {each.label}, seed {each.training_seed}": each.mlflow_run_id for each in result.models}
    artifacts.show_facts(
        f"evaluation-{result.fingerprint[:12]}",
        f"Evaluation of {parameters.dataset.name}",
        {
            **{name: f"`{getattr(result, name)}`" for name in ("report", "table", "figure", "grid")},
            **{name: artifacts.mlflow_link(run_id, result.mlflow_experiment_id) for name, run_id in runs.items()},
            "Ray job": ran.page,
        },
        note="In the reports already." if result.skipped else "",
    )
    return ended(result, message(result))


def message(result: EvaluateResult) -> str:
    """What a run that ends with a comparison came to."""
    return f"{verdict(result)} ({measured(result)}) · report {result.report_address}"


def show_comparison(result: EvaluateResult, dataset: str) -> None:
    """Shows the table and the pictures on the flow run's page."""
    key = result.fingerprint[:12]
    title = f"{result.methods[0].headline_text} on {dataset} by number of sampling steps"
    artifacts.show_table(f"scores-{key}", title, comparison_rows(result))
    artifacts.show_pictures(
        f"pictures-{key}",
        f"Samples and scores of {dataset}",
        {
            "Scores by number of sampling steps": result.figure,
            "Samples": result.grid,
            "From source to sample": result.trajectories,
        },
    )
    artifacts.show_link(
        f"report-{key}",
        f"{verdict(result)}. One page, also at {result.report}",
        result.report_address,
        f"Report of {dataset}",
    )
