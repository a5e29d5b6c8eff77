"""`pairflow token`: what Ray's pages ask for."""

import sys

import typer

from flows.home.settings import Settings
from flows.home.token import access_token


def add_to(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(token)


def token() -> None:
    """Print the token that Ray's dashboard asks for; keep it to yourself: who has it can run code as you."""
    path = access_token(Settings.read().home)
    if sys.stdout.isatty():
        print("Paste this where Ray's page asks for a token:", file=sys.stderr)
    print(path.read_text(encoding="ascii").strip())
