"""Checks of create, get, update, delete, clean, and of what a session may hold."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from uuid import UUID
from zoneinfo import ZoneInfo

from greenroom.errors import (
    SessionExistsError,
    SessionNotFoundError,
    UnsupportedError,
    UsageError,
    VersionConflictError,
)
from greenroom.ids import handle_of, new_session_id
from greenroom.sessions import ALL_FEATURES
from greenroom.testing.contract.stage import CheckList, Stage, raises

CHECKS = CheckList()


@CHECKS.check()
async def check_created_session_is_read_back(stage: Stage) -> None:
    """Everything that was created comes back, with times in UTC."""
    session = stage.session(
        user_id=stage.user(),
        data={"theme": "dark", "cart": {"sku-1": 2}},
        absolute_expires=stage.after(7200),
        label="Firefox on Linux",
    )
    version = await stage.store.create(session)
    found = await stage.stored(session.session_id)
    assert version > 0
    assert found.version == version
    assert session.version == 0, "create must not change the caller's object"
    session.version = version
    assert found == session
    assert found.expires.utcoffset() == timedelta(0)
    assert found.created.utcoffset() == timedelta(0)


@CHECKS.check()
async def check_times_in_other_zones_name_the_same_moment(stage: Stage) -> None:
    """A session may be created with times in any zone."""
    expires = stage.after(3600)
    session = stage.session(expires=expires.astimezone(timezone(timedelta(hours=5, minutes=30))))
    await stage.store.create(session)
    found = await stage.stored(session.session_id)
    assert found.expires == expires
    assert found.expires.utcoffset() == timedelta(0)


@CHECKS.check()
async def check_unknown_session_is_none(stage: Stage) -> None:
    """Reading an id that was never created is no error."""
    assert await stage.store.get(new_session_id()) is None
    assert await stage.store.get("not-minted-here") is None


@CHECKS.check()
async def check_any_text_is_an_id(stage: Stage) -> None:
    """Ids of other makers work, up to 256 bytes."""
    unique = new_session_id()[8:]
    for session_id in (f"framework-{unique}", f"{unique}ü€😀/ \n", (unique + "x" * 256)[:256]):
        created = await stage.created(session_id=session_id, data={"n": 1})
        assert created.session_id == session_id
        await stage.store.delete(session_id)
        assert await stage.store.get(session_id) is None


@CHECKS.check()
async def check_existing_session_is_not_created_again(stage: Stage) -> None:
    """A second create under a live id fails and changes nothing."""
    first = await stage.created(data={"n": 1})
    with raises(SessionExistsError):
        await stage.store.create(stage.session(session_id=first.session_id, data={"n": 2}))
    assert await stage.stored(first.session_id) == first


@CHECKS.check()
async def check_update_replaces(stage: Stage) -> None:
    """User, lifetime, label and data are replaced as a whole; the version rises."""
    before = await stage.created(data={"a": 1, "b": 2}, label="old")
    changed = stage.session(
        session_id=before.session_id,
        user_id=stage.user(),
        expires=stage.after(1800),
        data={"c": 3},
        label="new",
    )
    version = await stage.store.update(before.session_id, changed)
    after = await stage.stored(before.session_id)
    assert after.version == version > before.version
    assert (after.user_id, after.expires, after.data, after.label) == (
        changed.user_id,
        changed.expires,
        {"c": 3},
        "new",
    )


@CHECKS.check()
async def check_creation_facts_are_fixed(stage: Stage) -> None:
    """Neither `created` nor `absolute_expires` is changed by an update."""
    before = await stage.created(absolute_expires=stage.after(7200))
    changed = stage.session(
        session_id=before.session_id, created=stage.after(60), absolute_expires=stage.after(9000)
    )
    await stage.store.update(before.session_id, changed)
    after = await stage.stored(before.session_id)
    assert (after.created, after.absolute_expires) == (before.created, before.absolute_expires)


@CHECKS.check()
async def check_absolute_deadline_is_never_passed(stage: Stage) -> None:
    """A lifetime is cut to the absolute deadline, at creation and later."""
    absolute = stage.after(600)
    session = await stage.created(expires=stage.after(3600), absolute_expires=absolute)
    assert session.expires == absolute
    session.expires = stage.after(9000)
    await stage.store.update(session.session_id, session)
    assert (await stage.stored(session.session_id)).expires == absolute
    await stage.store.patch(session.session_id, expires=stage.after(9000))
    assert (await stage.stored(session.session_id)).expires == absolute


@CHECKS.check()
async def check_stale_update_conflicts(stage: Stage) -> None:
    """An update on condition of an older version changes nothing; of the present one, it works."""
    session = await stage.created(data={"n": 0})
    old = session.version
    session.data = {"n": 1}
    new = await stage.store.update(session.session_id, session, version=old)
    session.data = {"n": 2}
    with raises(VersionConflictError):
        await stage.store.update(session.session_id, session, version=old)
    found = await stage.stored(session.session_id)
    assert (found.data, found.version) == ({"n": 1}, new)
    await stage.store.update(session.session_id, session, version=new)
    assert (await stage.stored(session.session_id)).data == {"n": 2}


@CHECKS.check()
async def check_versions_rise(stage: Stage) -> None:
    """Each change gives a higher version."""
    session = stage.session()
    versions = [await stage.store.create(session)]
    for number in range(5):
        session.data = {"n": number}
        versions.append(await stage.store.update(session.session_id, session))
    assert versions == sorted(set(versions))


@CHECKS.check()
async def check_missing_session_is_not_updated(stage: Stage) -> None:
    """An update of what was never created fails, and creates nothing."""
    session = stage.session()
    with raises(SessionNotFoundError):
        await stage.store.update(session.session_id, session)
    with raises(SessionNotFoundError):
        await stage.store.update(session.session_id, session, version=1)
    assert await stage.store.get(session.session_id) is None


@CHECKS.check()
async def check_update_after_delete_does_not_resurrect(stage: Stage) -> None:
    """That is how a logout would be undone."""
    session = await stage.created()
    await stage.store.delete(session.session_id)
    for version in (None, session.version):
        with raises(SessionNotFoundError):
            await stage.store.update(session.session_id, session, version=version)
    assert await stage.store.get(session.session_id) is None


@CHECKS.check()
async def check_delete_is_repeatable(stage: Stage) -> None:
    """Deleting what is not there is fine."""
    session = await stage.created()
    await stage.store.delete(session.session_id)
    await stage.store.delete(session.session_id)
    await stage.store.delete(new_session_id())
    assert await stage.store.get(session.session_id) is None


@CHECKS.check()
async def check_old_version_never_matches_a_new_session(stage: Stage) -> None:
    """A session created again under its id has a higher version than all before."""
    old = await stage.created()
    await stage.store.delete(old.session_id)
    new = await stage.created(session_id=old.session_id, data={"new": True})
    assert new.version > old.version
    with raises(VersionConflictError):
        await stage.store.update(old.session_id, old, version=old.version)
    assert (await stage.stored(old.session_id)).data == {"new": True}


@CHECKS.check()
async def check_expired_session_is_gone(stage: Stage) -> None:
    """Once its time is over, a session is neither read nor changed, and its id is free."""
    session = await stage.expired()
    with raises(SessionNotFoundError):
        await stage.store.update(session.session_id, stage.session(session_id=session.session_id))
    with raises(SessionNotFoundError):
        await stage.store.patch(session.session_id, set={"n": 1}, expires=stage.after(3600))
    assert await stage.store.get(session.session_id) is None
    await stage.created(session_id=session.session_id, data={"new": True})
    assert (await stage.stored(session.session_id)).data == {"new": True}


@CHECKS.check()
async def check_absolute_deadline_ends_a_session(stage: Stage) -> None:
    """Prolonging does not help against the absolute deadline."""
    session = await stage.short_lived(expires=stage.after(3600), absolute_expires=stage.after(0.3))
    await stage.until_gone(session.session_id)


@CHECKS.check()
async def check_session_created_in_the_past_is_expired(stage: Stage) -> None:
    """A lifetime that is over already is no error, and no session."""
    session = stage.session(expires=stage.after(-60))
    await stage.store.create(session)
    assert await stage.store.get(session.session_id) is None


@CHECKS.check("patch")
async def check_lifetime_that_is_cut_ends_the_session(stage: Stage) -> None:
    """An update, a patch or a rotation may set an end that is past: no error, and the id is free."""
    past = stage.after(-60)
    updated, patched = await stage.created(), await stage.created()
    updated.expires = past
    await stage.store.update(updated.session_id, updated)
    after = await stage.store.patch(patched.session_id, set={"n": 1}, expires=past)
    assert (after.expires, after.data) == (past, {"n": 1})
    ids = [updated.session_id, patched.session_id]
    if "rotate" in stage.store.features:
        old = await stage.created()
        ids += [old.session_id, (await stage.store.rotate(old.session_id, expires=past)).session_id]
    for session_id in ids:
        with raises(SessionNotFoundError):
            await stage.store.patch(session_id, expires=stage.after(3600))
        assert await stage.store.get(session_id) is None
        await stage.created(session_id=session_id)


@CHECKS.check()
async def check_prolonged_session_lives_on(stage: Stage) -> None:
    """A new lifetime counts from the moment it is written."""
    session = await stage.created(expires=stage.after(30))
    session.expires = stage.after(3600)
    await stage.store.update(session.session_id, session)
    if stage.clock is not None:
        stage.clock.advance(31)
    assert (await stage.stored(session.session_id)).expires == session.expires


@CHECKS.check()
async def check_clean_keeps_the_living(stage: Stage) -> None:
    """Cleaning removes what has expired and nothing else, and says how many."""
    living = await stage.created()
    dying = [await stage.short_lived() for _ in range(3)]
    if stage.clock is None:
        for session in dying:
            await stage.until_gone(session.session_id)
        assert await stage.store.clean() >= 0
    else:
        stage.clock.advance(0.3)
        assert await stage.store.clean() == 3
        assert await stage.store.clean() == 0
    assert await stage.stored(living.session_id) == living
    assert [await stage.store.get(session.session_id) for session in dying] == [None] * 3


@CHECKS.check()
async def check_values_keep_their_types(stage: Stage) -> None:
    """Data comes back as it was, except that tuples are lists."""
    data = {
        "none": None,
        "flags": [True, False],
        "numbers": [0, -1, 2**63, -(2**63), 2**200, -(2**200), 1.5, float("inf")],
        "text": "ü€😀\0",
        "bytes": b"\x00\xff",
        "nested": {"a": {"b": [{"c": {}}, []]}},
        7: {8: "int keys"},
        "moment": datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=-3))),
        "naive": datetime(2030, 1, 2, 3, 4, 5),  # noqa: DTZ001  naive on purpose
        "zoned": datetime(2030, 7, 2, 3, 4, tzinfo=ZoneInfo("UTC")),
        "day": date(2030, 1, 2),
        "clock": time(3, 4, 5, 6),
        "span": timedelta(days=-1, microseconds=1),
        "uuid": UUID(int=2**127 + 1),
        "price": Decimal("12.340"),
        "tags": {"a", 1, (2, "b")},
        "frozen": frozenset({b"x", frozenset({1})}),
    }
    session = await stage.created(data={**data, "pair": (1, 2)})
    assert session.data == {**data, "pair": [1, 2]}
    for key, value in data.items():
        assert type(session.data[key]) is type(value), key


@CHECKS.check()
async def check_large_data_fits(stage: Stage) -> None:
    """Half a mebibyte of data is no trouble."""
    blob = bytes(range(256)) * 2048
    session = await stage.created(data={"blob": blob})
    # Not compared by the assertion itself: explaining the difference of so much takes a runner minutes.
    kept = session.data == {"blob": blob}
    assert kept, "half a mebibyte did not come back as it was stored"


@CHECKS.check()
async def check_nothing_mutable_is_shared(stage: Stage) -> None:
    """Changing an object that was given to the store, or came from it, changes nothing in the store."""
    session = stage.session(data={"list": [1]})
    await stage.store.create(session)
    session.data["list"].append(2)
    found = await stage.stored(session.session_id)
    assert found.data == {"list": [1]}
    found.data["list"].append(3)
    found.user_id = "somebody else"
    again = await stage.stored(session.session_id)
    assert (again.data, again.user_id) == ({"list": [1]}, None)


@CHECKS.check()
async def check_unstorable_value_is_named(stage: Stage) -> None:
    """What cannot be stored is refused with its path, and nothing is written."""
    session = stage.session(data={"cart": {"x": object()}})
    with raises(UsageError, naming="data['cart']['x']"):
        await stage.store.create(session)
    assert await stage.store.get(session.session_id) is None
    before = await stage.created(data={"n": 1})
    with raises(UsageError, naming="data['list'][1]"):
        changed = stage.session(session_id=before.session_id, data={"list": [0, lambda: None]})
        await stage.store.update(before.session_id, changed)
    with raises(UsageError, naming="data['cart']['y']"):
        await stage.store.patch(before.session_id, set={("cart", "y"): object()})
    assert await stage.stored(before.session_id) == before


@CHECKS.check()
async def check_impossible_ids_name_no_session(stage: Stage) -> None:
    """A cookie may hold anything: a text that can be no id is the id of no session, and is never shown."""
    for bad in ("", "secret" * 50, "secret\ud800"):
        session = stage.session(session_id=bad)
        assert await stage.store.get(bad) is None
        await stage.store.delete(bad)
        attempts: list[Callable[[], Awaitable[object]]] = [
            partial(stage.store.update, bad, session),
            partial(stage.store.patch, bad, set={"n": 1}),
            partial(stage.store.modify, bad, lambda _: None),
        ]
        if "rotate" in stage.store.features:
            attempts.append(partial(stage.store.rotate, bad))
        for attempt in attempts:
            with raises(SessionNotFoundError, hiding="secret"):
                await attempt()
        with raises(UsageError, hiding="secret"):
            await stage.store.create(session)


@CHECKS.check()
async def check_ids_that_are_no_text_are_refused(stage: Stage) -> None:
    """Bytes and None are no ids but the caller's mistake."""
    for bad in (b"secret", None):
        session = stage.session(session_id=bad)
        attempts: list[Callable[[], Awaitable[object]]] = [
            partial(stage.store.get, bad),  # type: ignore[arg-type]  # on purpose
            partial(stage.store.create, session),
            partial(stage.store.update, bad, session),  # type: ignore[arg-type]  # on purpose
            partial(stage.store.delete, bad),  # type: ignore[arg-type]  # on purpose
            partial(stage.store.patch, bad, set={"n": 1}),  # type: ignore[arg-type]  # on purpose
            partial(stage.store.modify, bad, lambda _: None),  # type: ignore[arg-type]  # on purpose
        ]
        for attempt in attempts:
            with raises(UsageError, hiding="secret"):
                await attempt()


