"""The flows' parameters, and the names of methods: what is refused, and in which words."""

from typing import Any

import pytest

from flows.parameters import (
    DistillParameters,
    FromPreset,
    PairParameters,
    PipelineParameters,
    StudyParameters,
    TrainParameters,
    validated,
)
from flows.recipes import methods
from flows.recipes.changes import resolve, settable, with_assignments, with_seed
from flows.recipes.methods import METHODS
from flows.stages import command_line
from pairflow.errors import SpecError
from pairflow.spec import DatasetSpec


class TestParameters:
    def test_overrides_keep_the_rest_of_the_preset(self) -> None:
        parameters = PipelineParameters(dataset=DatasetSpec(name="nci"))
        changed = with_assignments(parameters, {"training.num_steps": 50, "dataset.max_rows": 9})
        before, after = resolve(parameters), resolve(changed)
        assert after == before.model_copy(update={"training": before.training.model_copy(update={"num_steps": 50})})
        assert changed.dataset.max_rows == 9

    def test_unchecked_form_is_checked_again(self) -> None:
        with pytest.raises(SpecError, match="shard_size"):
            validated(PairParameters, {"shard_size": 0})
        with pytest.raises(SpecError, match="nosuch"):
            validated(PairParameters, {"nosuch": 1})

    def test_forms_describe_every_field(self) -> None:
        for model in (PairParameters, DistillParameters, PipelineParameters, StudyParameters):
            schema = model.model_json_schema()
            assert schema["additionalProperties"] is False
            assert [name for name, field in schema["properties"].items() if not field.get("description")] == []

    def test_forms_begin_with_what_people_choose(self) -> None:
        for model, begins in (
            (PairParameters, ["dataset", "coupling"]),
            (DistillParameters, ["method", "preset", "dataset"]),
            (StudyParameters, ["methods", "preset", "dataset", "training_seeds", "overrides", "format"]),
        ):
            fields = model.model_json_schema()["properties"]
            order = sorted(fields, key=lambda name: int(fields[name]["position"]))
            assert order[: len(begins)] == begins
            assert len(order) <= 8
        assert "expected_fingerprint" not in PairParameters.model_json_schema()["properties"]
        assert validated(PairParameters, {"expected_fingerprint": "0" * 64}).expected_fingerprint == "0" * 64

    def test_overrides_are_settings(self) -> None:
        said = {
            "model": {"num_heads": 2},
            "overrides": ["training.num_steps=50", "dataset.holdout=0.2", "model.num_layers=1"],
        }
        parameters = validated(TrainParameters, said)
        assert parameters == TrainParameters.model_validate(
            {
                "dataset": {"holdout": 0.2},
                "model": {"num_heads": 2, "num_layers": 1},
                "training": {"num_steps": 50},
            }
        )
        assert parameters.overrides == ()
        pairs = validated(PairParameters, {"overrides": ["coupling.temperature=0.9", "coupling.seed=3"]})
        assert (pairs.wanted.seed, pairs.overrides) == (3, ())

    @pytest.mark.parametrize("model", [TrainParameters, DistillParameters, PipelineParameters, StudyParameters])
    def test_what_is_empty_stays_empty(self, model: type[FromPreset]) -> None:
        """A flow reads its parameters as the form or the command left them, with null for what nobody chose."""
        changed = with_assignments(model(), {"coupling.num_steps": 5, "training.seed": 1})
        assert validated(model, changed) == changed
        nothing: dict[str, Any] = {"preset": "demo"}
        for name in settable(model):
            group, _, field = name.partition(".")
            if group != "dataset" and "." not in field:
                nothing.setdefault(group, {})[field] = None
        assert resolve(validated(model, nothing)) == resolve(model())

    @pytest.mark.parametrize(
        ("override", "says"),
        [
            ("training.num_step=50", "training.num_step: there is no such setting; did you mean training.num_steps"),
            ("training.num_steps", "'training.num_steps': expected GROUP.FIELD=VALUE"),
            ("training.num_steps=many", "training.num_steps: .*got 'many'"),
            ("training.coupling=paired", "the method decides it"),
            (50, "overrides.0: .*got 50"),
        ],
    )
    def test_overrides_that_are_none(self, override: object, says: str) -> None:
        with pytest.raises(SpecError, match=says):
            validated(TrainParameters, {"overrides": [override]})

    def test_an_override_of_what_is_no_group(self) -> None:
        with pytest.raises(SpecError, match=r"training: got 3, expected its fields; training\.num_steps is one"):
            validated(TrainParameters, {"training": 3, "overrides": ["training.num_steps=5"]})

    def test_forms_bound_every_integer(self) -> None:
        """Prefect's server keeps a run with a longer one, and then answers 500 to whoever lists its runs."""

        def unbounded(node: Any, path: str) -> list[str]:
            if isinstance(node, list):
                return [each for item in node for each in unbounded(item, path)]
            if not isinstance(node, dict):
                return []
            ends = [{"minimum", "exclusiveMinimum"} & set(node), {"maximum", "exclusiveMaximum"} & set(node)]
            own = [path] if node.get("type") == "integer" and not all(ends) else []
            return own + [each for name, item in node.items() for each in unbounded(item, f"{path}.{name}")]

        for model in (PairParameters, DistillParameters, PipelineParameters, StudyParameters):
            assert unbounded(model.model_json_schema(), model.__name__) == []

    @pytest.mark.parametrize("value", [2**63, -(2**63), 10**400])
    def test_integers_that_no_array_can_hold(self, value: int) -> None:
        with pytest.raises(SpecError, match="num_steps"):
            validated(PipelineParameters, {"training": {"num_steps": value}})
        with pytest.raises(SpecError, match="steps"):
            validated(PipelineParameters, {"evaluation": {"steps": [1, value]}})

    def test_what_the_method_decides_is_no_setting(self) -> None:
        for name in ("training.coupling", "training.process", "redi_training.coupling"):
            with pytest.raises(SpecError, match="the method decides it"):
                with_assignments(StudyParameters(), {name: "independent"})

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"redi": {}}, "--model"),
            ({"base_model": "abcdef"}, "give redi"),
            ({"redi": {}, "base_model": "abcdef", "coupling": {}}, "leave one out"),
        ],
    )
    def test_pairs_come_from_rows_or_from_a_model(self, fields: dict[str, Any], says: str) -> None:
        with pytest.raises(SpecError, match=says):
            validated(PairParameters, fields)

    def test_a_seed_is_that_of_all_that_is_trained(self) -> None:
        preset = with_seed(resolve(StudyParameters()), 7)
        assert [each.seed for each in (preset.training, preset.distillation, preset.redi_training)] == [7, 7, 7]
        assert with_seed(preset, None) == preset


class TestMethods:
    def test_names_come_in_the_papers_order_and_once(self) -> None:
        assert methods.parse("PairFlow+dcd, udlm,mdlm,udlm") == ("mdlm", "udlm", "pairflow+dcd")
        assert methods.bases(("udlm+dcd", "udlm+redi", "pairflow+dcd")) == ("udlm", "pairflow")

    @pytest.mark.parametrize(
        ("text", "says"),
        [("udlm,foo", "'foo'; expected one of mdlm, "), ("mdlm+dcd", "use udlm.dcd"), (" ,", "no method")],
    )
    def test_unknown_ones_are_named(self, text: str, says: str) -> None:
        with pytest.raises(SpecError, match=says):
            methods.parse(text)

    def test_each_curve_is_told_apart(self) -> None:
        for attribute in ("label", "color", "marker", "key"):
            assert len({getattr(each, attribute) for each in METHODS.values()}) == len(METHODS) == 10

    def test_seeds(self) -> None:
        assert command_line.seeds("0, 12") == (0, 12)
        for text in ("", "1,", "-1", "a"):
            with pytest.raises(SpecError, match="0,1,2"):
                command_line.seeds(text)
