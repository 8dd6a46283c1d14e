"""Values of the types of frameworks and libraries are stored as what they are based on, with nothing lost."""

import collections
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from typing import Any, NamedTuple, NewType
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from authlib.oauth2.rfc6749 import OAuth2Token
from authlib.oidc.core import UserInfo
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from greenroom import ABSENT, UNCHANGED, MemoryStore, SessionData, UsageError, new_session_id
from greenroom.codec import decode_data, decode_value, encode_data, encode_value
from greenroom.testing import library_named


class Colour(StrEnum):
    RED = "red"


class OldColour(str, Enum):  # noqa: UP042  as before Python 3.11: its str() is another than its value
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Access(IntFlag):
    READ = 1
    WRITE = 2


class Plain(Enum):
    LIST = [1, 2]  # noqa: RUF012  a member
    NONE = None
    WORD = Colour.RED


class Point(NamedTuple):
    x: int
    y: Any


class Shouting(str):
    """A str whose own methods lie about it."""

    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"

    def __repr__(self) -> str:
        return "LOUD"


class Absolute(int):
    def __int__(self) -> int:
        return 7


class Listing(list[Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("not to be asked")


class Odd(dict[Any, Any]):
    """Like werkzeug's MultiDict: its own items are not those of the dict."""

    def items(self) -> Any:
        raise RuntimeError("not to be asked")

    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("not to be asked")


class Frozen(frozenset[Any]):
    pass


class Name(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class DatabaseId(UUID):
    """As drivers of databases have them."""


class Whole(int):
    pass


class Real(float):
    pass


class Octets(bytes):
    pass


class Price(Decimal):
    pass


class Moment(datetime):
    pass


class Day(date):
    pass


class Hour(time):
    pass


class Span(timedelta):
    pass


@dataclasses.dataclass
class Address:
    street: str
    zip: Colour = Colour.RED


@attrs.define
class Car:
    doors: int
    _key: str = "k"


class Cart(msgspec.Struct, omit_defaults=True, rename="camel"):
    item_count: int = 0
    note: str | msgspec.UnsetType = msgspec.UNSET


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: int


class Tagged(msgspec.Struct, tag="t", tag_field="kind"):
    n: int


class Model(pydantic.BaseModel):
    n: int
    when: datetime


class LazyText:
    """A text that is translated when it is shown."""

    def __html__(self) -> str:
        return "hello"


OTHERS: dict[type, Callable[[Any], Any]] = {
    str: Shouting,
    int: Whole,
    float: Real,
    bytes: Octets,
    Decimal: Price,
    UUID: lambda value: DatabaseId(int=value.int),
    datetime: lambda value: Moment.fromisoformat(value.isoformat()).replace(fold=value.fold),
    date: lambda value: Day.fromisoformat(value.isoformat()),
    timedelta: lambda value: Span(microseconds=value // timedelta(microseconds=1)),
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=4)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.dates()
    | st.timedeltas()
)
NESTED = st.recursive(
    SCALARS | st.frozensets(TEXT | st.integers(), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.integers(-9, 9), inner, max_size=3),
    max_leaves=8,
)

UserId = NewType("UserId", str)
MOMENT = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=UTC)
ORDERED = collections.OrderedDict(a=1, b=2)
ORDERED.move_to_end("a")


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Colour.RED, "red"),
        (OldColour.RED, "red"),
        (Shouting("quiet"), "quiet"),
        (Markup("<b>"), "<b>"),
        (UserId("u"), "u"),
        (Level.HIGH, 3),
        (Access.READ | Access.WRITE, 3),
        (Absolute(5), 5),
        (Point(1, Level.HIGH), [1, 3]),
        ({Point(1, Point(2, 3))}, {(1, (2, 3))}),
        (Listing([1, Colour.RED]), [1, "red"]),
        (Odd(a=Odd(b=1)), {"a": {"b": 1}}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (ORDERED, {"b": 2, "a": 1}),
        (Frozen({1, Frozen({Colour.RED})}), frozenset({1, frozenset({"red"})})),
        ({Colour.RED, Level.HIGH, Markup("b")}, {"red", 3, "b"}),
        (DatabaseId(int=5), UUID(int=5)),
        (Price("1.50"), Decimal("1.50")),
        (Price("NaN"), Decimal("NaN")),
        (Moment(2026, 10, 25, 2, 30, fold=1, tzinfo=UTC), MOMENT),
        (Day(2026, 10, 25), date(2026, 10, 25)),
        (Hour(1, 2, 3, 4, tzinfo=UTC, fold=1), time(1, 2, 3, 4, tzinfo=UTC, fold=1)),
        (Span(days=-1, seconds=5), timedelta(days=-1, seconds=5)),
        (Plain.LIST, [1, 2]),
        (Plain.NONE, None),
        (LazyText(), "hello"),
        (Address("High Street"), {"street": "High Street", "zip": "red"}),
        (Car(doors=3), {"doors": 3, "_key": "k"}),
        (Cart(), {"itemCount": 0}),
        (Cart(item_count=1, note="n"), {"itemCount": 1, "note": "n"}),
        (Pair(1, 2), [1, 2]),
        (Tagged(1), {"kind": "t", "n": 1}),
        (Model(n=1, when=MOMENT), {"n": 1, "when": MOMENT}),
        ({Colour.RED: 1, Level.HIGH: 2, Markup("<i>"): 3}, {"red": 1, 3: 2, "<i>": 3}),
        (OAuth2Token({"access_token": "t", "expires_at": 1}), {"access_token": "t", "expires_at": 1}),
        (UserInfo(sub="alice", name="Alice"), {"sub": "alice", "name": "Alice"}),
        ({"userinfo": UserInfo(sub="alice")}, {"userinfo": {"sub": "alice"}}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_value_comes_back_as(value: Any, stored: Any) -> None:
    found = decode_data(encode_data({"x": [value]}))["x"][0]
    # A set's repr depends on the seed of hashes; NaN equals nothing.
    assert found == stored if stored == stored else repr(found) == repr(stored)
    assert not isinstance(stored, dict) or list(found) == list(stored)
    assert types_in(found) == types_in(stored)
    assert encode_value(value) == encode_value(stored), "so that it does not count as changed"


def types_in(value: Any) -> Any:
    if type(value) is dict:
        return dict, [(type(key), types_in(item)) for key, item in value.items()]
    if type(value) in (list, tuple):
        return type(value), [types_in(item) for item in value]
    return type(value)


def test_all_data_may_be_of_a_kind_of_dict() -> None:
    assert decode_data(encode_data(OAuth2Token({"access_token": "t"}))) == {"access_token": "t"}


class NotADay(datetime):
    """Like the NaT of pandas: a datetime that equals none."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = datetime.__hash__


class Nanos(datetime):
    """Like the Timestamp of pandas: more than a datetime holds."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("s3cret")

    __hash__ = datetime.__hash__


class Nested(Enum):
    OUTER = Colour.RED


class HashableDict(dict[str, int]):
    def __hash__(self) -> int:  # type: ignore[override]
        return 1


class Angry:
    def __html__(self) -> str:
        raise RuntimeError("s3cret")


@dataclasses.dataclass
class Ghost:
    """Not initialised, as deserialisers leave behind what fails."""

    name: str


@dataclasses.dataclass(frozen=True)
class FrozenAddress:
    street: str


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (NotADay(2026, 1, 1), "does not equal the datetime"),
        (Nanos(2026, 1, 1), "does not equal the datetime"),
        ({HashableDict(a=1)}, "as a dict, which none can be"),
        ({FrozenAddress("s3cret")}, "as a dict, which none can be"),
        ({Name("s3cret"): 1, Name("s3cret"): 2}, "two keys of this dict"),
        (Odd({UUID(int=1): "s3cret"}), "a key of this dict is a UUID"),
        (Odd({Plain.NONE: "s3cret"}), "a key of this dict is a Plain"),
        (Odd({True: "s3cret"}), "a key of this dict is a bool"),
        (Shouting("\ud800"), "lone surrogate"),
        ({Shouting("\ud800"): 1}, "lone surrogate"),
        (Absolute(1 << 64 << 32768), "a number takes at most"),
        (Address(street=object()), "a object is not among"),  # type: ignore[arg-type]
        (Address, "a type is not among"),
        (ABSENT, "is not among"),
        (UNCHANGED, "is not among"),
        (msgspec.UNSET, "is not among"),
        (Angry(), "reading it raised RuntimeError"),
        (Ghost.__new__(Ghost), "reading it raised AttributeError"),
        (Cart, "is not among"),
        (LazyText, "a type is not among"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_be_lost_or_collide_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        encode_data({"cart": [value]})
    assert str(caught.value).startswith("data['cart'][0]")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_kind_of_dict_that_holds_itself_is_refused() -> None:
    held = Odd()
    held["self"] = [held]
    with pytest.raises(UsageError, match="contains itself"):
        encode_data({"a": held})


@given(st.data())
def test_random_data_of_subclasses_is_stored_like_the_plain_one(data: st.DataObject) -> None:
    """At any depth, in any mixture: what is stored is what the plain values would be."""

    def disguised(value: Any) -> Any:
        kind = type(value)
        if kind is dict:
            inner = {disguised(key): disguised(item) for key, item in value.items()}
            return data.draw(st.sampled_from([dict, Odd, collections.OrderedDict]))(inner)
        if kind is list:
            return data.draw(st.sampled_from([list, Listing, tuple]))([disguised(item) for item in value])
        if kind is frozenset:
            return data.draw(st.sampled_from([frozenset, Frozen]))({disguised(item) for item in value})
        other = OTHERS.get(kind)
        return value if other is None or data.draw(st.booleans()) else other(value)

    plain = data.draw(st.dictionaries(TEXT | st.integers(-9, 9), NESTED, max_size=4))
    hidden = disguised(plain)
    assert encode_data(dict(dict.items(hidden))) == encode_data(plain)
    assert types_in(decode_data(encode_data(hidden))) == types_in(decode_data(encode_data(plain)))


# --- freezegun -------------------------------------------------------------------------------------------


def test_frozen_datetimes_are_datetimes() -> None:
    with freeze_time("2026-03-01 12:00:00"):
        data = {"aware": datetime.now(UTC), "naive": datetime.now(), "day": date.today()}  # noqa: DTZ005, DTZ011
        assert type(data["aware"]) is not type(MOMENT)
        encoded = encode_data(data)
        within = decode_data(encoded)
        assert within == data
        assert encode_data(within) == encoded
    found = decode_data(encoded)
    assert found == {
        "aware": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "naive": datetime(2026, 3, 1, 12),  # noqa: DTZ001  as it was
        "day": date(2026, 3, 1),
    }
    assert [type(value) for value in found.values()] == [datetime, datetime, date]
    assert encode_value(decode_value(encode_value(MOMENT))) == encode_value(MOMENT)


def test_a_session_ends_when_frozen_time_passes() -> None:
    async def story() -> None:
        with freeze_time("2026-03-01 12:00:00", real_asyncio=True) as frozen:
            store = MemoryStore()
            session = SessionData(
                session_id=new_session_id(),
                expires=datetime.now(UTC) + timedelta(minutes=5),
                data={"seen": datetime.now(UTC)},
            )
            await store.create(session)
            frozen.tick(timedelta(minutes=4))
            found = await store.get(session.session_id)
            assert found is not None
            assert found.data == session.data
            frozen.tick(timedelta(minutes=1))
            assert await store.get(session.session_id) is None

    library_named("asyncio").run(story, 30)


def test_what_is_imported_while_time_is_frozen_works_afterwards() -> None:
    code = """
from datetime import UTC, date, datetime
from freezegun import freeze_time
with freeze_time("2026-03-01"):
    from greenroom.codec import decode_data, encode_data
    encoded = encode_data({"now": datetime.now(UTC), "day": date.today()})
for _ in range(2):
    data = decode_data(encoded)
    assert data == {"now": datetime(2026, 3, 1, tzinfo=UTC), "day": date(2026, 3, 1)}, data
    assert [type(each) for each in data.values()] == [datetime, date], data
    encoded = encode_data(data)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
