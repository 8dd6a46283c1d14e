"""The reply to a lone request: its caller goes on at once, and otherwise as if it had awaited a future."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable

import pytest

from greenroom import UnavailableError
from greenroom.cluster_store import ClusterStore
from greenroom.drivers import Runner
from greenroom.drivers.lone_reply import LoneReply
from greenroom.ids import new_session_id
from tests.store.client.fake_cluster import FakeCluster

_mark = contextvars.ContextVar("_mark", default="of nobody")


async def outcome_of(reply: LoneReply, told: list[object]) -> None:
    try:
        told.append(await reply)
    except BaseException as error:
        told.append(error)
        raise


async def waiting(told: list[object]) -> tuple[LoneReply, asyncio.Task[None]]:
    """Return a reply, and a task that waits for it."""
    reply = LoneReply(asyncio.get_running_loop())
    task = asyncio.create_task(outcome_of(reply, told))
    await asyncio.sleep(0)
    return reply, task


async def in_a_callback(act: Callable[[], None]) -> None:
    """Have `act` called by the loop, as what reads a socket is, in a context of its own."""
    called = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001  told to whoever waits
            called.set_exception(error)
        else:
            called.set_result(None)

    asyncio.get_running_loop().call_soon(call, context=contextvars.Context())
    await called


def test_its_caller_goes_on_while_the_reply_is_read() -> None:
    async def main() -> None:
        told: list[object] = []
        reply, task = await waiting(told)

        def read() -> None:
            reply.set_result("found")
            assert told == []
            reply.wake()
            assert told == ["found"]

        await in_a_callback(read)
        await task

    asyncio.run(main())


def test_in_the_middle_of_another_task_its_caller_goes_on_later() -> None:
    async def main() -> None:
        told: list[object] = []
        reply, task = await waiting(told)
        reply.set_result("found")
        reply.wake()
        assert told == []
        await task
        assert told == ["found"]

    asyncio.run(main())


def test_in_a_loop_that_may_be_entered_again_its_caller_goes_on_later() -> None:
    async def main() -> None:
        told: list[object] = []
        reply, task = await waiting(told)
        # What nest_asyncio leaves: its loop may call a reader again while that is still under way.
        asyncio.get_running_loop()._nest_patched = True  # type: ignore[attr-defined]

        def read() -> None:
            reply.set_result("found")
            reply.wake()
            assert told == []

        await in_a_callback(read)
        await task
        assert told == ["found"]

    asyncio.run(main())


def test_its_caller_keeps_its_own_context() -> None:
    async def main() -> None:
        reply = LoneReply(asyncio.get_running_loop())
        seen: list[str] = []

        async def marked() -> None:
            _mark.set("of the caller")
            await reply
            seen.append(_mark.get())

        task = asyncio.create_task(marked())
        await asyncio.sleep(0)

        def read() -> None:
            reply.set_result("found")
            reply.wake()
            seen.append(_mark.get())

        await in_a_callback(read)
        await task
        assert seen == ["of the caller", "of nobody"]

    asyncio.run(main())


def test_an_error_is_raised_where_it_is_awaited() -> None:
    async def main() -> None:
        told: list[object] = []
        reply, task = await waiting(told)
        reply.set_exception(UnavailableError("no node"))
        assert told == []
        with pytest.raises(UnavailableError, match="no node"):
            await task
        assert len(told) == 1

    asyncio.run(main())


def test_an_error_holds_on_to_nothing_once_it_is_dealt_with() -> None:
    class Held:
        pass

    async def main() -> None:
        held: list[weakref.ref[Held]] = []

        async def failing(reply: LoneReply) -> None:
            local = Held()
            held.append(weakref.ref(local))
            await reply

        async def calling(reply: LoneReply) -> str:
            try:
                await failing(reply)
            except UnavailableError as error:
                return str(error)
            return ""

        reply = LoneReply(asyncio.get_running_loop())
        task = asyncio.create_task(calling(reply))
        await asyncio.sleep(0)
        reply.set_exception(UnavailableError("no node"))
        del reply
        assert await task == "no node"
        assert held[0]() is None

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_a_coroutine_that_no_task_runs_is_told_so() -> None:
    async def main() -> None:
        coroutine = outcome_of(LoneReply(asyncio.get_running_loop()), [])
        coroutine.send(None)
        with pytest.raises(asyncio.InvalidStateError, match="no reply"):
            coroutine.send(None)

    asyncio.run(main())


def test_a_caller_whose_waking_was_interrupted_can_be_cancelled() -> None:
    async def main() -> None:
        told: list[object] = []
        reply, task = await waiting(told)
        reply.set_result("found")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_whoever_comes_after_the_reply_is_called_too() -> None:
    async def main() -> None:
        reply = LoneReply(asyncio.get_running_loop())
        told: list[object] = []
        coroutine = outcome_of(reply, told)
        assert coroutine.send(None) is reply  # type: ignore[func-returns-value]
        reply.set_result("found")
        called = asyncio.get_running_loop().create_future()
        reply.add_done_callback(called.set_result)
        assert await called is reply
        with pytest.raises(StopIteration):
            coroutine.send(None)
        assert told == ["found"]

    asyncio.run(main())


def test_a_caller_that_is_cancelled_gets_no_reply() -> None:
    async def main() -> None:
        told: list[object] = []
        reply, task = await waiting(told)
        task.cancel("enough")
        assert reply.done()
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        reply.wake()
        assert not reply.cancel()

    asyncio.run(main())


def test_a_reply_that_is_there_already_is_not_waited_for() -> None:
    async def main() -> None:
        reply = LoneReply(asyncio.get_running_loop())
        reply.set_result("found")
        reply.wake()
        assert await reply == "found"

    asyncio.run(main())


def test_a_store_with_one_caller_takes_no_turn_of_the_loop_to_wake_it(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            # Always the same one, so that every read from now on is on connections that stand.
            session_id = new_session_id()
            await store.get(session_id)
            runner = store._registry.current()
            read = runner._readable  # type: ignore[attr-defined]  # this loop is asyncio's
            reading = False

            def noting(connection: object) -> None:
                nonlocal reading
                reading = True
                read(connection)
                reading = False

            for connection in runner._sockets.values():  # type: ignore[attr-defined]
                if connection.reading:
                    asyncio.get_running_loop().add_reader(connection.sock, noting, connection)
            for _ in range(3):
                await store.get(session_id)
                assert reading

    asyncio.run(main())


def test_a_lone_caller_gets_its_reply_whatever_fails_after_it(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            session_id = new_session_id()
            await store.get(session_id)
            failures: list[object] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda _, told: failures.append(told["exception"])
            )
            settle = Runner._settle

            def failing(runner: Runner) -> None:
                replied = bool(runner.dialog.replies)
                settle(runner)
                if replied:
                    raise OSError("no thread can be started")

            monkeypatch.setattr(Runner, "_settle", failing)
            assert await store.get(session_id) is None
            monkeypatch.undo()
            await asyncio.sleep(0)
            assert [str(each) for each in failures] == ["no thread can be started"]

    asyncio.run(main())


def test_a_lone_caller_that_gives_up_disturbs_no_later_one(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with ClusterStore(cluster.address) as store:
            await store.get(new_session_id())
            for _ in range(20):
                given_up = asyncio.create_task(store.get(new_session_id()))
                await asyncio.sleep(0)
                given_up.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await given_up
                assert await store.get(new_session_id()) is None

    asyncio.run(main())
