"""The command line, `pairflow`: thin commands over the flows and the store.

Nothing heavy is imported before a command needs it, so that `pairflow --help` answers at once. Results go to standard
output; logs, progress bars and errors go to standard error.
"""

import signal
import sys
from types import FrameType

import typer

from flows.command import data, lineage, models, pairs, registry, service, store
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


for _noun in (data, pairs, store, models, registry, lineage, service):
    _noun.add_to(app)


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
