"""Options as Typer has them, made of what `flows.stages.command_line` describes; and those that many commands share."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import annotated_types
import typer

from flows import references
from flows.command.running import run_flow
from flows.parameters import FlowParameters, FromPreset
from flows.stages.command_line import OPERATIONS, Option, assignments, option_of, options_of, read
from pairflow.errors import SpecError
from pairflow.names import NameOf
from pairflow.spec import Spec

R = TypeVar("R", bound=Spec)
Q = TypeVar("Q", bound=FlowParameters)
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line.", rich_help_panel=OPERATIONS)
]
_Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Say also what Prefect, Ray and MLflow say.", rich_help_panel=OPERATIONS),
]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.", rich_help_panel=OPERATIONS)
]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="GROUP.FIELD=VALUE",
        help="Change one setting of the preset, such as training.num_steps=50; may be repeated.",
    ),
]
StoredPairs = Annotated[str, typer.Argument(metavar="REF", help=references.as_help(references.PAIRS))]
_METAVARS = {"model": "REF", "extend": "REF", "pairs": "REF", "training-seeds": "SEED,SEED,…"}


def flow_command(
    app: typer.Typer,
    parameters_type: type[Q],
    *,
    required: tuple[str, ...] = (),
    adjust: Callable[[dict[str, Any]], None] | None = None,
) -> Callable[[Callable[[R, Q], None]], Callable[[R, Q], None]]:
    """Makes a command of a flow: its options are the parameters', it runs the flow, and the function shows the result.

    Args:
        app: that has the command, under the function's name and with its docstring as help.
        parameters_type: of the flow of that name.
        required: options that have to be given, though the form has a default.
        adjust: changes what was given before it is read.
    """

    def register(show: Callable[[R, Q], None]) -> Callable[[R, Q], None]:
        def command(context: typer.Context, **given: Any) -> None:
            as_json, changes = given.pop("json"), assignments(given.pop("set", None))
            verbose, quiet = given.pop("verbose"), given.pop("quiet")
            if verbose and quiet:
                raise SpecError("--verbose and --quiet: got both, expected one of them; leave one out")
            # A default is only shown here: it stands with its field, and may be another's where two kinds have it.
            said = {
                name.replace("_", "-"): value
                for name, value in given.items()
                if (source := context.get_parameter_source(name)) is not None and source.name != "DEFAULT"
            }
            if adjust is not None:
                adjust(said)
            parameters = read(parameters_type, said, changes)
            result = run_flow(show.__name__, parameters, verbose=verbose, quiet=quiet)
