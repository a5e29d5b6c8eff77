"""Options as Typer has them, made of what `flows.stages.command_line` describes; and those that many commands share."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import annotated_types
import typer

from flows.command.running import run_flow
from flows.home import references
from flows.parameters import FlowParameters, FromPreset
from flows.recipes.changes import assignments
from flows.stages.command_line import OPERATIONS, Option, option_of, options_of, read
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
StoredPairsOrData = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help=f"{references.as_help(references.PAIRS)[:-1]}; or those of prepared data.",
    ),
]
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
            as_json, changes = given.pop("json"), assignments(given.pop("set", None) or ())
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
            if as_json:
                print(result.model_dump_json())
            else:
                show(result, parameters)

        asked = ("dataset", *required)
        shown = [_parameter(option, required=option.name in asked) for option in options_of(parameters_type)]
        if issubclass(parameters_type, FromPreset):
            place = next(i for i, each in enumerate(shown) if each.name == "preset") + 1
            shown.insert(place, inspect.Parameter("set", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Set))
        shown.insert(0, inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
        for name, annotation in (("verbose", _Verbose), ("quiet", _Quiet), ("json", Json)):
            shown.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation))
        command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in shown}
        command.__doc__ = show.__doc__
        app.command(show.__name__)(command)
        return show

    return register


def takes(spec_type: type[Spec], *, left_open: tuple[str, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command that has `**fields` the fields of a spec as options; those left open have no default."""

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command).parameters.values()
        shown = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own if each.kind != each.VAR_KEYWORD]
        of_spec = []
        for name, field in spec_type.model_fields.items():
            option = option_of((name,), field)
            if name in left_open:
                option = replace(option, help=f"{option.help} Default: what suits the model's objective.")
            shown_option = _parameter(option, required=False)
            of_spec.append(shown_option.replace(default=None) if name in left_open else shown_option)
        shown[-1:-1] = of_spec

        @functools.wraps(command)
        def called(**given: Any) -> None:
            command(**given)

        called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        called.__annotations__ = {each.name: each.annotation for each in shown}
        return called

    return with_options


def _parameter(option: Option, *, required: bool) -> inspect.Parameter:
    annotation, more = _typed(option)
    default = ",".join(option.default) or None if isinstance(option.default, tuple) else option.default
    declared = typer.Option(f"--{option.name}", help=option.help, rich_help_panel=option.panel, **more)
    return inspect.Parameter(
        option.name.replace("-", "_"),
        inspect.Parameter.KEYWORD_ONLY,
        default=... if required else default,
        annotation=Annotated[annotation if required or annotation is bool else annotation | None, declared],
    )


def _typed(option: Option) -> tuple[Any, dict[str, Any]]:
    """A type for Typer, and what belongs to it: a menu, bounds, or a word for the value."""
    annotation = option.field.annotation
    inner = next((each for each in get_args(annotation) if each is not type(None)), annotation)
    if get_origin(annotation) is Literal:
        inner = annotation
    metavar = {"metavar": _METAVARS[option.name]} if option.name in _METAVARS else {}
    if get_origin(inner) is Literal:
        extra = ("redi",) if option.paths[0][-1] == "kind" else ()
        return Literal[(*get_args(inner), *extra)], {}
    if inner is bool:
        return bool, {}
    if option.repeats:
        return list[str], metavar
    if option.is_list:
        return str, metavar or {"metavar": "NAME,NAME,…"}
    named = [each for each in option.field.metadata if isinstance(each, NameOf)]
    if named:
        return str, {"metavar": f"[{'|'.join(named[0].names)}]"}
    return inner, metavar | (_bounds(option) if inner in (int, float) else {})


def _bounds(option: Option) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in option.field.metadata:
        if isinstance(each, annotated_types.Ge):
            found["min"] = each.ge
        elif isinstance(each, annotated_types.Le) and float(str(each.le)) < 2**32:
            found["max"] = each.le
    return found
