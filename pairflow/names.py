"""Names of a registry as a type: checked when they are read, a menu in a form."""

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


class NameOf:
    """Marks a `str` as one of the names that a registry has when it is asked: `Annotated[str, NameOf(...)]`.

    A Literal would be the same list written a second time, and closed before a plug-in or a test can add to it.

    Args:
        names: those there are, in the order in which people should see them.
    """

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names

    @property
    def names(self) -> tuple[str, ...]:
        """Those there are now."""
        return tuple(self._names())

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": [*self.names], "type": "string"}

    def _check(self, name: str | None) -> str | None:
        # None comes this far only where the type has it: a name that may be left out.
        if name is not None and name not in self.names:
            raise ValueError(f"expected one of {', '.join(self.names)}")
        return name
