"""`pairflow datasets` and `prepare`: what there is to couple, and its rows made ready."""

import typer

from flows.command import options as opt
from flows.home.settings import Settings
from flows.parameters import PrepareParameters
from flows.results import PrepareResult


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(datasets)
    opt.flow_command(app, PrepareParameters)(prepare)


def datasets(json: opt.Json = False) -> None:
    """List the datasets, and which of them are at hand."""
    from flows.pages import terminal

    terminal.datasets(Settings.read(), as_json=json)


def prepare(result: PrepareResult, parameters: PrepareParameters) -> None:
    """Read a dataset, screen and tokenise its rows, and keep them in the store; prints what was dropped and the URL."""
    for reason, count in result.dropped.items():
        print(f"dropped {count:,}: {reason}, such as {'; '.join(result.examples.get(reason, ())) or 'none kept'}")
    parts = ", ".join(f"{rows:,} {part}" for part, rows in result.splits.items())
    state = "were there already" if result.skipped else f"prepared in {result.seconds:,.3g} s"
    print(
        f"{result.rows_kept:,} of {result.rows_read:,} rows {state}: {parts}; D {result.length}, K {result.vocab_size}"
    )
    print(result.url)
