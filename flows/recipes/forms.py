"""How parameters look as a form of Prefect's, and what its server refuses before a run begins."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import GetJsonSchemaHandler

from pairflow.presets import PRESETS, Preset
from pairflow.spec import OWN_DATA, DatasetSpec

# Of overrides: a flow's form shows those of the settings that it has.
_EXAMPLES = ("training.num_steps=50", "coupling.seed=1", "dataset.holdout=0.2")

# The form: what people choose first, then the flow's own numbers, then what the preset knows, and operations last.
# The data's form is long, so it comes after what has one line.
_BEGINS = ("method", "methods", "preset", "dataset")
_GROUPS = (*Preset.model_fields, "base_model", "pairs", "extend")
_ENDS = ("overrides", "format")
_NOT_TAKEN = ("expected_fingerprint",)  # commands of ours set it in this process
# A form of one screen: what it does not ask is said in `overrides`, in its JSON view, or over REST.
_FOLDED = (*Preset.model_fields, "engine", "store", "shard_size", "num_workers")
_FOLDED_WITHIN = {
    "dataset": ("column", "vocab_path", "window", "unit", "max_length", "holdout", "split_seed"),
    "coupling": ("temperature", "epsilon", "support_size", "block_size", "noise"),
}


def shape(schema: dict[str, Any], handler: GetJsonSchemaHandler, settings: Sequence[str]) -> None:
    """Gives the fields of a flow's one parameter their `position`, every integer its bounds, and what fits together.

    Args:
        schema: its JSON schema; changed in place.
        handler: pydantic's, which knows what the schema refers to.
        settings: what an override can name, as GROUP.FIELD.
    """
    properties = schema["properties"]
    for name in _NOT_TAKEN:
        properties.pop(name, None)
    _leave_out_null(properties, handler)
    _bound_integers(properties, handler)
    for name in ("coupling", "redi"):
        if name in properties:
            _leave_out_defaults(properties[name], handler)
    dataset = handler.resolve_ref_schema({"$ref": properties["dataset"]["$ref"]})
    _fold(dataset, _FOLDED_WITHIN["dataset"])
    if "preset" in properties or "coupling" not in properties:
        _fold(schema, _FOLDED)
    else:  # how sources are coupled is what `pair` is about
        _fold(handler.resolve_ref_schema({"$ref": properties["coupling"]["$ref"]}), _FOLDED_WITHIN["coupling"])
        _fold(schema, tuple(name for name in (*_FOLDED, "base_model") if name != "coupling"))
    for position, name in enumerate(sorted(properties, key=_place)):
        properties[name]["position"] = position
    examples = [each for each in _EXAMPLES if each.partition("=")[0] in settings]
    properties["overrides"]["description"] += f" Examples: {', '.join(examples)}."
    properties["dataset"]["title"] = "Data"
    dataset["properties"]["name"]["title"] = "Dataset"  # `retrain` has a name, too
    dataset["allOf"] = _own_data()
    if "name" in properties:
        properties["name"]["title"] = "Registered name"
    schema["allOf"] = [_overrides(settings), *(_presets_of_datasets() if "preset" in properties else ())]


def _fold(schema: dict[str, Any], names: tuple[str, ...]) -> None:
    """Takes fields out of the form, not out of what is taken and checked: Prefect draws `properties` alone.

    Null says of them, too, that nothing was given, as in the parameters of a run that is copied.
    """
    folded = {name: schema["properties"].pop(name) for name in names if name in schema["properties"]}
    schema["patternProperties"] = {
        f"^{name}$": field if "default" in field else _unless_null(field) for name, field in folded.items()
    }


def _unless_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"not": {"const": None}}, "then": schema}


def _overrides(settings: Sequence[str]) -> dict[str, Any]:
    """A mistyped override is refused with the names that its group has; what it may be set to is the flow's to say."""
    fields: dict[str, list[str]] = {}
    for name in settings:
        group, _, field = name.partition(".")
        fields.setdefault(group, []).append(re.escape(field))
    rules: list[dict[str, Any]] = [{"pattern": rf"^ *({'|'.join(fields)})\."}]
    rules += [
        {"if": {"pattern": rf"^ *{group}\."}, "then": {"pattern": rf"^ *{group}\.({'|'.join(names)}) *="}}
        for group, names in fields.items()
    ]
    return {"properties": {"overrides": {"items": {"allOf": rules}}}}


