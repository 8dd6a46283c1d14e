"""Plain forms of values whose types come from elsewhere: they are stored as their base types.

Frameworks and libraries fill sessions with their own subclasses of dict, str, int, tuple and datetime
(`Markup`, enums, OAuth tokens, named tuples, `defaultdict`, the datetimes of freezegun and pendulum). These
are stored as their plain base type, read without calling their own methods, and come back as that. Other
values are stored as the frameworks' own sessions store them: objects with named fields (dataclasses, Structs,
attrs and pydantic objects) as dicts, members of an enum as their values, and objects with `__html__`, such as
a lazily translated text, as a str.

A moment or a number that does not equal its base value is refused, so that nothing is silently lost.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from greenroom.fields import Absent, Unchanged

Kind = TypeVar("Kind")

_SIGNS = (Absent, Unchanged)  # arguments of operations, and no data


def _real(kind: type[Kind]) -> type[Kind]:
    """Return the standard library's own class, even if a test replaced it before this module was imported."""
    return next(each for each in kind.__mro__ if each.__module__ == "datetime")


class Standard(NamedTuple):
    """The standard library's own classes."""

    date: type[date]
    datetime: type[datetime]
    time: type[time]
    timedelta: type[timedelta]


# Not as names of the module: those freezegun replaces, wherever a module has them, while time is frozen.
STANDARD = Standard(_real(date), _real(datetime), _real(time), _real(timedelta))


class NoBaseError(Exception):
    """This value has no base type that can be stored. The text says why, unless the type makes it clear."""


def plain_form(value: Any) -> Any:
    """Return the plain form of a value whose type is not `STORABLE`; its items may again be such values.

    The returned value's own type is storable. Raises NoBaseError if there is no plain form.
    """
    for base in type(value).__mro__:
        convert = _FORMS.get(base)
        if convert is not None:
            return convert(value)
    if isinstance(value, Enum):
        inner = value.value
        if isinstance(inner, Enum) or isinstance(value, _SIGNS):
            raise NoBaseError
        return inner if type(inner) in STORABLE else plain_form(inner)
    try:
        named, text = fields_of(value), _html_of(value)
    except Exception as error:  # noqa: BLE001  methods of a foreign type may raise anything
        raise NoBaseError(f"reading it raised {type(error).__name__}") from None
    if named is not None:
        return named
    if isinstance(text, str):
        return str.__str__(text)
    raise NoBaseError


def _html_of(value: Any) -> object:
    html = getattr(type(value), "__html__", None)
    return html(value) if callable(html) and not isinstance(value, type) else None


def fields_of(value: Any) -> dict[str, Any] | list[Any] | None:
    """Return the fields of a Struct, dataclass, attrs or pydantic object by name; None for other values.

    Return all fields except those that are UNSET, even if the type omits defaults: an absent field would
    leave the stored value in place. A Struct that is `array_like` is a list.
    """
    named = _named(value)
    if type(named) is dict:
        return {name: item for name, item in named.items() if item is not msgspec.UNSET}
    return named


def unset_fields_of(value: Any) -> list[str]:
    """Return the names of the fields that are UNSET, which are not stored."""
    named = _named(value)
    return [name for name, item in named.items() if item is msgspec.UNSET] if type(named) is dict else []


def _named(value: Any) -> dict[str, Any] | list[Any] | None:
    kind = type(value)
    if isinstance(value, msgspec.Struct):
        return _named_of_struct(value)
    if hasattr(kind, "__dataclass_fields__"):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if hasattr(kind, "__attrs_attrs__"):
        return {each.name: getattr(value, each.name) for each in kind.__attrs_attrs__}
    dump = getattr(kind, "model_dump", None)
    found = dump(value) if callable(dump) else None
    return found if type(found) is dict else None


def _named_of_struct(value: msgspec.Struct) -> dict[str, Any] | list[Any]:
    config = value.__struct_config__
    values = [getattr(value, name) for name in value.__struct_fields__]
    if config.array_like:
        return values if config.tag is None else [config.tag, *values]
    named = dict(zip(value.__struct_encode_fields__, values, strict=True))
    if config.tag is not None and config.tag_field is not None:
        named = {config.tag_field: config.tag, **named}
    return named


def plain_key(key: object) -> object:
    """Return the key of a dict as a plain str or int if it is of a subclass, else as it is."""
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return int.__int__(key)
    return key


def _equal(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def converted(value: Any) -> Any:
        try:
            plain = convert(value)
            same = bool(plain == value)
        except Exception:  # noqa: BLE001  methods of a foreign type may raise anything
            same = False
        if not same:
            raise NoBaseError(f"it does not equal the {convert.__name__.strip('_')} that it is based on")
        return plain

    return converted


def _datetime(value: Any) -> datetime:
    return STANDARD.datetime.combine(STANDARD.datetime.date(value), STANDARD.datetime.timetz(value))


def _date(value: Any) -> date:
    return STANDARD.date.fromordinal(STANDARD.date.toordinal(value))


def _time(value: Any) -> time:
    return STANDARD.time(
        value.hour, value.minute, value.second, value.microsecond, tzinfo=value.tzinfo, fold=value.fold
    )


def _timedelta(value: Any) -> timedelta:
    return STANDARD.timedelta.__pos__(value)


def _uuid(value: Any) -> UUID:
    return UUID(int=value.int)


_FORMS: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: bytes.__bytes__,
    # The order of its keys is not the one of the dict below it.
    OrderedDict: lambda value: dict(OrderedDict.items(value)),
    dict: lambda value: dict(dict.items(value)),
    list: list.copy,
    tuple: lambda value: tuple(tuple.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    STANDARD.datetime: _equal(_datetime),
    STANDARD.date: _equal(_date),
    STANDARD.time: _equal(_time),
    STANDARD.timedelta: _equal(_timedelta),
    UUID: _equal(_uuid),
    Decimal: Decimal,
}

STORABLE = frozenset({type(None), bool, *_FORMS} - {OrderedDict})
"""The types whose values are stored as they are."""
