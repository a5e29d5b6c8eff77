"""The command line, `pairflow`: thin commands over the flows and the store.

Nothing heavy is imported before a command needs it, so that `pairflow --help` answers at once. Results go to standard
output; logs, progress bars and errors go to standard error.
"""

import signal
import sys
from types import FrameType
from typing import Annotated, Literal

import typer

from flows.command import lineage, models, registry, retrain, service, store
from flows.command import options as opt
from flows.command.running import run_flow
from flows.home.settings import Settings, absolute_url
from flows.parameters import PairParameters
from pairflow.errors import PairFlowError, SpecError
from pairflow.spec import CouplingSpec, DatasetSpec, RediSpec, parse

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
    from flows.pages import terminal

    terminal.datasets(Settings.read(), as_json=json)


@app.command()
@opt.takes_dataset
def pair(
    dataset: DatasetSpec,
    coupling: Annotated[
        Literal["closed_form", "independent", "redi"],
        typer.Option(
            help="closed_form: PairFlow's. independent: uniform sources, to compare with. redi: a model's own."
        ),
    ] = "closed_form",
    num_steps: Annotated[
        int | None,
        typer.Option(
            min=1, max=65_535, help="T, backward Euler steps, 20 by default; redi: sampling steps, 256 by default."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
    temperature: Annotated[
        float | None, typer.Option(help="τ of the keep probability; 1, the default, is the exact walk.")
    ] = None,
    sources_per_target: Annotated[
        int | None, typer.Option(min=1, max=4096, help="R, sources of every row; 1 by default.")
    ] = None,
    support_size: Annotated[
        int | None, typer.Option(min=1, help="Posterior over a random subset of so many rows; default all.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="REF", help=f"redi: the model. {opt.REFERENCE}")] = None,
    num_pairs: Annotated[int | None, typer.Option(min=1, help="redi: pairs to draw; 20,000 by default.")] = None,
    extend: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Take over the pairs there of rows that they have; couple the new ones. Approximate."
        ),
    ] = None,
    engine: opt.Engine = "auto",
    store: opt.Store = None,
    format: opt.Format = "zarr",
    shard_size: opt.ShardSize = None,
    workers: opt.Workers = None,
    json: opt.Json = False,
) -> None:
    """Couple every training row with a source point, or draw a model's own pairs; prints the URL of the pairs."""
    walk = {"temperature": temperature, "sources_per_target": sources_per_target, "support_size": support_size}
    not_here = {**walk, "extend": extend} if coupling == "redi" else {"num_pairs": num_pairs, "model": model}
    if foreign := [name for name, value in not_here.items() if value is not None]:
        raise SpecError(f"--{foreign[0].replace('_', '-')} is not for --coupling {coupling}; leave it out")
    if coupling == "redi" and model is None:
        raise SpecError("--coupling redi needs --model REF, the model that makes the pairs; `pairflow train` makes one")
    fields = {"num_steps": num_steps, "seed": seed, **(walk if coupling != "redi" else {"num_pairs": num_pairs})}
    given = {name: value for name, value in fields.items() if value is not None}
    parameters = PairParameters(
        dataset=dataset,
        coupling=None if coupling == "redi" else parse(CouplingSpec, {"kind": coupling, **given}),
        redi=parse(RediSpec, given) if coupling == "redi" else None,
        base_model=None if model is None else opt.reference(model),
        extend=None if extend is None else absolute_url(extend),
        engine=engine,
        store=opt.store_url(store),
        format=format,
        shard_size=shard_size,
        num_workers=workers,
    )
    result = run_flow("pair", parameters)
    if json:
        print(result.model_dump_json())
    else:
        state = "were there already" if result.skipped else f"made at {result.rows_per_second:,.4g} rows/s"
        distance = "" if result.mean_hamming is None else f"; mean Hamming distance {result.mean_hamming:.2f}"
        print(f"{result.rows:,} pairs {state}{distance}")
        print(result.url)


models.add_to(app)
registry.add_to(app)
retrain.add_to(app)


@app.command()
def verify(
    url: Annotated[str, typer.Argument(help="URL of the pairs, as `pairflow pair` printed it.")],
    repair: Annotated[bool, typer.Option("--repair", help="Put back what is damaged; make bad shards again.")] = False,
    json: opt.Json = False,
) -> None:
    """Recompute the hashes of stored pairs, and repair them; exit code 1 if a file is damaged (still), and which."""
    from flows.command import verification

    remake = (lambda parameters: run_flow("pair", parameters)) if repair else None
    if not verification.verify(absolute_url(url), remake, as_json=json):
        raise typer.Exit(1)


@app.command()
def inspect(
    url: Annotated[str, typer.Argument(help="URL of the pairs, as `pairflow pair` printed it.")],
    rows: Annotated[int, typer.Option(min=0, help="Pairs to show.")] = 5,
    json: opt.Json = False,
) -> None:
    """Show what stored pairs were made of, and some of them."""
    from flows.pages import terminal

    terminal.pairs(absolute_url(url), num_rows=rows, as_json=json)


store.add_to(app)
lineage.add_to(app)
service.add_to(app)


def main() -> None:
    """Entry point: an error of ours is one message and exit code 1 (2 if the command line is at fault)."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except PairFlowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SpecError) else 1)


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