@CHECKS.check()
async def check_bad_fields_are_refused(stage: Stage) -> None:
    """Naive times, long users and labels, and ids that do not match are the caller's mistakes."""
    naive = datetime(2099, 1, 1)  # noqa: DTZ001  naive on purpose
    for fields in (
        {"expires": naive},
        {"created": naive},
        {"absolute_expires": naive},
        {"user_id": ""},
        {"user_id": "u" * 257},
        {"user_id": 7},
        {"label": "ü" * 129},
        {"data": [1]},
        {"data": {None: 1}},
    ):
        session = stage.session(**fields)
        with raises(UsageError):
            await stage.store.create(session)
        assert await stage.store.get(session.session_id) is None
    session = await stage.created()
    with raises(UsageError):
        await stage.store.update(session.session_id, stage.session())
    with raises(UsageError):
        await stage.store.patch(session.session_id, expires=naive)
    assert await stage.stored(session.session_id) == session


class _Markup(str):
    """A kind of str, as template engines have."""

    __slots__ = ()


@CHECKS.check()
async def check_kinds_of_str_are_text(stage: Stage) -> None:
    """A user, a label and an id may be of a type that a framework derives from str."""
    user, other = _Markup(stage.user()), _Markup(stage.user())
    session = await stage.created(user_id=user, label=_Markup("before"))
    found = await stage.stored(_Markup(session.session_id))
    assert (found.user_id, found.label) == (user, "before")
    found.user_id, found.label = other, _Markup("after")
    await stage.store.update(session.session_id, found)
    after = await stage.stored(session.session_id)
    assert (after.user_id, after.label) == (other, "after")
    assert (await stage.store.patch(session.session_id, user_id=user)).user_id == user
    if "list_by_user" in stage.store.features:
        assert [info.label for info in await stage.store.list_by_user(user)] == ["after"]


