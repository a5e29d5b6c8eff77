"""Changes to a preset: every field of its specs, and none has to be given. What is not given is the preset's."""

import copy
import difflib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar, cast, get_args

from pydantic import Field, create_model, model_validator

from flows.recipes.methods import check_noise
from pairflow.errors import SpecError
from pairflow.presets import Preset, preset
from pairflow.spec import DatasetSpec, OptimizerSpec, PresetName, Spec, in_full, parse

S = TypeVar("S", bound=Spec)
# What the method decides, by group, so that no setting beside it can say something else.
_LEARNING, _WALK = ("process", "coupling"), ("kind", "num_steps", "temperature", "epsilon", "support_size")
_OF_THE_METHOD = {"training": _LEARNING, "redi_training": (*_LEARNING, "objective"), "assignment": _WALK}


class Changes(Spec):
    """Base of what `changes_of` makes: a spec of which every field may be left out."""

    @model_validator(mode="before")
    @classmethod
    def _from_a_whole_spec(cls, given: Any) -> Any:
        """A whole spec is a change of everything, but for what the method decides."""
        if not isinstance(given, Spec):
            return given
        return {name: value for name, value in in_full(given).items() if name in cls.model_fields}

    @property
    def given(self) -> dict[str, Any]:
        """What was said, as JSON values."""
        return self.model_dump(mode="json", exclude_none=True)


@cache
def changes_of(spec_type: type[Spec], name: str = "", without: tuple[str, ...] = ()) -> type[Changes]:
    """The changes that can be made to a spec of a type: the same names, types, bounds and descriptions."""
    fields: dict[str, Any] = {}
    for field_name, field in spec_type.model_fields.items():
        if field_name in without:
            continue
        inner: Any = field.annotation
        if isinstance(inner, type) and issubclass(inner, Spec):
            inner = changes_of(inner)
        kept: Any = Field(None, description=field.description)
        kept.metadata = field.metadata
        fields[field_name] = (inner if type(None) in get_args(inner) else inner | None, kept)
    return create_model(name or spec_type.__name__, __base__=Changes, __doc__=spec_type.__doc__, **fields)


def groups(*names: str) -> Any:
    """A base class for parameters that take changes to these groups of a preset."""
    fields: dict[str, Any] = {}
    for name in names:
        field = Preset.model_fields[name]
        spec_type: Any = field.annotation
        changes = changes_of(spec_type, f"{name.title().replace('_', '')}Spec", _OF_THE_METHOD.get(name, ()))
        fields[name] = (changes | None, Field(None, description=f"{field.description} Empty: the preset's."))
    return create_model("Groups", __base__=Spec, **fields)


class OfPreset(Protocol):
    """Parameters that name a preset and may change it."""

    @property
    def dataset(self) -> DatasetSpec: ...
    @property
    def preset(self) -> PresetName: ...


def resolve(parameters: OfPreset) -> Preset:
    """The preset of the dataset, with what was given in its place: concrete, once, at a flow's entry.

    Raises:
        SpecError: the preset has no settings for this dataset, or what was given does not fit the rest.
    """
    base = preset(parameters.preset, parameters.dataset.name)
    update = {}
    for name in Preset.model_fields:
        if (changes := getattr(parameters, name, None)) is not None and changes.given:
            before = getattr(base, name)
            update[name] = _named(name, type(before), _merged(before.model_dump(mode="json"), changes.given))
            _check_warm_up(name, before, update[name], changes)
    resolved = base.model_copy(update=update)
    named = getattr(parameters, "methods", None) or (getattr(parameters, "method", None),)
    check_noise([name for name in named if name is not None], resolved)
    return resolved


def _check_warm_up(group: str, before: Spec, after: Spec, changes: Changes) -> None:
    """Refuses a warm-up of your own that never ends; the preset's may be cut short, as in a trial of few steps."""
    if not isinstance(before, OptimizerSpec) or not isinstance(after, OptimizerSpec):
        return
    chosen = changes.given.get("warmup_steps") not in (None, before.warmup_steps)
    if chosen and after.warmup_steps > after.num_steps:
        raise SpecError(
            f"{group}.warmup_steps: got {after.warmup_steps}, expected at most {group}.num_steps, {after.num_steps}: "
            "the learning rate would never reach its peak; train longer or warm up for fewer steps"
        )


