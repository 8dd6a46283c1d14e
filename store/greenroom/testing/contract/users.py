"""Checks of rotate and of the operations by user."""

from greenroom.errors import SessionNotFoundError, UsageError
from greenroom.fields import LIST_LIMIT_MAX
from greenroom.ids import point_of
from greenroom.testing.contract.stage import CheckList, Stage, raises

CHECKS = CheckList()


@CHECKS.check("rotate")
async def check_rotate_moves_the_session(stage: Stage) -> None:
    """The old id is dead, the new one has everything, and both share their routing point."""
    old = await stage.created(
        user_id=stage.user(), data={"n": 1}, label="kept", absolute_expires=stage.after(7200)
    )
    new = await stage.store.rotate(old.session_id)
    assert new.session_id != old.session_id
    assert point_of(new.session_id) == point_of(old.session_id)
    assert new.version > old.version
    assert await stage.store.get(old.session_id) is None
    assert await stage.stored(new.session_id) == new
    assert (new.user_id, new.data, new.label) == (old.user_id, old.data, old.label)
    assert (new.created, new.expires, new.absolute_expires) == (
        old.created,
        old.expires,
        old.absolute_expires,
    )


@CHECKS.check("rotate")
async def check_rotate_logs_in_the_same_step(stage: Stage) -> None:
    """User, data and lifetime of a login change with the id, for ids of other makers too."""
    user, expires = stage.user(), stage.after(120)
    old = await stage.created(
        session_id=f"foreign-{stage.user()}", data={"anonymous": True, "cart": {"a": 1}}
    )
    new = await stage.store.rotate(
        old.session_id, user_id=user, set={("cart", "b"): 2}, unset=["anonymous"], expires=expires
    )
    assert (new.user_id, new.data, new.expires) == (user, {"cart": {"a": 1, "b": 2}}, expires)
    assert point_of(new.session_id) == point_of(old.session_id)
    assert await stage.stored(new.session_id) == new


@CHECKS.check("rotate")
async def check_rotated_id_stays_dead(stage: Stage) -> None:
    """Nothing under the old id brings it back, and rotating it again fails."""
    old = await stage.created()
    new = await stage.store.rotate(old.session_id)
    with raises(SessionNotFoundError):
        await stage.store.update(old.session_id, old)
    with raises(SessionNotFoundError):
        await stage.store.patch(old.session_id, set={"n": 1})
    with raises(SessionNotFoundError):
        await stage.store.rotate(old.session_id)
    await stage.store.delete(old.session_id)
    assert await stage.store.get(old.session_id) is None
    assert await stage.stored(new.session_id) == new


@CHECKS.check("rotate")
async def check_rotate_of_missing_session(stage: Stage) -> None:
    """There must be a live session to rotate; expired is missing."""
    with raises(SessionNotFoundError):
        await stage.store.rotate(stage.session().session_id)
    expired = await stage.expired()
    with raises(SessionNotFoundError):
        await stage.store.rotate(expired.session_id, expires=stage.after(3600))


@CHECKS.check("rotate")
async def check_rotate_keeps_the_absolute_deadline(stage: Stage) -> None:
    """A login does not outlive the deadline of the session that it began in."""
    old = await stage.created(absolute_expires=stage.after(600), expires=stage.after(60))
    new = await stage.store.rotate(old.session_id, expires=stage.after(9000))
    assert new.expires == old.absolute_expires


@CHECKS.check("list_by_user")
async def check_list_by_user(stage: Stage) -> None:
    """A list shows the user's live sessions, newest first, and no ids."""
    user, other = stage.user(), stage.user()
    sessions = [
        await stage.created(user_id=user, created=stage.after(age), label=f"device {age}")
        for age in (-20, -30, -10)
    ]
    await stage.created(user_id=other)
    await stage.created()
    await stage.expired(user_id=user)
    listed = await stage.store.list_by_user(user)
    assert [info.label for info in listed] == ["device -10", "device -20", "device -30"]
    newest = sessions[2]
    assert (listed[0].user_id, listed[0].created, listed[0].expires, listed[0].version) == (
        user,
        newest.created,
        newest.expires,
        newest.version,
    )
    assert len({info.handle for info in listed}) == 3
    assert not any(session.session_id in repr(listed) for session in sessions)
    assert len(await stage.store.list_by_user(user, limit=2)) == 2
    assert await stage.store.list_by_user(stage.user()) == []


@CHECKS.check("list_by_user")
async def check_list_order_outlasts_changes(stage: Stage) -> None:
    """Sessions of one moment have an order that no change disturbs, and a limit cuts that order."""
    user, created = stage.user(), stage.now()
    sessions = [await stage.created(user_id=user, created=created) for _ in range(6)]
    order = [info.handle for info in await stage.store.list_by_user(user)]
    for session in sessions[:3]:
        session.label = "changed"
        await stage.store.update(session.session_id, session)
    assert [info.handle for info in await stage.store.list_by_user(user)] == order
    for limit in range(1, 6):
        assert [info.handle for info in await stage.store.list_by_user(user, limit=limit)] == order[:limit]


