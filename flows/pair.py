"""The flow `pair`: couples a dataset's training rows with source points and keeps the pairs in the store."""

from prefect import flow
from prefect.runtime import flow_run

from flows.pages import artifacts
from flows.parameters import PairParameters, validated
from flows.requests import PairRequest
from flows.results import PairResult
from flows.stages import hooks
from flows.stages.command_line import command_line
from flows.stages.flow_run import describe_run, ended, short_count
from flows.stages.run_job import run_job


def _run_name() -> str:
    parameters = validated(PairParameters, flow_run.parameters["parameters"])
    return f"pair {parameters.dataset.name} {parameters.wanted.title}"


@flow(
    name="pair",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def pair(parameters: PairParameters) -> PairResult:
    """Couple every training row with a source point, in closed form and before any training; or a model's own pairs.

    The pairs lie in the store under a fingerprint of the data, the coupling and the engine; asked for again, they
    are found and nothing is computed.
    """
    from flows.jobs import finished  # here, as in every flow: see flows/stages/hooks.py

    parameters = validated(PairParameters, parameters)
    describe_run(tags=("coupling", parameters.dataset.name))
    ran = run_job(
        "pair",
        PairRequest.of(parameters),
        PairResult,
        store=parameters.store,
        find=finished.find_pairs,
        command=command_line("pair", parameters),
    )
    result = ran.result
    # How many rows there are is known only now: to count them is to read the data.
    describe_run(name=f"{_run_name()} · {short_count(result.rows)} rows")
    artifacts.show_facts(
        f"pairs-{result.fingerprint[:12]}",
        f"Coupled pairs of {parameters.dataset.name}",
        {
            "rows": result.rows,
            "shards": result.num_shards,
            "rows/s": result.rows_per_second,
            "mean Hamming distance": result.mean_hamming,
            "keep rate": result.keep_rate,
            "extends": result.extends,
            "engine": result.engine,
            "fingerprint": result.fingerprint,
            "dataset digest": result.dataset_digest,
            "content SHA-256": result.content_sha256,
            "MLflow run": artifacts.mlflow_link(result.mlflow_run_id, result.mlflow_experiment_id),
            "Ray job": ran.page,
        },
        # Not in the table, where so long a word would be cut off.
        note=f"{'In the store already' if result.skipped else 'Stored'} at `{result.url}`",
    )
    distance = "" if result.mean_hamming is None else f", {result.mean_hamming:.3g} tokens apart on average"
    speed = "in the store already" if result.skipped else f"made in {result.pairing_seconds:,.3g} s"
    return ended(result, f"{result.rows:,} pairs{distance}, {speed} · {result.url}")
