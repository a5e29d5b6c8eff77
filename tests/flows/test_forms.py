"""What Prefect's server refuses before a run begins, and in which words; checked by its own validator."""

import functools
import re
from inspect import signature
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.distill import distill
from flows.evaluate import evaluate
from flows.pair import pair
from flows.parameters import PairParameters, TrainParameters
from flows.pipeline import pipeline
from flows.prepare import prepare
from flows.recipes.changes import decided, resolve, settable, with_assignments
from flows.retrain import retrain
from flows.study import study
from flows.train import train
from pairflow.errors import SpecError
from pairflow.presets import PRESETS, preset
from pairflow.spec import parse

_FLOWS = [pair, train, distill, evaluate, pipeline, retrain, study]
TOKENS = {"name": "tokens", "path": "/a.npy"}


@functools.cache
def _schema_of_train() -> Any:
    return parameter_schema(train).model_dump(exclude_unset=True)


def _submit(given: dict[str, Any]) -> None:
    validate({"parameters": given}, _schema_of_train(), raise_on_error=True)


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({"dataset": {"name": "nci"}, "preset": "laptop"}, "preset", "'laptop' is not one of ['demo', 'few-step']"),
        ({"preset": "paper"}, "preset", "'paper' is not one of ['demo', 'laptop', 'few-step']"),
        ({"dataset": {"name": "tokens"}}, "dataset", "'path' is a required property"),
        ({"dataset": {"name": "smiles", "path": None}}, "dataset.path", "None is not of type 'string'"),
        ({"dataset": TOKENS}, "dataset", "'vocab_size' is a required property"),
        ({"dataset": {**TOKENS, "vocab_size": 3, "vocab_path": "/v"}}, "dataset.vocab_size", "None was expected"),
        ({"dataset": {"path": "/a.npy"}}, "dataset.path", "None was expected"),
        ({"dataset": {"holdout": 1.5}}, "dataset.holdout", "1.5 is greater than or equal to the maximum of 1"),
        # In no form, and checked like what is.
        ({"dataset": {"holdout": "half"}}, "dataset.holdout", "'half' is not of type 'number'"),
        ({"training": {"num_steps": 0}}, "training.num_steps", "0 is less than the minimum of 1"),
        ({"training": {"num_steps": "many"}}, "training.num_steps", "'many' is not of type 'integer'"),
        ({"training": 3}, "training", "3 is not of type 'object'"),
        ({"engine": "abacus"}, "engine", "'abacus' is not one of ['auto', 'cpu', 'cuda', 'dense']"),
        ({"dataset": {"max_rows": "all"}}, "dataset.max_rows", "'all' is not of type 'integer'"),
        ({"pairs": 7}, "pairs", "7 is not of type 'string'"),
        ({"overrides": "training.num_steps=3"}, "overrides", "'training.num_steps=3' is not of type 'array'"),
    ],
)
def test_refused_when_submitted(given: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _submit(given)
    assert str(refused.value) == f"Validation failed for field 'parameters.{field}'. Failure reason: {says}"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"preset": "laptop"},
        {"dataset": {"name": "digits", "path": None, "holdout": None}, "training": None, "store": None},
        {"training": {"num_steps": 3, "learning_rate": None}, "overrides": ["model.num_layers=1"]},
        {"dataset": {**TOKENS, "vocab_size": 3}},
        {"dataset": {**TOKENS, "vocab_path": "/v.json"}},
        {"dataset": {"name": "smiles", "path": "/a.smi"}},
    ],
)
def test_what_fits_is_taken(given: dict[str, Any]) -> None:
    _submit(given)
    TrainParameters.model_validate(given)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.num_step=50", r"does not match '\^ \*training\\\\.\(num_steps\|"),
        ("training.num_steps", r"does not match '\^ \*training"),
        ("trainin.num_steps=50", r"does not match '\^ \*\(dataset\|"),
        ("", r"'' does not match"),
    ],
)
def test_mistyped_overrides_are_refused_when_submitted(override: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says) as refused:
        _submit({"overrides": ["model.num_layers=1", override]})
    assert "field 'parameters.overrides" in str(refused.value)
    with pytest.raises(SpecError):
        parse(TrainParameters, {"overrides": [override]})


