"""Checks of how a store tells that a session has ended."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from greenroom.endings import Ended, Watch
from greenroom.errors import GreenroomError
from greenroom.testing.contract.stage import POLL_SECONDS, CheckList, Stage

CHECKS = CheckList()

KNOWN_LATER = {"unknown"}
"""A store may learn of an end only as it finds the session gone."""


class _Listener:
    """Watches a session beside what a check does."""

    def __init__(self, stage: Stage, session_id: str) -> None:
        self._stage = stage
        self._session_id = session_id
        self.heard: list[Ended] = []

    async def listen(self) -> None:
        """Wait for the end."""
        async for ended in self._stage.store.endings(self._session_id):
            self.heard.append(ended)


async def heard(stage: Stage, session_id: str, action: Callable[[_Listener], Awaitable[Any]]) -> list[Ended]:
    """Watch a session while something is done; return what was heard of it."""
    listener = _Listener(stage, session_id)

    async def act() -> None:
        await stage.library.sleep(POLL_SECONDS)
        assert listener.heard == [], "it was told of a session that lives"
        await action(listener)

    for outcome in await stage.library.gather(listener.listen, act):
        if isinstance(outcome, Exception):
            raise outcome
    return listener.heard


def is_one_of(found: list[Ended], *reasons: str) -> bool:
    """Whether one end was told, for one of these reasons."""
    return len(found) == 1 and found[0].reason in {*reasons, *KNOWN_LATER}


@CHECKS.check("endings")
async def check_logout_is_told(stage: Stage) -> None:
    """A deletion is told to who watches, and nothing else of what happens to the session."""
    session = await stage.created(data={"n": 0})

    async def act(_: _Listener) -> None:
        await stage.store.patch(session.session_id, set={"n": 1})
        await stage.store.update(session.session_id, await stage.stored(session.session_id))
        await stage.store.delete(session.session_id)

    assert is_one_of(await heard(stage, session.session_id, act), "logout")


@CHECKS.check("endings", "delete_by_user")
async def check_logout_everywhere_is_told(stage: Stage) -> None:
    """The sessions of a user that end are told of, and the one that is kept is not."""
    user = stage.user()
    session, kept = await stage.created(user_id=user), await stage.created(user_id=user)
    other = _Listener(stage, kept.session_id)

    async def act(_: _Listener) -> None:
        await stage.store.delete_by_user(user, keep=kept.session_id)

    async def end_other(_: _Listener) -> None:
        assert is_one_of(await heard(stage, session.session_id, act), "logout_everywhere")
        assert other.heard == []
        await stage.store.delete(kept.session_id)

    outcomes = await stage.library.gather(other.listen, partial(end_other, other))
    assert [each for each in outcomes if isinstance(each, Exception)] == []
    assert is_one_of(other.heard, "logout")


@CHECKS.check("endings", "rotate")
async def check_rotation_is_told(stage: Stage) -> None:
    """Who watches the old id is told, and the new one can be watched."""
    session = await stage.created(user_id=stage.user())
    new: list[str] = []

    async def act(_: _Listener) -> None:
        new.append((await stage.store.rotate(session.session_id)).session_id)

    assert is_one_of(await heard(stage, session.session_id, act), "rotation")

    async def end(_: _Listener) -> None:
        await stage.store.delete(new[0])

    assert is_one_of(await heard(stage, new[0], end), "logout")


@CHECKS.check("endings", "list_by_user", "delete_by_handle")
async def check_end_of_another_device_is_told(stage: Stage) -> None:
    """So is a deletion by handle."""
    user = stage.user()
    session = await stage.created(user_id=user)

    async def act(_: _Listener) -> None:
        [listed] = await stage.store.list_by_user(user)
        await stage.store.delete_by_handle(user, listed.handle)

    assert is_one_of(await heard(stage, session.session_id, act), "logout")


@CHECKS.check("endings")
async def check_expiry_is_told(stage: Stage) -> None:
    """The end of its time is told, without anybody asking for the session."""
    session = await stage.short_lived()

    async def act(_: _Listener) -> None:
        if stage.clock is not None:
            stage.clock.advance(0.3)

    assert is_one_of(await heard(stage, session.session_id, act), "expiry")


@CHECKS.check("endings")
async def check_extended_sessions_are_not_told_of(stage: Stage) -> None:
    """A session whose life was extended has not ended when it would have without."""
    session = await stage.short_lived()

    async def act(listener: _Listener) -> None:
        await stage.store.patch(session.session_id, expires=stage.after(3600))
        if stage.clock is not None:
            stage.clock.advance(0.5)
        await stage.library.sleep(0.5)
        assert listener.heard == []
        await stage.store.delete(session.session_id)

    assert is_one_of(await heard(stage, session.session_id, act), "logout")


@CHECKS.check("endings")
async def check_ended_sessions_are_told_of_at_once(stage: Stage) -> None:
    """Who begins to watch too late is told so."""
    session = await stage.created()
    await stage.store.delete(session.session_id)
    for session_id in (session.session_id, stage.session().session_id, "no id of ours"):
        assert [ended.reason async for ended in stage.store.endings(session_id)] == ["unknown"]


@CHECKS.check("endings")
async def check_all_who_watch_are_told(stage: Stage) -> None:
    """Any number of tasks may watch one session; one that is cancelled takes nothing from the others."""
    session = await stage.created()
    listeners = [_Listener(stage, session.session_id) for _ in range(5)]

    async def act() -> None:
        finished = await stage.library.cancel_after(_Listener(stage, session.session_id).listen, 0.05)
        assert not finished
        await stage.store.delete(session.session_id)

    outcomes = await stage.library.gather(act, *(listener.listen for listener in listeners))
    assert [each for each in outcomes if isinstance(each, Exception)] == []
    assert all(is_one_of(listener.heard, "logout") for listener in listeners)


@CHECKS.check("endings")
async def check_a_watch_may_be_stopped_by_who_is_told(stage: Stage) -> None:
    """Whoever is told first may stop the watch of another, which then hears nothing."""
    session = await stage.created()
    watches: list[Watch] = []
    told: list[int] = []

    def tell(number: int, _: Ended | GreenroomError) -> None:
        told.append(number)
        for watch in watches:
            watch.stop()

    watches += [stage.store.watch(session.session_id, partial(tell, number)) for number in range(3)]
    await stage.library.sleep(POLL_SECONDS)
    await stage.store.delete(session.session_id)
    for _ in range(100):
        if told:
            break
        await stage.library.sleep(POLL_SECONDS)
    assert len(told) == 1, f"{len(told)} of 3 watches were told, of which the first had stopped the others"
