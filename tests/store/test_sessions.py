"""What a session shows of itself, and the times that it carries."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom import BaseSessionStore, ClusterStore, MemoryStore, SessionData, UsageError, new_session_id
from greenroom.fields import checked_user_id, datetime_of, micros_of, utc_now

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_neither_repr_shows_a_secret() -> None:
    session = SessionData(
        session_id="secret-id",
        expires=datetime.now(UTC),
        user_id="u1",
        data={"secret": "value"},
        label="phone",
    )
    for shown in (repr(session), repr(session.__rich_repr__())):
        assert "secret" not in shown
        assert "value" not in shown
        assert "u1" in shown
        assert "phone" in shown


@given(
    st.one_of(
        st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
        st.integers(-1000, 1000),
    )
)
def test_times_come_back_to_the_microsecond(micros: int) -> None:
    moment = datetime_of(micros)
    assert moment == _EPOCH + timedelta(microseconds=micros)
    assert moment.tzinfo is UTC
    assert micros_of(moment, "expires") == micros


@given(
    st.datetimes(
        datetime.min + timedelta(days=2),  # noqa: DTZ901  Hypothesis wants bounds without a zone
        datetime.max - timedelta(days=2),  # noqa: DTZ901
        timezones=st.timezones(),
        allow_imaginary=False,
    )
)
def test_a_moment_is_the_same_in_every_zone(moment: datetime) -> None:
    micros = (moment - _EPOCH) // timedelta(microseconds=1)
    assert micros_of(moment, "expires") == micros_of(moment.astimezone(UTC), "expires") == micros


@pytest.mark.parametrize("micros", [253_402_300_800_000_000, -62_135_596_800_000_001, 1 << 62, -(1 << 90)])
def test_times_beyond_the_calendar_are_refused(micros: int) -> None:
    with pytest.raises(OverflowError):
        datetime_of(micros)


class _Proxy:
    """Passes for a str, as a proxy of one does."""

    __class__ = str  # type: ignore[assignment]

    def __str__(self) -> str:
        return "u1"


def test_what_passes_for_a_str_is_taken_as_text() -> None:
    user_id: str = _Proxy()  # type: ignore[assignment]
    assert type(checked_user_id(user_id)) is str
    assert checked_user_id(user_id) == "u1"


class _Days(int):
    """An int of another library."""


class _Lapse(timedelta):
    @property
    def days(self) -> int:
        return _Days(super().days)


class _Moment(datetime):
    def __sub__(self, other: object) -> _Lapse:  # type: ignore[override]
        since = super().__sub__(other)  # type: ignore[call-overload]
        return _Lapse(since.days, since.seconds, since.microseconds)


def test_a_kind_of_datetime_gives_a_plain_int() -> None:
    moment = _Moment(2027, 5, 4, 3, 2, 1, 7, tzinfo=UTC)
    assert type(micros_of(moment, "expires")) is int
    assert datetime_of(micros_of(moment, "expires")) == moment


@pytest.mark.parametrize("store", [MemoryStore(), ClusterStore("127.0.0.1:1")], ids=["memory", "cluster"])
@pytest.mark.parametrize("version", [1 << 63, 1 << 64, -(1 << 63) - 1, True, "1"])
def test_a_version_that_no_store_returns_is_refused(store: BaseSessionStore, version: object) -> None:
    session = SessionData(session_id="s", expires=datetime.now(UTC))
    with pytest.raises(UsageError, match="version is"):
        asyncio.run(store.update("s", session, version=version))  # type: ignore[arg-type]


def test_encoded_reads_and_patches_use_a_stores_own_get_and_patch() -> None:
    """A kind of MemoryStore that counts, hides or caches must not be gone round."""

    class Counting(MemoryStore):
        async def get(self, session_id: str) -> SessionData | None:
            seen.append("get")
            return await super().get(session_id)

    class Both(Counting):
        async def patch(self, session_id: str, **options: Any) -> SessionData:
            seen.append("patch")
            return await super().patch(session_id, **options)

    seen: list[str] = []

    async def main() -> None:
        for store in (Counting(), Both()):
            session = SessionData(session_id=new_session_id(), expires=utc_now() + timedelta(hours=1))
            await store.create(session)
            patched = await store.patch_stored(session.session_id, set={"a": 1})
            stored = await store.get_stored(session.session_id)
            assert stored == patched
            assert stored is not None
            assert stored.decoded() == {"a": 1}

    asyncio.run(main())
    assert seen == ["get", "patch", "get"]
