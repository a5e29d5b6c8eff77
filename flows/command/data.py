"""`pairflow datasets`: what there is to couple."""

import typer

from flows.command import options as opt
from flows.home.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(datasets)


def datasets(json: opt.Json = False) -> None:
    """List the datasets, and which of them are at hand."""
    from flows.pages import terminal

    terminal.datasets(Settings.read(), as_json=json)