@CHECKS.check()
async def check_reprs_hide_the_id(stage: Stage) -> None:
    """An id must not reach a log by way of a repr."""
    session = await stage.created(data={"secret": "hunter2"})
    assert session.session_id not in repr(session)
    assert "hunter2" not in repr(session)
    assert session.session_id not in repr(stage.store)


@CHECKS.check()
async def check_features_tell_the_truth(stage: Stage) -> None:
    """What `features` names works, and the rest raises UnsupportedError."""
    store, session, user = stage.store, await stage.created(), stage.user()
    attempts: dict[str, Callable[[], Awaitable[object]]] = {
        "patch": lambda: store.patch(session.session_id, set={"n": 1}),
        "modify": lambda: store.modify(session.session_id, lambda _: None),
        "list_by_user": lambda: store.list_by_user(user),
        "delete_by_handle": lambda: store.delete_by_handle(user, handle_of(1, b"\0" * 32)),
        "delete_by_user": lambda: store.delete_by_user(user),
        "rotate": lambda: store.rotate(session.session_id),
        "endings": lambda: anext(store.endings(session.session_id)),
    }
    assert set(attempts) == ALL_FEATURES
    assert store.features <= ALL_FEATURES
    for feature, attempt in attempts.items():
        if feature in store.features:
            await attempt()
        else:
            with raises(UnsupportedError, naming=feature):
                await attempt()


@CHECKS.check()
async def check_store_that_serves_says_so(stage: Stage) -> None:
    """`check` is silent where sessions can be read, before any other operation and after closing."""
    await stage.store.check()
    await stage.store.check(every_shard=True)
    await stage.created()
    await stage.store.aclose()
    await stage.store.check()


@CHECKS.check()
async def check_closing_is_repeatable(stage: Stage) -> None:
    """A store may be closed twice."""
    await stage.created()
    await stage.store.aclose()
    await stage.store.aclose()
