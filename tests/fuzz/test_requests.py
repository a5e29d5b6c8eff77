"""What people type and set: --set, and settings from the environment. A PairFlowError, or what was said."""

import contextlib
import json
import os
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.home.environment import job_environment
from flows.home.settings import Settings
from flows.parameters import EvaluateParameters, RetrainParameters, StudyParameters, TrainParameters
from flows.recipes.changes import assignments, resolve, settable
from flows.stages.command_line import command_line, read
from pairflow.errors import PairFlowError

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
