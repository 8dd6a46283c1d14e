"""Session data as values of other types: what frameworks put in its place, and what handlers want to see."""

import dataclasses
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from greenroom.errors import UsageError
from greenroom.web.errors import SessionDataError

Shape = TypeVar("Shape")

_STORED_AS_THEY_ARE = (bytes, date, datetime, time, timedelta, UUID, Decimal)


def means_delete(value: object) -> bool:
    """Tell whether this, put in the place of a session, asks to delete it: None or Litestar's `Empty`."""
    if value is None:
        return True
    if isinstance(value, Enum):
        return value.name == "EMPTY"
    return isinstance(value, type) and value.__name__ == "Empty"


def plain_dict(value: object) -> dict[Any, Any]:
    """Return the session data in a mapping, Struct, dataclass, attrs or pydantic object, as a new dict.

    Raises UsageError if it is none of them.
    """
    if isinstance(value, Mapping):
        return dict(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        value = dump()
    elif isinstance(value, msgspec.Struct) or dataclasses.is_dataclass(value) or _is_attrs(value):
        value = msgspec.to_builtins(value, builtin_types=_STORED_AS_THEY_ARE)
    if type(value) is not dict:
        raise UsageError(
            f"a {type(value).__name__} stands where the session was; put a dict there, or None to delete it"
        )
    return value


def converted(data: dict[Any, Any], shape: type[Shape]) -> Shape:
    """Return the data as a value of this type. Raises SessionDataError naming what does not fit."""
    try:
        return msgspec.convert(data, shape)
    except msgspec.ValidationError as error:
        name = getattr(shape, "__name__", repr(shape))
        message = f"the session's data does not fit {name}: {error}; give new fields a default"
    raise SessionDataError(message)


def _is_attrs(value: object) -> bool:
    return hasattr(type(value), "__attrs_attrs__")
