"""A request as words: the options that a flow's parameters have, read from the command line and said again.

The options are made of the parameter models: names, types, bounds and help stand there alone. `options_of` describes
them, `read` makes parameters of what was given, and `command_line` says the parameters as the words that give them.
"""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic.fields import FieldInfo

from flows.home.places import absolute_url
from flows.parameters import FlowParameters, PairParameters
from flows.recipes import methods
from flows.recipes.changes import resolve, settable, spec_of, with_assignments
from pairflow.errors import SpecError
from pairflow.presets import Preset, preset
from pairflow.spec import CouplingSpec, RediSpec, Spec, in_full, parse

P = TypeVar("P", bound=FlowParameters)
DATA, OPERATIONS = "Data", "Where and how"
_NAMES = {"base_model": "model", "num_workers": "workers", "models": "model", "kind": "coupling", "name": "dataset"}
_ALWAYS_SAID = ("method", "methods")  # a command may have no default for them, or another one
_NOT_SAID = ("expected_fingerprint", "sampling", "overrides")  # ours alone; a spec within a spec; --set says it
_OPERATIONS = ("format", "shard_size", "num_workers", "store")
SET = "set"


@dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: its own, without the dashes before and within.
        paths: of the fields that it gives, of which a request has one: `("coupling", "seed")`, `("redi", "seed")`.
        field: type, bounds, default and description.
        help: for people.
        panel: of the help page.
    """

    name: str
    paths: tuple[tuple[str, ...], ...]
    field: FieldInfo
    help: str
    panel: str | None = None

    @property
    def is_list(self) -> bool:
        """Whether several values are given, separated by commas."""
        return bool(get_args(self.field.annotation)) and "tuple" in str(self.field.annotation) and not self.repeats

    @property
    def repeats(self) -> bool:
        """Whether the option is given once for each value: what may hold commas itself."""
        return self.paths == (("models",),)

    @property
    def default(self) -> Any:
        """Where there is one alone."""
        return self.field.get_default(call_default_factory=True) if len(self.paths) == 1 else None


@cache
def options_of(parameters_type: type[FlowParameters]) -> tuple[Option, ...]:
    """The options of a flow's command, but `--set` and those that every command has."""
    found: dict[str, Option] = {}
    for name, field in parameters_type.model_fields.items():
        if name in Preset.model_fields and "preset" in parameters_type.model_fields:
            continue  # --set
        inner = spec_of(field.annotation)
        fields = {(name,): field} if inner is None else {(name, each): of for each, of in inner.model_fields.items()}
        for path, each in fields.items():
            if path[-1] not in _NOT_SAID:
                option = option_of(path, each)
                found[option.name] = _joined(found[option.name], option) if option.name in found else option
    if parameters_type is PairParameters:
        found["coupling"] = _with_redi(found["coupling"])
    return tuple(sorted(found.values(), key=_place))


def option_of(path: tuple[str, ...], field: FieldInfo) -> Option:
    """The option that gives the field at a path."""
    own = path[-1] if path != ("name",) else "name"
    renamed = {"name": "dataset"} if path[0] == "dataset" else _NAMES
    known_as = own if path == ("name",) else renamed.get(own, own)
    panel = DATA if path[0] == "dataset" else OPERATIONS if own in _OPERATIONS else None
    return Option(known_as.replace("_", "-"), (path,), field, field.description or "", panel)


def _joined(one: Option, other: Option) -> Option:
    """An option of two kinds of pairs."""
    text = one.help if one.help == other.help else f"{one.help} For redi: {other.help}"
    return Option(one.name, one.paths + other.paths, one.field, text, one.panel)


def _with_redi(kind: Option) -> Option:
    text = f"{kind.help} redi: a model's own pairs, of --model."
    return Option(kind.name, kind.paths, kind.field, text, kind.panel)


def _place(option: Option) -> tuple[int, int]:
    """As on a help page: data, method and preset, the flow's own, operations."""
    first = ("dataset", "coupling", "method", "methods", "preset")
    if option.panel is not None:
        return (0 if option.panel == DATA else 3), 0
    return (1, first.index(option.name)) if option.name in first else (2, int(option.name == "engine"))