def _presets_of_datasets() -> list[dict[str, Any]]:
    """A dataset's presets, where it has not all of them: the server refuses another one, and says which there are."""
    rules = []
    for name in dict.fromkeys(name for by_dataset in PRESETS.values() for name in by_dataset):
        known = [each for each, by_dataset in PRESETS.items() if name in by_dataset]
        if len(known) < len(PRESETS):
            rules.append({"if": _of_dataset(name), "then": {"properties": {"preset": {"enum": known}}}})
    return rules


def _of_dataset(name: str) -> dict[str, Any]:
    """Holds for the parameters of this dataset; the default one need not be named."""
    named: dict[str, Any] = {"properties": {"name": {"const": name}}}
    if name == DatasetSpec().name:
        return {"properties": {"dataset": named}}
    return {"properties": {"dataset": named | {"required": ["name"]}}, "required": ["dataset"]}


def _own_data() -> list[dict[str, Any]]:
    """What `DatasetSpec` checks, one field a rule: `oneOf` would be refused as "not valid under any of the schemas"."""

    def when(names: tuple[str, ...]) -> dict[str, Any]:
        return {"properties": {"name": {"enum": list(names)}}, "required": ["name"]}

    def given(name: str, kind: str) -> dict[str, Any]:
        return {"properties": {name: {"type": kind}}, "required": [name]}

    none = {"const": None}
    tokens_without_words = {"allOf": [when(("tokens",)), {"not": given("vocab_path", "string")}]}
    return [
        {"if": when(OWN_DATA), "then": given("path", "string"), "else": {"properties": {"path": none}}},
        {
            "if": tokens_without_words,
            "then": given("vocab_size", "number"),
            "else": {"properties": {"vocab_size": none}},
        },
        {"if": when(("tokens",)), "else": {"properties": {"vocab_path": none}}},
        {"if": when(("text",)), "else": {"properties": {"window": none, "unit": none}}},
    ]


def _place(name: str) -> tuple[int, int]:
    for part, names in ((0, _BEGINS), (2, _GROUPS), (3, _ENDS)):
        if name in names:
            return part, names.index(name)
    return 1, 0


def _leave_out_null(node: Any, handler: GetJsonSchemaHandler) -> None:
    """Makes of "a T or null" a T that need not be given, in a JSON schema.

    Prefect's form shows the other as a choice between a T and `Property is type "None"`, and its server refuses a bad T
    as "not valid under any of the given schemas", without a word of what is wrong with it. The server lets null pass by
    itself, by making that choice again: so the type is said twice, and the second refusal is the one that it repeats.
    """
    for field in node.values() if isinstance(node, dict) else node:
        if not isinstance(field, dict | list):
            continue
        if isinstance(field, dict) and {"type": "null"} in (choices := field.get("anyOf", [])):
            kept = [each for each in choices if each != {"type": "null"}]
            del field["anyOf"]
            field |= kept[0] if len(kept) == 1 else {"anyOf": kept}
            if field.get("default", ...) is None:
                del field["default"]
            if "type" in field:
                field |= _unless_null({"type": field["type"]})
        if isinstance(field, dict) and "$ref" in field:
            _leave_out_null(handler.resolve_ref_schema({"$ref": field["$ref"]})["properties"], handler)
        else:
            _leave_out_null(field, handler)


def _leave_out_defaults(field: dict[str, Any], handler: GetJsonSchemaHandler) -> None:
    """Makes every field of an optional group empty until somebody fills it, in a JSON schema.

    Prefect's form sends the defaults that it shows: both of two groups of which one can be given, without a click.
    """
    field.pop("default", None)
    if "$ref" in field:
        for each in handler.resolve_ref_schema({"$ref": field["$ref"]})["properties"].values():
            _leave_out_defaults(each, handler)


def _bound_integers(node: Any, handler: GetJsonSchemaHandler) -> None:
    """Gives integers the bounds of 64 bits in a JSON schema, where it has none.

    Prefect's server keeps longer ones, but can answer no question about a run that has one, not even its worker's.
    """
    for field in node.values() if isinstance(node, dict) else node:
        if not isinstance(field, dict | list):
            continue
        if isinstance(field, dict) and "$ref" in field:
            _bound_integers(handler.resolve_ref_schema({"$ref": field["$ref"]})["properties"], handler)
            continue
        if isinstance(field, dict) and field.get("type") == "integer":
            if "exclusiveMaximum" not in field:
                field.setdefault("maximum", 2**63 - 1)
            if "exclusiveMinimum" not in field:
                field.setdefault("minimum", -(2**63))
        _bound_integers(field, handler)
