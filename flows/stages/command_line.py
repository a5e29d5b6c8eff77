"""The command line that asks for a flow's parameters: what a run's page says to make it again."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from flows.parameters import FlowParameters, PairParameters, TrainedFromPreset, recipe
from pairflow.presets import Preset, preset
from pairflow.spec import CouplingSpec, DatasetSpec, RediSpec, Spec

# Field -> option, where it is not the field's own name.
_NAMES = {"base_model": "model", "num_workers": "workers", "models": "model"}
_ALWAYS = ("method", "methods")  # a command may have no default for them, or another one
_GROUPS = tuple(Preset.model_fields)
_OF_THE_METHOD = ("process", "coupling")  # fields that no --set may change


def command_line(flow: str, parameters: Spec) -> str | None:
    """`pairflow train --dataset …` that gives a flow these parameters; None if no command can say all of them."""
    if not isinstance(parameters, PairParameters | TrainedFromPreset):
        return None  # as retraining's survey of its data, which no command asks for
    words = ["pairflow", flow]
    try:
        for name, value in _options(parameters):
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, _text(value)]
    except _CannotSayError:
        return None
    return shlex.join(words)


class _CannotSayError(Exception):
    """There is no option for a value that is not the default."""


def _options(parameters: FlowParameters) -> Iterator[tuple[str, Any]]:
    yield "dataset", parameters.dataset.name
    yield from _changed(parameters.dataset, DatasetSpec(), leave_out=("name",))
    if isinstance(parameters, PairParameters):
        yield from _coupling(parameters)
    for name, field in type(parameters).model_fields.items():
        value = getattr(parameters, name)
        known = name in (*_GROUPS, "dataset", "expected_fingerprint")
        as_by_default = value == field.get_default(call_default_factory=True) and name not in _ALWAYS
        if known or as_by_default or value == ():
            continue
        if name == "models":
            yield from ((_NAMES[name], each) for each in value)
        else:
            yield _NAMES.get(name, name), value
    if not isinstance(parameters, PairParameters):
        yield from _settings(parameters)


def _coupling(parameters: PairParameters) -> Iterator[tuple[str, Any]]:
    """The options of `pairflow pair`, which has no preset."""
    if parameters.redi is not None:
        yield "coupling", "redi"
        yield from _changed(parameters.redi, RediSpec(), cannot=("sampling",))
        return
    coupling = parameters.closed_form
    yield "coupling", coupling.kind
    yield from _changed(coupling, CouplingSpec(), leave_out=("kind",), cannot=("epsilon",))


def _changed(
    spec: Spec, default: Spec, *, leave_out: tuple[str, ...] = (), cannot: tuple[str, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """The fields of a spec that are not as by default."""
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if name in leave_out or value == getattr(default, name):
            continue
        if name in cannot:
            raise _CannotSayError
        yield name, value


def _settings(parameters: Any) -> Iterator[tuple[str, Any]]:
    """`--set` for what differs from the preset."""
    base, wanted = preset(parameters.preset, parameters.dataset.name), recipe(parameters)
    for group in _GROUPS:
        if group not in type(parameters).model_fields:
            continue
        before = getattr(base, group).model_dump(mode="json")
        for field, value in getattr(wanted, group).model_dump(mode="json").items():
            if value != before[field] and field not in _OF_THE_METHOD:
                yield "set", f"{group}.{field}={json.dumps(value)}"


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