def decided(parameters: OfPreset) -> list[tuple[str, Any, str]]:
    """Every setting that a flow was to choose, its value, and whose it is: "you" or "preset"; yours come first."""
    rows: list[tuple[str, Any, str]] = []
    resolved = in_full(resolve(parameters))
    for name in settable(type(cast("Spec", parameters))):
        group, *path = name.split(".")
        if group == "dataset":
            continue
        value: Any = resolved[group]
        changes: Any = getattr(parameters, group)
        said: Any = {} if changes is None else changes.given
        for step in path:
            value = None if value is None else value.get(step)
            said = said.get(step) if isinstance(said, dict) else None
        rows.append((name, value, "preset" if said is None else "you"))
    return sorted(rows, key=lambda row: row[2] != "you")


def _merged(before: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    within = {
        name: _merged(before[name], value)
        for name, value in changes.items()
        if isinstance(value, dict) and isinstance(before.get(name), dict)
    }
    return before | dict(changes) | within


def _named(group: str, spec_type: type[S], data: Mapping[str, Any]) -> S:
    try:
        return parse(spec_type, data)
    except SpecError as error:
        raise SpecError(f"{group}: {error}") from None


def with_seed(preset: Preset, seed: int | None) -> Preset:
    """`preset` with another seed of all that is trained; None leaves it as it is."""
    if seed is None:
        return preset
    trained = {name: spec for name, spec in preset if isinstance(spec, OptimizerSpec)}
    return preset.model_copy(update={name: spec.model_copy(update={"seed": seed}) for name, spec in trained.items()})


def with_assignments(parameters: S, assignments: Mapping[str, Any]) -> S:
    """Parameters with single fields changed, such as `{"training.num_steps": 50}`, as `--set` says them.

    Raises:
        SpecError: a name that does not exist, with the nearest one that does; or a value that does not fit.
    """
    data = parameters.model_dump(mode="json", exclude_none=True)
    return parse(type(parameters), assigned(type(parameters), data, assignments))


def assigned(parameters_type: type[Spec], given: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    """What was given for parameters of a type, with single fields changed.

    Raises:
        SpecError: a name that does not exist, with the nearest one that does; or a group that is none.
    """
    data = copy.deepcopy(dict(given))
    known = settable(parameters_type)
    for name, value in assignments.items():
        group, _, field = name.partition(".")
        if field in _OF_THE_METHOD.get(group, ()):
            raise SpecError(f"{name}: got {value!r}, but the method decides it; choose one with --method or --methods")
        if name not in known:
            raise SpecError(f"{name}: there is no such setting; {_instead(name, known)}")
        within: Any = data
        *path, last = name.split(".")
        for step in path:
            if within.get(step) is None:
                within[step] = {}
            elif isinstance(within[step], Spec):
                within[step] = within[step].model_dump(mode="json")  # where Python gave it
            elif not isinstance(within[step], dict):
                raise SpecError(f"{step}: got {within[step]!r}, expected its fields; {name} is one of them")
            within = within[step]
        within[last] = value
    return data


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`["training.num_steps=50"]` as `{"training.num_steps": 50}`; values are JSON, or else plain text.

    Raises:
        SpecError: a text without a name or an equals sign.
    """
    parsed: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise SpecError(f"setting {text!r}: expected GROUP.FIELD=VALUE, such as training.num_steps=50")
        try:
            parsed[name.strip()] = json.loads(value)
        except RecursionError:
            raise SpecError(f"setting {name}=…: its value is nested too deeply to be one") from None
        except ValueError:
            parsed[name.strip()] = value.strip()
    return parsed


def settable(parameters_type: type[Spec]) -> tuple[str, ...]:
    """The names that `--set` knows of a flow's parameters: GROUP.FIELD, in their order."""
    found: list[str] = []

    def visit(prefix: str, spec_type: type[Spec]) -> None:
        for name, field in spec_type.model_fields.items():
            inner = spec_of(field.annotation)
            if inner is not None and issubclass(inner, Changes):
                visit(f"{prefix}{name}.", inner)
            else:
                found.append(f"{prefix}{name}")

    for name, field in parameters_type.model_fields.items():
        inner = spec_of(field.annotation)
        if inner is not None and (name == "dataset" or name in Preset.model_fields):
            visit(f"{name}.", inner)
    return tuple(found)


def spec_of(annotation: Any) -> type[Spec] | None:
    """The spec that a field holds, if it holds one: of `CouplingSpec | None` it is CouplingSpec."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, Spec):
            return each
    return None


def _instead(name: str, known: tuple[str, ...]) -> str:
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.75):
        return f"did you mean {near[0]}?"
    group = name.partition(".")[0]
    fields = [each for each in known if each.startswith(f"{group}.")]
    if fields:
        return f"expected one of {', '.join(fields)}"
    known_groups = dict.fromkeys(each.partition(".")[0] for each in known)
    return f"expected GROUP.FIELD with GROUP one of {', '.join(known_groups)}"
