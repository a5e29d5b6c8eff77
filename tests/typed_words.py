"""Commands in this process, whose tree Typer would else build anew for each: 20 ms, of hundreds of examples."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from flows.command.app import app


@dataclass(frozen=True)
class Said:
    """What came of a command.

    Attributes:
        exit_code: as a shell sees it.
        output: both streams.
        exception: what ended it, but for an end in order.
    """

    exit_code: int
    output: str
    exception: BaseException | None


@functools.cache
def commands() -> dict[str, Any]:
    """By name."""
    return dict(vars(_tree())["commands"])


def typed(words: Sequence[str]) -> Said:
    """Runs `pairflow` with these words."""
    exit_code, exception = 0, None
    with CliRunner().isolation() as (_, _, both):
        try:
            _tree().main(args=words, prog_name="pairflow")
        except SystemExit as end:
            exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception as error:
            exit_code, exception = 1, error
        output = both.getvalue().decode(errors="replace")
    return Said(exit_code, output, exception)


@functools.cache
def _tree() -> Any:
    return get_command(app)
