"""What the bodies of requests have in common: unknown fields are refused, and `null` may stand for a default."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import PydanticUseDefault
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function, nullable_schema

T = TypeVar("T")


class Body(BaseModel):
    """A request's fields; others are refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _OrNull:
    """Marks a field with a default, for which many clients write `null` where nothing is set."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = handler(source)
        return no_info_before_validator_function(_given, inner, json_schema_input_schema=nullable_schema(inner))


def _given(value: Any) -> Any:
    if value is None:
        raise PydanticUseDefault
    return value


OrNull = Annotated[T, _OrNull()]
