"""`pairflow pair`, `inspect` and `verify`: coupled pairs, made, shown and checked."""

from typing import Annotated

import typer

from flows.command import options as opt
from flows.command.running import run_flow
from flows.parameters import PairParameters
from flows.results import PairResult


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    opt.flow_command(app, PairParameters)(pair)
    app.command()(verify)
    app.command()(inspect)


def pair(result: PairResult, parameters: PairParameters) -> None:
    """Couple every training row with a source point, or draw a model's own pairs; prints the URL of the pairs."""
    state = "were there already" if result.skipped else f"made at {result.rows_per_second:,.4g} rows/s"
    distance = "" if result.mean_hamming is None else f"; mean Hamming distance {result.mean_hamming:.2f}"
    print(f"{result.rows:,} pairs {state}{distance}")
    print(result.url)


def verify(
    pairs: opt.StoredPairsOrData,
    repair: Annotated[bool, typer.Option("--repair", help="Put back what is damaged; make bad shards again.")] = False,
    json: opt.Json = False,
) -> None:
    """Recompute the hashes of pairs or prepared data, and repair them; exit code 1 if a file is damaged (still)."""
    from flows.command import verification
    from flows.lineage import stored_pairs

    if (url := stored_pairs.url_of_data(pairs)) is not None:
        prepare = (lambda parameters: run_flow("prepare", parameters)) if repair else None
        if not verification.verify_data(url, prepare, as_json=json):
            raise typer.Exit(1)
        return
    remake = (lambda parameters: run_flow("pair", parameters)) if repair else None
    if not verification.verify(stored_pairs.url_of(pairs), remake, as_json=json):
        raise typer.Exit(1)


def inspect(
    pairs: opt.StoredPairs,
    rows: Annotated[int, typer.Option(min=0, help="Pairs to show.")] = 5,
    json: opt.Json = False,
) -> None:
    """Show what stored pairs were made of, and some of them."""
    from flows.lineage import stored_pairs
    from flows.pages import terminal

    terminal.pairs(stored_pairs.url_of(pairs), num_rows=rows, as_json=json)
