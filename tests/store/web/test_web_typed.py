"""Typed data: what `put` stores is what `as_type` reads, with nothing of before left standing."""

import dataclasses
import re
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, Literal
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from greenroom import MemoryStore, UsageError
from greenroom.codec import decode_data, encode_data
from greenroom.web import RequestSession, Session, SessionDataError

SECRET = "a secret for tests only, long enough"


class Size(Enum):
    LARGE = "l"


class Theme(StrEnum):
    DARK = "dark"


class Settings(msgspec.Struct, omit_defaults=True):
    theme: str = "light"
    note: str | msgspec.UnsetType = msgspec.UNSET
    sizes: dict[str, int] = {}


class Line(msgspec.Struct):
    counts: dict[UUID, int]


class Tag(msgspec.Struct, frozen=True):
    name: str


class Stock(msgspec.Struct):
    tags: set[Tag]
    words: set[Theme]
    by_id: dict[UUID, int]
    by_day: dict[date, Decimal]
    by_size: dict[Size, list[Line]]
    by_number: dict[int, str]
    by_theme: dict[Theme, UUID]


@dataclasses.dataclass
class Profile:
    name: str
    nick: str | msgspec.UnsetType = msgspec.UNSET
    seen: dict[UUID, datetime] = dataclasses.field(default_factory=dict)


@attrs.define
class Car:
    doors: int = 4
    owner: UUID | None = None


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)

    count: int = pydantic.Field(default=0, alias="itemCount")
    by_id: dict[UUID, int] = {}
    theme: Theme = Theme.DARK


def new_session() -> RequestSession:
    visit = Session(secret=SECRET, store=MemoryStore(), dev=True).visit([])
    return visit.session


def stored(session: RequestSession) -> RequestSession:
    """Return a session of the next request, with what this one would store."""
    other = new_session()
    other.update(decode_data(encode_data(session.copy())))
    return other


def test_a_field_that_is_back_at_its_default_is_stored() -> None:
    session = new_session()
    session["other"] = 1
    session.greenroom.put(Settings(theme="dark", note="hello", sizes={"a": 1}))
    session = stored(session)
    settings = session.greenroom.as_type(Settings)
    assert settings == Settings(theme="dark", note="hello", sizes={"a": 1})
    settings.theme, settings.note, settings.sizes = "light", msgspec.UNSET, {}
    session.greenroom.put(settings)
    assert session.copy() == {"other": 1, "theme": "light", "sizes": {}}
    assert stored(session).greenroom.as_type(Settings) == Settings()


def test_unset_fields_of_dataclasses_are_removed() -> None:
    session = new_session()
    session.greenroom.put(Profile("Alice", "al"))
    session.greenroom.put(Profile("Alice"))
    assert session.copy() == {"name": "Alice", "seen": {}}


@pytest.mark.parametrize(
    "value",
    [
        Stock(
            {Tag("new"), Tag("old")},
            {Theme.DARK},
            {UUID(int=1): 1},
            {date(2026, 1, 2): Decimal("1.50")},
            {Size.LARGE: [Line({UUID(int=2): 2})]},
            {7: "seven"},
            {Theme.DARK: UUID(int=3)},
        ),
        Profile("Alice", seen={UUID(int=4): datetime(2026, 1, 1)}),  # noqa: DTZ001  any will do
        Car(5, UUID(int=5)),
        Model(itemCount=3, by_id={UUID(int=6): 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_put_is_what_is_read(value: Any) -> None:
    session = new_session()
    session.greenroom.put(value)
    assert stored(session).greenroom.as_type(type(value)) == value


def test_plain_data_keeps_its_own_keys() -> None:
    session = new_session()
    session.greenroom.put(Stock(set(), set(), {}, {}, {}, {7: "seven"}, {Theme.DARK: UUID(int=3)}))
    found = stored(session)
    assert found["by_number"] == {7: "seven"}
    assert found["by_theme"] == {"dark": UUID(int=3)}
    session.greenroom.put({"ids": {UUID(int=1): 1}})
    with pytest.raises(UsageError, match=r"data\['ids'\].* keys are str or int"):
        encode_data(session.copy())


def test_keys_of_one_text_are_refused() -> None:
    class Twice(msgspec.Struct):
        keys: dict[Any, int]

    with pytest.raises(UsageError, match="two keys"):
        new_session().greenroom.put(Twice({UUID(int=1): 1, str(UUID(int=1)): 2}))


def test_a_login_takes_all_fields() -> None:
    session = new_session()
    session.greenroom.login("alice", Settings())
    assert session.copy() == {"theme": "light", "sizes": {}}


def test_what_does_not_fit_a_pydantic_model_is_named_and_not_shown() -> None:
    session = new_session()
    session["count"] = "s3cret"
    with pytest.raises(SessionDataError, match=r"does not fit Model: int_parsing at .*count") as caught:
        session.greenroom.as_type(Model)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


class Sized(msgspec.Struct):
    size: Size


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    theme: str = "light"


class Chosen(msgspec.Struct):
    size: Literal["s", "l"]


class Careful(msgspec.Struct):
    size: str

    def __post_init__(self) -> None:
        raise ValueError(f"{self.size} is too large")


class Small(msgspec.Struct, tag="small"):
    pass


@pytest.mark.parametrize(
    ("shape", "data", "reason"),
    [
        (Sized, {"size": "s3cret"}, "Invalid enum value - at `$.size`"),
        (Closed, {"s3cret": 1}, "Object contains unknown field"),
        (Chosen, {"size": "s3cret"}, "Invalid enum value - at `$.size`"),
        (Careful, {"size": "s3cret"}, "a check of its own refuses it"),
        (Small, {"type": "s3cret"}, "Invalid value - at `$.type`"),
        (Settings, {"theme": 1}, "Expected `str`, got `int` - at `$.theme`"),
    ],
)
def test_what_does_not_fit_a_struct_is_named_and_not_shown(
    shape: type, data: dict[str, Any], reason: str
) -> None:
    session = new_session()
    session.update(data)
    with pytest.raises(SessionDataError, match=re.escape(reason)) as caught:
        session.greenroom.as_type(shape)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_what_contains_itself_is_refused_where_it_is_stored() -> None:
    inner: dict[str, Any] = {}
    inner["self"] = inner

    class Holder(msgspec.Struct):
        inner: dict[str, Any]

    session = new_session()
    session.greenroom.put(Holder(inner))
    with pytest.raises(UsageError, match="deeper"):
        encode_data(session.copy())