@CHECKS.check("list_by_user", "patch")
async def check_list_follows_the_user(stage: Stage) -> None:
    """A session is listed under the user that it has now."""
    first, second = stage.user(), stage.user()
    session = await stage.created()
    await stage.store.patch(session.session_id, user_id=first)
    assert len(await stage.store.list_by_user(first)) == 1
    session.user_id = second
    await stage.store.update(session.session_id, session)
    assert await stage.store.list_by_user(first) == []
    assert len(await stage.store.list_by_user(second)) == 1
    await stage.store.delete(session.session_id)
    assert await stage.store.list_by_user(second) == []


@CHECKS.check("list_by_user", "delete_by_user", "patch")
async def check_what_is_over_is_neither_listed_nor_counted(stage: Stage) -> None:
    """A session whose lifetime was cut is none of the user's, even before it is looked up."""
    user = stage.user()
    ended, living = [await stage.created(user_id=user) for _ in range(2)]
    await stage.store.patch(ended.session_id, expires=stage.after(-60))
    assert [info.version for info in await stage.store.list_by_user(user)] == [living.version]
    ended = await stage.created(user_id=user)
    await stage.store.patch(ended.session_id, expires=stage.after(-60))
    assert await stage.store.delete_by_user(user) == 1


@CHECKS.check("list_by_user", "delete_by_handle")
async def check_delete_by_handle(stage: Stage) -> None:
    """A user ends one of their sessions by its handle, and only theirs."""
    user, other = stage.user(), stage.user()
    first = await stage.created(user_id=user, label="first")
    second = await stage.created(user_id=user, label="second")
    handle = {info.label: info.handle for info in await stage.store.list_by_user(user)}
    await stage.store.delete_by_handle(other, handle["first"])
    assert await stage.stored(first.session_id) == first
    await stage.store.delete_by_handle(user, handle["first"])
    await stage.store.delete_by_handle(user, handle["first"])
    assert await stage.store.get(first.session_id) is None
    assert await stage.stored(second.session_id) == second
    for bad in ("", "not-a-handle", second.session_id):
        with raises(UsageError):
            await stage.store.delete_by_handle(user, bad)


@CHECKS.check("delete_by_user")
async def check_delete_by_user_is_exact(stage: Stage) -> None:
    """All sessions of the user end, and none of any other user."""
    user, other = stage.user(), stage.user()
    doomed = [await stage.created(user_id=user) for _ in range(25)]
    spared = [await stage.created(user_id=other), await stage.created()]
    await stage.expired(user_id=user)
    assert await stage.store.delete_by_user(user) == 25
    assert [await stage.store.get(session.session_id) for session in doomed] == [None] * 25
    for session in spared:
        assert await stage.stored(session.session_id) == session
    assert await stage.store.delete_by_user(user) == 0


@CHECKS.check("delete_by_user")
async def check_delete_by_user_keeps_one(stage: Stage) -> None:
    """The session in which the user asked for it may stay."""
    user = stage.user()
    sessions = [await stage.created(user_id=user) for _ in range(5)]
    kept = sessions[2]
    assert await stage.store.delete_by_user(user, keep=kept.session_id) == 4
    alive = [session for session in sessions if await stage.store.get(session.session_id) is not None]
    assert alive == [kept]
    assert await stage.store.delete_by_user(user, keep=stage.session().session_id) == 1


@CHECKS.check("delete_by_user", "patch")
async def check_delete_by_user_follows_the_user(stage: Stage) -> None:
    """What counts is the user that a session has now."""
    user, other = stage.user(), stage.user()
    left = await stage.created(user_id=user)
    await stage.store.patch(left.session_id, user_id=other)
    joined = await stage.created(user_id=other)
    joined.user_id = user
    await stage.store.update(joined.session_id, joined)
    assert await stage.store.delete_by_user(user) == 1
    assert await stage.store.get(joined.session_id) is None
    assert (await stage.stored(left.session_id)).user_id == other


@CHECKS.check("delete_by_user", "rotate")
async def check_delete_by_user_ends_rotated_sessions(stage: Stage) -> None:
    """A login by rotation is found like any other."""
    user = stage.user()
    anonymous = await stage.created()
    session = await stage.store.rotate(anonymous.session_id, user_id=user)
    assert await stage.store.delete_by_user(user) == 1
    assert await stage.store.get(session.session_id) is None


@CHECKS.check("list_by_user", "delete_by_handle", "delete_by_user")
async def check_operations_by_user_need_a_user(stage: Stage) -> None:
    """Nobody, nothing and too much are the caller's mistakes."""
    for bad in (None, "", "u" * 257, 7):
        with raises(UsageError):
            await stage.store.list_by_user(bad)  # type: ignore[arg-type]  # on purpose
        with raises(UsageError):
            await stage.store.delete_by_user(bad)  # type: ignore[arg-type]  # on purpose
        with raises(UsageError):
            await stage.store.delete_by_handle(bad, "")  # type: ignore[arg-type]  # on purpose
    for bad_limit in (0, LIST_LIMIT_MAX + 1):
        with raises(UsageError):
            await stage.store.list_by_user(stage.user(), limit=bad_limit)
    assert await stage.store.list_by_user(stage.user(), limit=LIST_LIMIT_MAX) == []
    with raises(UsageError):
        await stage.store.delete_by_user(stage.user(), keep="")
