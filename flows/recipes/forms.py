"""How parameters look as a form of Prefect's, and what its server refuses before a run begins."""

from typing import Any

from pydantic import GetJsonSchemaHandler

from pairflow.presets import Preset

# The form: what people choose first, then the flow's own numbers, then what the preset knows, and operations last.
_BEGINS = ("dataset", "method", "methods", "preset")
_GROUPS = (*Preset.model_fields, "base_model", "pairs", "extend")
_ENDS = ("format", "shard_size", "num_workers", "engine", "store")
_NOT_IN_FORM = ("expected_fingerprint",)  # commands of ours set it in this process


def shape(properties: dict[str, Any], handler: GetJsonSchemaHandler) -> None:
    """Gives the fields of a flow's one parameter their `position`, and every integer its bounds.

    Args:
        properties: of its JSON schema; changed in place.
        handler: pydantic's, which knows what the schema refers to.
    """
    for name in _NOT_IN_FORM:
        properties.pop(name, None)
    _leave_out_null(properties, handler)
    _bound_integers(properties, handler)
    for position, name in enumerate(sorted(properties, key=_place)):
        properties[name]["position"] = position


def _place(name: str) -> tuple[int, int]:
    for part, names in ((0, _BEGINS), (2, _GROUPS), (3, _ENDS)):
        if name in names:
            return part, names.index(name)
    return 1, 0


def _leave_out_null(node: Any, handler: GetJsonSchemaHandler) -> None:
    """Makes of "a T or null" a T that need not be given, in a JSON schema.

    Prefect's form shows the other as a choice between a T and `Property is type "None"`, and its server refuses a bad T
    as "not valid under any of the given schemas", without a word of what is wrong with it.
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
        if isinstance(field, dict) and "$ref" in field:
            _leave_out_null(handler.resolve_ref_schema({"$ref": field["$ref"]})["properties"], handler)
        else:
            _leave_out_null(field, handler)


def _bound_integers(node: Any, handler: GetJsonSchemaHandler) -> None:
    """Gives integers the bounds of 64 bits in a JSON schema, where it has none.

    Prefect's server keeps longer ones, but can answer no question about a run that has one, not even its worker's.
    """
    for field in node.values() if isinstance(node, dict) else node:
        if not isinstance(field, dict | list):
            continue
        if isinstance(field, dict) and "$ref" in field:
            _bound_integers(handler.resolve_ref_schema({"$ref": field["$ref"]})["properties"], handler)
        elif isinstance(field, dict) and field.get("type") == "integer":
            if "exclusiveMaximum" not in field:
                field.setdefault("maximum", 2**63 - 1)
            if "exclusiveMinimum" not in field:
                field.setdefault("minimum", -(2**63))
        else:
            _bound_integers(field, handler)
