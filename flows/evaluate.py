"""The flow `evaluate`: samples trained models with few steps, measures, and compares them."""

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows import artifacts, hooks
from flows.parameters import EvaluateParameters, validated
from flows.results import EvaluateResult
from flows.stage import describe_run, run_job


def _run_name() -> str:
    parameters = validated(EvaluateParameters, flow_run.parameters["parameters"])
    return f"evaluate {parameters.dataset.name} {' and '.join(parameters.models)}"


@flow(
    name="evaluate",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def evaluate(parameters: EvaluateParameters) -> EvaluateResult:
    """Compare trained models by the number of sampling steps; scores that are there already are used again."""
    parameters = validated(EvaluateParameters, parameters)
    describe_run(tags=("evaluation", parameters.dataset.name))
    result = run_job("evaluate", parameters, EvaluateResult, store=parameters.store, on_gpu=True)
    if result.skipped:
        get_run_logger().info("nothing to do: these models are evaluated already, in %s", result.table)
    key = result.fingerprint[:12]
    artifacts.show_table(f"scores-{key}", f"Scores on {parameters.dataset.name}", score_rows(result))
    artifacts.show_pictures(
        f"pictures-{key}",
        f"Samples and scores of {parameters.dataset.name}",
        {"Scores by number of sampling steps": result.figure, "Samples": result.grid},
    )
    return result


def score_rows(result: EvaluateResult) -> list[dict[str, object]]:
    """The scores as rows of a table: one for each model and number of sampling steps."""
    return [
        {
            "model": model.label,
            "sampling steps": step.num_steps,
            "network calls": f"{step.num_network_calls:g}",
            **{name.replace("_", " "): score.mean for name, score in step.scores.items()},
            "samples/s": step.samples_per_second,
        }
        for model in result.models
        for step in model.steps
    ]
