"""What the bodies of requests have in common: a limit, fields that are known, and `null` for a default."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import PydanticCustomError, PydanticUseDefault
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function, nullable_schema

from sluice.gateway.core.sessions import ID_IN_WORDS, SESSION_ID
from sluice.policy.errors import BodyTooLarge

T = TypeVar("T")


# Patterns of text, and what they say in words.
ID, VERSION, LABEL = f"^{SESSION_ID}$", "^[0-9]{1,19}$", "^.+$"
IN_WORDS = {ID: ID_IN_WORDS, VERSION: "a whole number, such as 1", LABEL: "text of one character or more"}


def body_too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"A request body may have {limit} bytes; a larger one came. Send it in parts, or raise the gateway's "
        "body_bytes.",
        limit=limit,
    )


class Body(BaseModel):
    """A request's fields; others are refused by name, with those that there are."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        unknown = sorted(given.keys() - cls.model_fields.keys()) if isinstance(given, dict) else ()
        if unknown:
            listed = f"{', '.join(repr(name[:80]) for name in unknown)}; it takes {', '.join(cls.model_fields)}"
            raise PydanticCustomError("unknown_fields", "unknown fields {listed}", {"listed": listed})
        return given


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
