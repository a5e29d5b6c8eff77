"""The command line, `pairflow`: thin commands over the flows and the store.

Nothing heavy is imported before a command needs it, so that `pairflow --help` answers at once. Results go to standard
output; logs, progress bars and errors go to standard error.
"""

import contextlib
import os
import signal
import sys
from typing import Annotated

import typer

import pairflow
from flows.command import data, lineage, models, output, pairs, presets, registry, service, signals, store, token
from flows.home.network import set_up_network
from pairflow.errors import PairFlowError, SpecError

app = typer.Typer(
    name="pairflow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Couple every data point with a source point, then train few-step discrete generative models on the pairs.\n\n"
    "Start with `pairflow pipeline --dataset digits`; everything is kept under `PAIRFLOW_HOME` (`~/.pairflow`).",
)


for _noun in (data, presets, pairs, store, models, registry, lineage, service, token):
    _noun.add_to(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"pairflow {pairflow.__version__}")
        raise typer.Exit


@app.callback()
def _of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Takes the options that are no command's."""


def main() -> None:
    """Entry point: an error is one message and exit code 1 (2 if the command line is at fault)."""
    output.prepare()
    set_up_network()
    with signals.handled():
        try:
            app()
        except PairFlowError as error:
            _end(str(error), 2 if isinstance(error, SpecError) else 1)
        except OSError as error:
            # A full disk, a name too long, a folder that is closed or gone: the system's words say what and where.
            _end(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
        finally:
            _finish_output()


def _end(message: str, code: int) -> None:
    with contextlib.suppress(OSError):
        print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _finish_output() -> None:
    """Writes what is still to be written, so that a closed pipe or a full disk is no traceback of the interpreter's."""
    if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # click's, once the pipe was found closed
        sys.exit(128 + signal.SIGPIPE)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        _end(f"standard output cannot be written: {error.strerror}", 1)


if __name__ == "__main__":
    main()
