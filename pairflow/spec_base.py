"""The base of all specs: frozen, strict, read with clear errors, and known by a fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pairflow.errors import SpecError

S = TypeVar("S", bound="Spec")
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Spec(BaseModel):
    """Base of all specs: immutable, and an unknown field is an error rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, data: Any) -> Any:
        """Python takes True for 1, and JSON does not."""
        for name, value in data.items() if isinstance(data, Mapping) else ():
            values = value if isinstance(value, list | tuple) else (value,)
            if name in cls.model_fields and any(isinstance(each, bool) for each in values):
                kinds = _kinds(cls.model_fields[name].annotation)
                if kinds & {int, float} and bool not in kinds:
                    raise ValueError(f"{name}: got {value!r}, expected a number")
        return data

    @model_validator(mode="after")
    def _integers_fit_64_bits(self) -> Self:
        """JSON has integers of any length; arrays, databases and clocks have not."""
        for name, value in self:
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(each, int) and abs(each) >= 2**63 for each in numbers):
                raise ValueError(f"{name}: an integer below 2^63 is expected, got one of more digits")
        return self


def _kinds(annotation: Any) -> set[Any]:
    """The types that a field's annotation is made of."""
    return {annotation}.union(*map(_kinds, get_args(annotation)))


def parse(spec_type: type[S], data: Any) -> S:
    """Validates `data` (a mapping or a spec) into `spec_type`.

    Raises:
        SpecError: one line per field that does not fit, with what was given.
    """
    try:
        return spec_type.model_validate(data)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, item['loc'])) or spec_type.__name__}: {item['msg']}"
            + (f" (got {item['input']!r})" if item["loc"] else "")
            for item in error.errors()
        ]
        raise SpecError("; ".join(lines)) from None


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def in_full(spec: Spec) -> dict[str, Any]:
    """A spec as JSON values, for people: with the defaults that its JSON leaves out for its fingerprint's sake."""
    dumped = spec.model_dump(mode="json")
    return {
        name: in_full(value) if isinstance(value, Spec) else dumped.get(name, value)
        for name, value in spec
        if name in dumped or value is not None
    }


def fingerprint(spec: Spec, **inputs: str) -> str:
    """SHA-256 (64 hex digits) of a spec and of what it was applied to.

    `inputs` are digests and versions, such as `dataset=train.digest, engine="cpu/1"`. The same spec on the same
    inputs always has the same fingerprint; a changed result needs a changed fingerprint.
    """
    document = {"spec": {type(spec).__name__: spec.model_dump(mode="json")}, "inputs": inputs}
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()