def read(parameters_type: type[P], given: Mapping[str, Any], assignments: Mapping[str, Any] | None = None) -> P:
    """Parameters of what was given by option; an option that was not given is absent.

    Paths are made absolute: jobs run in another working directory.

    Args:
        parameters_type: of the flow.
        given: by name of the option.
        assignments: of `--set`.

    Raises:
        SpecError: what was given does not fit, or does not fit together.
        CheckpointError, StoreError: a reference can stand for no model, or stands for no pairs.
    """
    data: dict[str, Any] = {}
    group = None
    if parameters_type is PairParameters:
        kind = given.get("coupling", CouplingSpec().kind)
        group = "redi" if kind == "redi" else "coupling"
        data[group] = {} if group == "redi" else {"kind": kind}
    for option in options_of(parameters_type):
        if option.name not in given or option.paths[0][-1] == "kind":
            continue
        path = next((each for each in option.paths if len(each) == 1 or each[0] in ("dataset", group)), None)
        if path is None or (path, group) in ((("base_model",), "coupling"), (("extend",), "redi")):
            raise SpecError(
                f"--{option.name} is not for --coupling {given.get('coupling', 'closed_form')}; leave it out"
            )
        within = data
        for step in path[:-1]:
            within = within.setdefault(step, {})
        within[path[-1]] = _value(option, path[-1], given[option.name], given.get("store"))
    if group == "redi" and "model" not in given:
        raise SpecError("--coupling redi needs --model REF, the model that makes the pairs; `pairflow train` makes one")
    return with_assignments(parse(parameters_type, data), assignments or {})


def _value(option: Option, field: str, given: Any, store: str | None) -> Any:
    if field in _OF_PAIRS and isinstance(given, str):
        from flows.lineage import stored_pairs

        return stored_pairs.url_of(given, store)
    if field in _READ and isinstance(given, str):
        return _READ[field](given)
    if option.repeats:
        return tuple(map(_model_for_job, given))
    return given


def _model_for_job(reference: str) -> str:
    from flows.lineage import models  # with all that reads a store, which a page of help does not need

    return models.for_job(reference)


def seeds(text: str) -> tuple[int, ...]:
    """`"0,1,2"` as numbers.

    Raises:
        SpecError: something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise SpecError(f"--training-seeds {text}: expected whole numbers from 0, separated by commas, such as 0,1,2")
    return tuple(map(int, parts))


_OF_PAIRS = ("pairs", "extend")
_READ: dict[str, Callable[[str], Any]] = {
    "method": lambda text: methods.find(text).name,
    "methods": lambda text: methods.parse(text) if text else (),
    "training_seeds": seeds,
    "base_model": _model_for_job,
    **dict.fromkeys(("path", "vocab_path", "store"), absolute_url),
}


def command_line(flow: str, parameters: FlowParameters) -> str | None:
    """`pairflow train --dataset …` that gives a flow these parameters; None if no command can say all of them."""
    words = ["pairflow", flow]
    data = parameters.model_dump(mode="json")
    if isinstance(parameters, PairParameters):
        wanted = parameters.wanted
        data |= {"coupling": None, "redi": None}
        data["redi" if isinstance(wanted, RediSpec) else "coupling"] = wanted.model_dump(mode="json")
        if isinstance(wanted, RediSpec):
            words += ["--coupling", "redi"]
            if wanted.sampling != RediSpec().sampling:
                return None
    for option in options_of(type(parameters)):
        value, default = _found(data, option, type(parameters))
        as_by_default = value == default and option.name not in ("dataset", "coupling", *_ALWAYS_SAID)
        if value is None or as_by_default or value == []:
            continue
        words += _said(option, value)
    for name, value in _settings(parameters):
        words += ["--set", f"{name}={json.dumps(value)}"]
    return shlex.join(words)


def _found(data: Mapping[str, Any], option: Option, parameters_type: type[Spec]) -> tuple[Any, Any]:
    """What parameters have for an option, and what they would have by default."""
    for path in option.paths:
        within: Any = data
        spec_type: Any = parameters_type
        for step in path[:-1]:
            within = within.get(step)
            spec_type = spec_of(spec_type.model_fields[step].annotation)
        if within is not None:
            default = spec_type.model_fields[path[-1]].get_default(call_default_factory=True)
            return within.get(path[-1]), list(default) if isinstance(default, tuple) else default
    return None, None


def _said(option: Option, value: Any) -> list[str]:
    words = [f"--{option.name}"]
    if value is True:
        return words
    if option.repeats:
        return [word for each in value for word in (*words, str(each))]
    return [*words, ",".join(map(str, value)) if isinstance(value, list) else str(value)]


def _settings(parameters: FlowParameters) -> Iterator[tuple[str, Any]]:
    """What differs from the preset, as `--set` says it."""
    of_preset: Any = parameters
    if "preset" not in type(parameters).model_fields:
        return
    before = in_full(
        preset(of_preset.preset, parameters.dataset.name)
    )  # a default of a field is no preset's everywhere
    after = in_full(resolve(of_preset))
    for name in settable(type(parameters)):
        if name.startswith("dataset."):
            continue
        was: Any = before
        now: Any = after
        for step in name.split("."):
            was, now = was.get(step), now.get(step)
        if was != now:
            yield name, now
