"""What people type, send and set: command lines, --set, parameters over REST, settings from the environment.

A PairFlowError or a usage error, or what was said.
"""

import contextlib
import json
import os
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import parameters
from flows.home.environment import job_environment
from flows.home.settings import Settings
from flows.parameters import (
    EvaluateParameters,
    FlowParameters,
    RetrainParameters,
    StudyParameters,
    TrainParameters,
    validated,
)
from flows.recipes.changes import assignments, resolve, settable
from flows.stages.command_line import command_line, read
from pairflow.errors import PairFlowError, SpecError

from ..typed_words import commands, typed
from .damage import fuzzed

_WORDS = st.one_of(
    st.sampled_from(
        ["true", "null", "NaN", "-Infinity", "1e999", "9" * 5000, "[" * 99_999, '{"a":1}', "[1,true]", "''"]
    ),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(json.dumps),
    st.text(max_size=20),
)


@pytest.mark.parametrize("parameters_type", [TrainParameters, StudyParameters, EvaluateParameters, RetrainParameters])
@fuzzed
@given(data=st.data())
def test_set(parameters_type: type[TrainParameters], data: st.DataObject) -> None:
    names = st.one_of(st.sampled_from(settable(parameters_type)), st.text(max_size=12))
    texts = data.draw(st.lists(st.one_of(st.builds("{}={}".format, names, _WORDS), st.text(max_size=20)), max_size=3))
    with contextlib.suppress(PairFlowError):
        changes = assignments(texts)
        parameters = read(parameters_type, {"dataset": "nci", "method": "udlm+dcd"}, changes)
        resolve(parameters)
        command_line("train", parameters)


_BODY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


_OF_FLOWS = [
    each
    for name, each in vars(parameters).items()
    if name.endswith("Parameters") and each is not FlowParameters and issubclass(each, FlowParameters)
]


@pytest.mark.parametrize("parameters_type", _OF_FLOWS)
@fuzzed
@given(data=st.data())
def test_parameters_over_rest(parameters_type: type[FlowParameters], data: st.DataObject) -> None:
    """Whatever Prefect's server lets through is checked again within the flow."""
    names = st.one_of(st.sampled_from([*parameters_type.model_fields]), st.text(max_size=8))
    groups = {name.partition(".") for name in settable(parameters_type)}
    within = st.dictionaries(st.sampled_from(sorted({field for _, _, field in groups})), _BODY, max_size=3)
    body = data.draw(st.dictionaries(names, st.one_of(_BODY, within), max_size=4))
    with contextlib.suppress(PairFlowError):
        assert isinstance(validated(parameters_type, body), parameters_type)


# What removes files, or starts servers that outlive it, is not for words at random.
_COMMANDS = sorted({*commands()} - {"gc", "up", "down", "logs"})


@pytest.mark.parametrize("command", _COMMANDS)
@fuzzed
@given(data=st.data())
def test_command_lines(
    command: str, data: st.DataObject, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As far as the flow that it would run."""

    def _not_now(*_: object, **__: object) -> None:
        raise SpecError("not now")

    for module in ("options", "pairs"):
        monkeypatch.setattr(f"flows.command.{module}.run_flow", _not_now)
    folder = tmp_path_factory.getbasetemp() / f"words-of-{command}"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    options = [option for each in commands()[command].params for option in each.opts if option.startswith("-")]
    values = st.one_of(_WORDS, st.sampled_from(["nci", "digits", "udlm", "m-" + "0" * 32, "0" * 64, "x.npy", ""]))
    word = st.one_of(st.sampled_from(options), values) if options else values
    words = data.draw(st.lists(word, max_size=5))
    # A command sets its process up, and this one is other tests' too.
    with mock.patch.dict(os.environ, {"PAIRFLOW_HOME": str(folder / "home")}):
        done = typed([command, *words])
    assert done.exit_code in (0, 1, 2), (words, done.output)
    assert done.exception is None or isinstance(done.exception, PairFlowError), (words, done.exception)


_VARIABLES = (
    "RAY_ADDRESS",
    "MLFLOW_TRACKING_URI",
    "PAIRFLOW_STORE",
    *(f"PAIRFLOW_{name.upper()}" for name in Settings.model_fields),
)
_VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@fuzzed
@given(
    variables=st.dictionaries(st.sampled_from(_VARIABLES), st.one_of(_VALUES, _WORDS.filter(lambda it: "\0" not in it)))
)
def test_settings(variables: dict[str, str]) -> None:
    with mock.patch.dict(os.environ, variables), contextlib.suppress(PairFlowError):
        settings = Settings.read()
        assert settings.home.is_absolute()
        assert settings.store
        assert all(isinstance(value, str) for value in job_environment(settings).values())