@pytest.mark.parametrize("flow", _FLOWS, ids=lambda flow: flow.name)
def test_every_setting_can_be_an_override(flow: Any) -> None:
    schema: Any = parameter_schema(flow).model_dump(exclude_unset=True)
    parameters: Any = next(iter(signature(flow.fn).parameters.values())).annotation
    names = settable(parameters)
    assert len(names) > 5
    written = [form for name in names for form in (f"{name}=3", f" {name} = 3")]
    validate({"parameters": {"overrides": written}}, schema, raise_on_error=True)  # at once: a call takes a while
    with pytest.raises(ValidationError):
        validate({"parameters": {"overrides": [f"{names[0]}s=3"]}}, schema, raise_on_error=True)


@pytest.mark.parametrize("flow", [prepare, *_FLOWS], ids=lambda flow: flow.name)
def test_what_a_form_gives_as_examples_of_overrides_it_takes(flow: Any) -> None:
    schema: Any = parameter_schema(flow).model_dump(exclude_unset=True)
    parameters: Any = next(iter(signature(flow.fn).parameters.values())).annotation
    said = parameters.model_json_schema()["properties"]["overrides"]["description"]
    examples = re.findall(r"[a-z]+\.[a-z_]+=[0-9.]*[0-9]", said)
    assert len(examples) == (1 if flow is prepare else 2 if flow is pair else 3)
    validate({"parameters": {"overrides": examples}}, schema, raise_on_error=True)
    parse(parameters, {"overrides": examples})


def test_presets_as_they_are() -> None:
    """The form's rules come to what `preset` says, for every pair of dataset and preset."""
    data: dict[str, dict[str, Any]] = {
        "tokens": {"path": "/a", "vocab_size": 3},
        "smiles": {"path": "/a"},
        "text": {"path": "/a"},
    }
    for name in {name for by_dataset in PRESETS.values() for name in by_dataset}:
        for each in PRESETS:
            given = {"dataset": {"name": name, **data.get(name, {})}, "preset": each}
            if name in PRESETS[each]:
                _submit(given)
            else:
                with pytest.raises(SpecError):
                    preset(each, name)  # type: ignore[arg-type]
                with pytest.raises(ValidationError, match="preset"):
                    _submit(given)


def test_warm_up_of_your_own_ends_before_the_training() -> None:
    brief = with_assignments(TrainParameters(), {"training.num_steps": 4})
    assert resolve(brief).training.warmup_steps == 100  # the preset's, cut short
    with pytest.raises(SpecError, match=r"training\.warmup_steps: got 5, expected at most training\.num_steps, 4"):
        resolve(with_assignments(brief, {"training.warmup_steps": 5}))
    assert resolve(with_assignments(brief, {"training.warmup_steps": 4})).training.warmup_steps == 4


def test_decided_settings_begin_with_yours() -> None:
    rows = decided(with_assignments(TrainParameters(), {"training.num_steps": 50, "model.num_layers": 3}))
    assert rows[:2] == [("model.num_layers", 3, "you"), ("training.num_steps", 50, "you")]
    assert {whose for _, _, whose in rows[2:]} == {"preset"}
    assert ("training.learning_rate", 2e-3, "preset") in rows
    assert ("training.batch_size", 128, "preset") in rows


def test_kinds_of_pairs_have_no_defaults_in_the_form() -> None:
    """Prefect's form sends those that it shows, and of both groups one can be given."""
    definitions = PairParameters.model_json_schema()["$defs"]
    for name in ("CouplingSpec", "RediSpec", "SamplingSpec"):
        assert [field for field, said in definitions[name]["properties"].items() if "default" in said] == []


def test_a_form_of_one_screen() -> None:
    """What people choose first is asked, group by group of the preset nothing is; all of it is taken."""
    for flow in (pair, train, distill, evaluate, pipeline, retrain, study):
        schema: Any = parameter_schema(flow).model_dump(exclude_unset=True)
        definitions, (root,) = schema["definitions"], schema["properties"].values()
        top = definitions[root["$ref"].rpartition("/")[2]]
        asked = [*top["properties"], *definitions["DatasetSpec"]["properties"]]
        assert len(asked) <= 16, flow.name
        taken = {*top["properties"], *(name.strip("^$") for name in top["patternProperties"])}
        parameters: Any = next(iter(signature(flow.fn).parameters.values())).annotation
        assert taken == {*parameters.model_fields} - {"expected_fingerprint"}
