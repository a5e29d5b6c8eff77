"""`pairflow token`: what the pages of the servers ask for."""

import sys

import typer

from flows.home.settings import Settings
from flows.home.token import USER, access_token, prefect_password, read_token


def add_to(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(token)


def token() -> None:
    """Print the token that the pages of Prefect, MLflow and Ray ask for; who has it can run code as you.

    At a terminal it says what each dialog wants of it; elsewhere it is the token alone, as in
    MLFLOW_TRACKING_PASSWORD="$(pairflow token)".
    """
    path = access_token(Settings.read().home)
    secret = read_token(path)
    if not sys.stdout.isatty():
        print(secret)
        return
    print(f"Prefect's page  {prefect_password(path)}")
    print(f"MLflow's page   user {USER}, password {secret}")
    print(f"Ray's page      {secret}")
