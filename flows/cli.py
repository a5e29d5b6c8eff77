"""The command line, `pairflow`: thin commands over the flows and the store.

Nothing heavy is imported before a command needs it, so that `pairflow --help` answers at once. Results go to standard
output; logs, progress bars and errors go to standard error.
"""

import importlib
import signal
import sys
from types import FrameType
from typing import Annotated, Any, Literal

import typer

from flows import housekeeping
from flows import options as opt
from flows.parameters import (
    EvaluateParameters,
    FlowParameters,
    PairParameters,
    PipelineParameters,
    TrainParameters,
    with_overrides,
)
from flows.service import commands
from flows.settings import Settings, absolute_url, prepare_environment
from pairflow.errors import PairFlowError, SpecError
from pairflow.spec import CouplingSpec, DatasetSpec, parse

app = typer.Typer(
    name="pairflow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Couple every data point with a source point, then train few-step discrete generative models on the pairs.\n\n"
    "Start with `pairflow pipeline --dataset digits`; everything is kept under `PAIRFLOW_HOME` (`~/.pairflow`).",
)


@app.command()
def datasets(json: opt.Json = False) -> None:
    """List the datasets, and which of them are at hand."""
    from flows import listings

    listings.datasets(Settings.read(), as_json=json)


@app.command()
@opt.takes_dataset
def pair(
    dataset: DatasetSpec,
    num_steps: Annotated[int, typer.Option(min=1, max=65_535, help="T, backward Euler steps.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
    temperature: Annotated[float, typer.Option(help="τ of the keep probability; 1 is the exact walk.")] = 1.0,
    kind: Annotated[
        Literal["closed_form", "independent"], typer.Option(help="independent: uniform sources, to compare with.")
    ] = "closed_form",
    sources_per_target: Annotated[int, typer.Option(min=1, max=4096, help="R, sources of every row.")] = 1,
    support_size: Annotated[
        int | None, typer.Option(min=1, help="Posterior over a random subset of so many rows; default all.")
    ] = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    format: opt.Format = "zarr",
    shard_size: opt.ShardSize = None,
    workers: opt.Workers = None,
    json: opt.Json = False,
) -> None:
    """Couple every training row with a source point; prints the URL of the pairs."""
    parameters = PairParameters(
        dataset=dataset,
        coupling=parse(
            CouplingSpec,
            {
                "kind": kind,
                "num_steps": num_steps,
                "seed": seed,
                "temperature": temperature,
                "sources_per_target": sources_per_target,
                "support_size": support_size,
            },
        ),
        engine=engine,
        store=_store(store),
        format=format,
        shard_size=shard_size,
        num_workers=workers,
    )
    result = _run("pair", parameters)
    if json:
        print(result.model_dump_json())
    else:
        state = "were there already" if result.skipped else f"made at {result.rows_per_second:,.0f} rows/s"
        distance = "" if result.mean_hamming is None else f"; mean Hamming distance {result.mean_hamming:.2f}"
        print(f"{result.rows:,} pairs {state}{distance}")
        print(result.url)


@app.command()
@opt.takes_dataset
def train(
    dataset: DatasetSpec,
    coupling: Annotated[
        Literal["paired", "independent"],
        typer.Option(help="paired: on stored pairs (PairFlow). independent: fresh sources (UDLM)."),
    ] = "paired",
    preset: opt.Preset = "demo",
    set: opt.Set = None,
    pairs: opt.Pairs = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    json: opt.Json = False,
) -> None:
    """Train a denoiser; prints the folder of its checkpoint."""
    parameters = TrainParameters(
        dataset=dataset,
        preset=preset,
        pairs=None if pairs is None else absolute_url(pairs),
        engine=engine,
        store=_store(store),
    )
    changes = {**opt.assignments(set), "training.coupling": coupling}
    result = _run("train", with_overrides(parameters, changes))
    if json:
        print(result.model_dump_json())
    else:
        state = "was trained already" if result.skipped else f"trained in {result.seconds:,.0f} s"
        print(f"{result.coupling} model of {dataset.name} {state}; loss {result.loss:.3f} nats a token")
        print(result.checkpoint)


@app.command()
@opt.takes_dataset
def evaluate(
    dataset: DatasetSpec,
    model: Annotated[
        list[opt.Coupling] | None,
        typer.Option(help="Trained model to score; may be repeated; default both."),
    ] = None,
    preset: opt.Preset = "demo",
    set: opt.Set = None,
    pairs: opt.Pairs = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    json: opt.Json = False,
) -> None:
    """Compare trained models by the number of sampling steps; prints a table and where the pictures lie."""
    parameters = EvaluateParameters(
        dataset=dataset,
        preset=preset,
        models=tuple(each.value for each in model or opt.Coupling),
        pairs=None if pairs is None else absolute_url(pairs),
        engine=engine,
        store=_store(store),
    )
    result = _run("evaluate", with_overrides(parameters, opt.assignments(set)))
    if json:
        print(result.model_dump_json())
    else:
        from flows import listings

        listings.scores(result)


@app.command()
@opt.takes_dataset
def pipeline(
    dataset: DatasetSpec,
    preset: opt.Preset = "demo",
    set: opt.Set = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    format: opt.Format = "zarr",
    shard_size: opt.ShardSize = None,
    workers: opt.Workers = None,
    json: opt.Json = False,
) -> None:
    """Run it all: pair, train with and without pairs, evaluate both, report."""
    parameters = PipelineParameters(
        dataset=dataset,
        preset=preset,
        engine=engine,
        store=_store(store),
        format=format,
        shard_size=shard_size,
        num_workers=workers,
    )
    result = _run("pipeline", with_overrides(parameters, opt.assignments(set)))
    if json:
        print(result.model_dump_json())
    else:
        from flows import listings

        listings.report(result, Settings.read())


@app.command()
def verify(
    url: Annotated[str, typer.Argument(help="URL of the pairs, as `pairflow pair` printed it.")],
    repair: Annotated[bool, typer.Option("--repair", help="Put back what is damaged; make bad shards again.")] = False,
    json: opt.Json = False,
) -> None:
    """Recompute the hashes of stored pairs, and repair them; exit code 1 if a file is damaged (still), and which."""
    from flows import verification

    remake = (lambda parameters: _run("pair", parameters)) if repair else None
    if not verification.verify(absolute_url(url), remake, as_json=json):
        raise typer.Exit(1)


@app.command()
def inspect(
    url: Annotated[str, typer.Argument(help="URL of the pairs, as `pairflow pair` printed it.")],
    rows: Annotated[int, typer.Option(min=0, help="Pairs to show.")] = 5,
    json: opt.Json = False,
) -> None:
    """Show what stored pairs were made of, and some of them."""
    from flows import listings

    listings.pairs(absolute_url(url), num_rows=rows, as_json=json)


housekeeping.add_to(app)
commands.add_to(app)


def main() -> None:
    """Entry point: an error of ours is one message and exit code 1 (2 if the command line is at fault)."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except PairFlowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SpecError) else 1)


def _store(store: str | None) -> str | None:
    return None if store is None else absolute_url(store)


def _run(name: str, parameters: FlowParameters) -> Any:
    """Runs a flow in this process. Ray starts first, since Prefect's server takes as long to come up."""
    prepare_environment(Settings.read())
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    from flows import stage

    stage.log_expected_errors_without_traceback()
    try:
        with stage.shared_cluster(parameters.store):
            return flow(parameters)
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept, and the same command goes on from there", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGINT) from None


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
