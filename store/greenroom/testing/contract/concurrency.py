"""Checks of what happens when operations meet, or are cancelled."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from greenroom.errors import SessionExistsError, SessionNotFoundError, VersionConflictError
from greenroom.sessions import SessionData
from greenroom.testing.contract.stage import CheckList, Stage

CHECKS = CheckList()

MODIFICATIONS = 60
CANCEL_SECONDS = (0.0, 0.0005, 0.002, 0.01)


@CHECKS.check("patch")
async def check_concurrent_patches_all_survive(stage: Stage) -> None:
    """Two requests of one browser that change different paths lose nothing."""
    session = await stage.created(data={"cart": {}})
    patch = stage.store.patch
    results = await stage.library.gather(
        *(partial(patch, session.session_id, set={("cart", f"sku-{n}"): n}) for n in range(16)),
        partial(patch, session.session_id, set={"theme": "dark"}),
    )
    assert [result for result in results if isinstance(result, Exception)] == []
    found = await stage.stored(session.session_id)
    assert found.data == {"cart": {f"sku-{n}": n for n in range(16)}, "theme": "dark"}
    assert found.version == max(result.version for result in results)


@CHECKS.check("modify")
async def check_concurrent_modifications_all_count(stage: Stage) -> None:
    """A counter counts every modification."""
    session = await stage.created(data={"n": 0})

    def count(found: SessionData) -> None:
        found.data["n"] += 1

    results = await stage.library.gather(
        *(partial(stage.store.modify, session.session_id, count) for _ in range(MODIFICATIONS))
    )
    assert sorted(result.data["n"] for result in results) == list(range(1, MODIFICATIONS + 1))
    assert (await stage.stored(session.session_id)).data == {"n": MODIFICATIONS}


@CHECKS.check("modify")
async def check_cancelled_modifications_let_others_go_on(stage: Stage) -> None:
    """Clients that hang up while they wait for each other, or write, delay no one else."""
    session = await stage.created(data={"n": 0})

    def count(found: SessionData) -> None:
        found.data["n"] += 1

    one = partial(stage.store.modify, session.session_id, count)
    results = await stage.library.gather(
        *(partial(stage.library.cancel_after, one, seconds) for seconds in CANCEL_SECONDS * 4), one, one
    )
    assert all(isinstance(result, bool) for result in results[:-2]), results
    finished = sum(result is True for result in results) + 2
    assert finished <= (await stage.stored(session.session_id)).data["n"] <= len(results)


@CHECKS.check("patch")
async def check_one_of_concurrent_expectations_wins(stage: Stage) -> None:
    """A conditional patch is decided in one step."""
    session = await stage.created(data={"owner": None})
    results = await stage.library.gather(
        *(
            partial(stage.store.patch, session.session_id, set={"owner": n}, expect={"owner": None})
            for n in range(8)
        )
    )
    winners = [result for result in results if isinstance(result, SessionData)]
    assert len(winners) == 1
    assert sum(isinstance(result, VersionConflictError) for result in results) == 7
    assert await stage.stored(session.session_id) == winners[0]


@CHECKS.check()
async def check_one_of_concurrent_creations_wins(stage: Stage) -> None:
    """Of many creations under one id, one succeeds, and its session is the one that is stored."""
    sessions = [stage.session(data={"n": n}) for n in range(8)]
    for session in sessions:
        session.session_id = sessions[0].session_id
    results = await stage.library.gather(*(partial(stage.store.create, session) for session in sessions))
    winners = [n for n, result in enumerate(results) if isinstance(result, int)]
    assert len(winners) == 1
    assert sum(isinstance(result, SessionExistsError) for result in results) == 7
    found = await stage.stored(sessions[0].session_id)
    assert (found.data, found.version) == ({"n": winners[0]}, results[winners[0]])


@CHECKS.check()
async def check_one_of_concurrent_updates_wins(stage: Stage) -> None:
    """Of many updates on condition of one version, one succeeds."""
    session = await stage.created(data={"n": -1})
    changed = [stage.session(session_id=session.session_id, data={"n": n}) for n in range(8)]
    results = await stage.library.gather(
        *(
            partial(stage.store.update, session.session_id, change, version=session.version)
            for change in changed
        )
    )
    winners = [n for n, result in enumerate(results) if isinstance(result, int)]
    assert len(winners) == 1
    assert sum(isinstance(result, VersionConflictError) for result in results) == 7
    assert (await stage.stored(session.session_id)).data == {"n": winners[0]}


@CHECKS.check("patch", "modify")
async def check_delete_wins_over_concurrent_changes(stage: Stage) -> None:
    """However a logout and changes are interleaved, the session is gone afterwards."""
    session = await stage.created(data={"n": 0})
    store, session_id = stage.store, session.session_id

    def count(found: SessionData) -> None:
        found.data["n"] += 1

    changes: list[Callable[[], Awaitable[Any]]] = [
        partial(store.patch, session_id, set={"p": 1}),
        partial(store.update, session_id, session),
        partial(store.modify, session_id, count),
    ]
    results = await stage.library.gather(*changes, partial(store.delete, session_id), *changes)
    errors = [result for result in results if isinstance(result, Exception)]
    assert all(isinstance(error, SessionNotFoundError | VersionConflictError) for error in errors), errors
    assert await store.get(session_id) is None


@CHECKS.check("rotate")
async def check_one_of_concurrent_rotations_wins(stage: Stage) -> None:
    """One session does not become two."""
    session = await stage.created(data={"n": 1})
    results = await stage.library.gather(*(partial(stage.store.rotate, session.session_id) for _ in range(6)))
    winners = [result for result in results if isinstance(result, SessionData)]
    assert len(winners) == 1
    assert sum(isinstance(result, SessionNotFoundError) for result in results) == 5
    assert await stage.store.get(session.session_id) is None
    assert await stage.stored(winners[0].session_id) == winners[0]


@CHECKS.check("delete_by_user")
async def check_log_out_everywhere_wins_over_concurrent_changes(stage: Stage) -> None:
    """What existed before the call is gone after it, though requests go on changing it."""
    user = stage.user()
    sessions = [await stage.created(user_id=user) for _ in range(6)]
    results = await stage.library.gather(
        *(partial(stage.store.update, session.session_id, session) for session in sessions),
        partial(stage.store.delete_by_user, user),
        *(partial(stage.store.update, session.session_id, session) for session in sessions),
    )
    assert results[6] == 6
    assert [await stage.store.get(session.session_id) for session in sessions] == [None] * 6


@CHECKS.check()
async def check_many_sessions_at_once(stage: Stage) -> None:
    """Answers are not mixed up."""
    sessions = [stage.session(data={"n": n}) for n in range(64)]
    await stage.library.gather(*(partial(stage.store.create, session) for session in sessions))
    found = await stage.library.gather(
        *(partial(stage.store.get, session.session_id) for session in sessions)
    )
    assert [(session.session_id, session.data) for session in found] == [
        (session.session_id, session.data) for session in sessions
    ]


@CHECKS.check("patch")
async def check_cancelled_operations_leave_the_store_usable(stage: Stage) -> None:
    """A client that hangs up at any moment harms neither the store nor other sessions."""
    store = stage.store
    other = await stage.created(data={"untouched": True})
    for seconds in CANCEL_SECONDS:
        session = await stage.created(data={"n": 0})
        fresh = stage.session()
        actions: list[Callable[[], Awaitable[Any]]] = [
            partial(store.create, fresh),
            partial(store.get, session.session_id),
            partial(store.update, session.session_id, session),
            partial(store.patch, session.session_id, set={"n": 1}),
            partial(store.modify, session.session_id, lambda found: found.data.update(n=1)),
        ]
        for action in actions:
            await stage.library.cancel_after(action, seconds)
        found = await stage.stored(session.session_id)
        assert found.data["n"] in (0, 1), "a cancelled write takes effect as a whole or not at all"
        after = await store.patch(session.session_id, set={"after": seconds})
        assert after.data["after"] == seconds
        await store.delete(session.session_id)
        assert await store.get(session.session_id) is None
    assert await stage.stored(other.session_id) == other


@CHECKS.check()
async def check_cancelled_first_operation(stage: Stage) -> None:
    """A store whose very first operation is cancelled still connects at the next."""
    await stage.library.cancel_after(partial(stage.store.get, stage.session().session_id), 0.0)
    session = await stage.created(data={"n": 1})
    assert session.data == {"n": 1}
