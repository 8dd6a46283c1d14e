"""Session data as values of other types, for frameworks that replace it and handlers that read it typed."""

from collections.abc import Mapping
from enum import Enum
from inspect import signature
from typing import Any, TypeVar

import msgspec

from greenroom.bases import STORABLE, fields_of
from greenroom.errors import UsageError
from greenroom.scan.bounds import DEPTH_MAX
from greenroom.web.errors import SessionDataError

Shape = TypeVar("Shape")

# How msgspec's texts begin: those that speak of types alone, and those that quote what they were given.
_OF_TYPES = ("Expected `", "Object missing required field `")
_QUOTING = ("Invalid enum value", "Invalid value", "Object contains unknown field")

_SCALARS = STORABLE - {dict, list, tuple, set, frozenset}


def means_delete(value: object) -> bool:
    """Return whether this value, put in place of a session, deletes it: None or Litestar's `Empty`."""
    if value is None:
        return True
    if isinstance(value, Enum):
        return value.name == "EMPTY"
    return isinstance(value, type) and value.__name__ == "Empty"


def plain_dict(value: object) -> dict[Any, Any]:
    """Return the session data in a mapping, Struct, dataclass, attrs or pydantic object, as a new dict.

    It has all fields of an object except those that are UNSET. Raises UsageError for other values.
    """
    if isinstance(value, Mapping):
        return dict(value)
    named = fields_of(value)
    if type(named) is not dict:
        raise UsageError(
            f"{type(value).__name__} stands where session data is expected: a dict, or an object with fields"
        )
    return {name: _with_plain_keys(item, 1) for name, item in named.items()}


def converted(data: dict[Any, Any], shape: type[Shape]) -> Shape:
    """Return the data as a value of this type. Raises SessionDataError naming the part that does not fit."""
    validate = getattr(shape, "model_validate", None)
    try:
        return msgspec.convert(data, shape) if validate is None else _validated(data, validate)
    except msgspec.ValidationError as error:
        reason = _without_values(str(error))
    except ValueError as error:
        if validate is None:
            raise
        reason = _reasons(error)
    name = getattr(shape, "__name__", repr(shape))
    raise SessionDataError(f"the session's data does not fit {name}: {reason}; give new fields a default")


def _without_values(reason: str) -> str:
    """Return msgspec's complaint and its place, without the values and keys that it may quote."""
    if reason.startswith(_OF_TYPES):
        return reason
    _, _, place = reason.rpartition(" - at `")
    kind = next((each for each in _QUOTING if reason.startswith(each)), "a check of its own refuses it")
    return f"{kind} - at `{place}" if place.startswith("$") else kind


def _validated(data: dict[Any, Any], validate: Any) -> Any:
    # Under the names of the fields, as `put` stores them, where pydantic can tell them from aliases.
    by_name = {"by_name": True} if "by_name" in signature(validate).parameters else {}
    return validate(data, **by_name)


def _reasons(error: ValueError) -> str:
    """Return pydantic's complaints and their places, without the values that its own text quotes."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return type(error).__name__
    found = errors(include_url=False, include_context=False, include_input=False)
    return ", ".join(f"{each['type']} at {'.'.join(map(str, each['loc']))}" for each in found)


def _with_plain_keys(value: Any, depth: int) -> Any:
    """Return a value with keys that are neither str nor int as text, as msgspec writes them.

    A field of the type dict[UUID, int] is stored so, and `as_type` reads it.
    """
    if type(value) in _SCALARS or depth > DEPTH_MAX:
        return value
    if isinstance(value, set | frozenset) and all(fields_of(item) is None for item in value):
        return value  # objects in it would be dicts, which no set can hold
    if isinstance(value, list | tuple | set | frozenset):
        return [_with_plain_keys(item, depth + 1) for item in value]
    named = value if isinstance(value, dict) else fields_of(value)
    if named is None:
        return value
    if isinstance(named, list):
        return _with_plain_keys(named, depth)
    plain = {_plain_key(key): _with_plain_keys(item, depth + 1) for key, item in named.items()}
    if len(plain) < len(named):
        raise UsageError("two keys of one dict would be one: they have the same text")
    return plain


def _plain_key(key: object) -> object:
    if isinstance(key, str | int):
        return key
    try:
        text = msgspec.to_builtins(key)
    except TypeError:
        return key
    return text if isinstance(text, str | int) and not isinstance(text, bool) else key
