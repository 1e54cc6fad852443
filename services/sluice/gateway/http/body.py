"""What the bodies of requests have in common: a limit, fields that are known, `null` for a default, and sentences."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import PydanticCustomError, PydanticUseDefault
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function, nullable_schema

from sluice.gateway.core.sessions import ID_IN_WORDS, SESSION_ID
from sluice.policy.errors import BodyTooLarge
from sluice.wire.shown import as_json

T = TypeVar("T")


# Patterns of text, and what they say in words.
ID, VERSION, LABEL = f"^{SESSION_ID}$", "^[0-9]{1,19}$", "^.+$"
_IN_WORDS = {ID: ID_IN_WORDS, VERSION: "a whole number, such as 1", LABEL: "text of one character or more"}
# Pydantic's type of an error → what the field takes.
_TAKES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "{words}",
    "string_too_long": "text of up to {max_length} characters",
    "greater_than_equal": "a number from {ge}",
    "less_than_equal": "a number up to {le}",
}


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


def what_is_wrong(error: Mapping[str, Any]) -> str:
    """A sentence, without its end, about one field; `error` is pydantic's."""
    kind, field = error["type"], ".".join(map(str, error["loc"][1:])) or error["loc"][0]
    if kind == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {field}"
    if kind == "missing":
        return f"{field} is missing"
    if kind not in _TAKES:
        return f"{field}: {error['msg']}"
    quotes = ": put it in quotes" if kind == "string_type" and isinstance(error["input"], int | float) else ""
    about = error.get("ctx", {})
    takes = _TAKES[kind].format(**about, words=_IN_WORDS.get(about.get("pattern", "")))
    return f"{field} takes {takes}; {as_json(error['input'])} came{quotes}"
