"""The flow `prepare`: reads a dataset, screens and tokenises its rows, and keeps them in the store."""

from prefect import flow
from prefect.runtime import flow_run

from flows.pages import artifacts
from flows.parameters import PrepareParameters, validated
from flows.requests import PrepareRequest
from flows.results import PrepareResult
from flows.stages import hooks
from flows.stages.command_line import command_line
from flows.stages.flow_run import describe_run, ended, short_count
from flows.stages.run_job import run_job

_MOST_TOKENS = 500  # of a vocabulary that are shown


def _run_name() -> str:
    parameters = validated(PrepareParameters, flow_run.parameters["parameters"])
    return f"prepare {parameters.dataset.name}"


@flow(
    name="prepare",
    flow_run_name=_run_name,
    on_cancellation=[hooks.stop_jobs],
    on_crashed=[hooks.stop_jobs, hooks.explain_crash],
)
def prepare(parameters: PrepareParameters) -> PrepareResult:
    """Read a dataset once, screen and tokenise its rows in parallel, and keep them in the store.

    Every other flow does this when it has to, and finds what is there; alone it shows what became of each row.
    """
    from flows.jobs import finished  # here, as in every flow: see flows/stages/hooks.py

    parameters = validated(PrepareParameters, parameters)
    describe_run(tags=("data", parameters.dataset.name))
    ran = run_job(
        "prepare",
        PrepareRequest.of(parameters),
        PrepareResult,
        store=parameters.store,
        find=finished.find_prepared,
        command=command_line("prepare", parameters),
    )
    result = ran.result
    describe_run(name=f"{_run_name()} · {short_count(result.rows_kept)} rows")
    facts = {
        "rows read": f"{result.rows_read:,}",
        "rows kept": f"{result.rows_kept:,}",
        **{f"dropped: {reason}": f"{count:,}" for reason, count in result.dropped.items()},
        **{f"rows of {part}": f"{rows:,}" for part, rows in result.splits.items()},
        "tokens a row": result.length,
        "vocabulary": result.vocab_size,
        "format": result.format,
        "fingerprint": result.fingerprint,
        **{f"digest of {part}": digest for part, digest in result.digests.items()},
        "Ray job": ran.page,
    }
    where = f"{'In the store already' if result.skipped else 'Stored'} at `{result.url}`; read from `{result.source}`"
    artifacts.show_facts(f"data-{result.fingerprint[:12]}", f"Prepared {parameters.dataset.name}", facts, note=where)
    artifacts.show_text(f"rows-{result.fingerprint[:12]}", "Dropped rows and vocabulary", _in_full(result))
    took = "in the store already" if result.skipped else f"prepared in {result.seconds:,.3g} s"
    dropped = f", {result.rows_read - result.rows_kept:,} dropped" if result.dropped else ""
    return ended(result, f"{result.rows_kept:,} of {result.rows_read:,} rows{dropped}, {took} · {result.url}")


def _in_full(result: PrepareResult) -> str:
    """What a table of a line a fact has no room for."""
    text = ["## Dropped rows", *(f"> {note}" for note in result.notes)]
    for reason, count in result.dropped.items():
        text.append(f"**{count:,} {reason}**")
        if some := result.examples.get(reason):
            text.append("```\n" + "\n".join(some) + "\n```")
    if not result.dropped:
        text.append("None.")
    if result.vocab is not None:
        more = f"\n\n… of {result.vocab_size:,}" if result.vocab_size > _MOST_TOKENS else ""
        text += ["## Vocabulary", "```\n" + " ".join(result.vocab[:_MOST_TOKENS]) + "\n```" + more]
    return "\n\n".join(text)
