"""Ends that another user of the file has caused are told, within the looks that they take."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from greenroom import Ended, SqliteStore, UnavailableError, new_session_id
from greenroom.sqlite import watching
from greenroom.testing import ManualClock, library_named
from greenroom.testing.contract.stage import Stage

TOLD_SECONDS = 10.0
"""For a busy machine: it takes a twentieth of a second."""


class Two:
    """Two stores of one file, as two processes have them. The first watches."""

    def __init__(self, library: str, path: Path) -> None:
        self.library = library_named(library)
        self.clock = ManualClock()
        self.first = SqliteStore(path, clock=self.clock)
        self.second = SqliteStore(path, clock=self.clock)
        self.stage = Stage(self.second, self.library, self.clock)
        self.told: dict[str, Any] = {}

    def watch(self, session_id: str) -> None:
        self.first.watch(session_id, lambda outcome: self.told.setdefault(session_id, outcome))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until this is so."""
        deadline = monotonic() + TOLD_SECONDS
        while not condition():
            assert monotonic() < deadline, f"told: {len(self.told)}"
            await self.library.sleep(0.005)

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            async with self.first, self.second:
                await story()

        self.library.run(main, 60.0)


def test_what_another_process_ends_is_told(library: str, tmp_path: Path) -> None:
    two = Two(library, tmp_path / "sessions.db")

    async def story() -> None:
        user = two.stage.user()
        sessions = [await two.stage.created(user_id=user) for _ in range(3)]
        other = await two.stage.created()
        for each in (*sessions, other):
            two.watch(each.session_id)
        await two.second.delete(sessions[0].session_id)
        await two.until(lambda: len(two.told) == 1)
        await two.second.rotate(sessions[1].session_id)
        await two.until(lambda: len(two.told) == 2)
        await two.second.delete_by_user(user)
        await two.until(lambda: len(two.told) == 3)
        two.clock.advance(4000)
        await two.until(lambda: len(two.told) == 4)
        assert two.told[other.session_id] == Ended("expiry")
        assert {each.reason for each in two.told.values()} == {"unknown", "expiry"}

    two.play(story)


def test_a_session_created_again_under_its_id_has_ended(library: str, tmp_path: Path) -> None:
    two = Two(library, tmp_path / "sessions.db")

    async def story() -> None:
        session = await two.stage.created()
        looks = 0
        look = watching.WatchedRows.attend

        async def counted(self: watching.WatchedRows) -> None:
            nonlocal looks
            await look(self)
            looks += 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watching.WatchedRows, "attend", counted)
            two.watch(session.session_id)
            await two.until(lambda: looks >= 2)
            two.clock.advance(1)
            await two.second.delete(session.session_id)
            await two.second.create(two.stage.session(session_id=session.session_id))
            await two.until(lambda: len(two.told) == 1)

    two.play(story)


def test_more_sessions_than_one_look_takes_are_all_looked_at(library: str, tmp_path: Path) -> None:
    two = Two(library, tmp_path / "sessions.db")

    async def story() -> None:
        ids = [new_session_id() for _ in range(watching.LOOKS_MAX + 100)]
        for each in ids:
            await two.first.create(two.stage.session(session_id=each))
            two.watch(each)
        for each in (ids[0], ids[-1]):
            await two.second.delete(each)
        await two.until(lambda: len(two.told) == 2)
        assert two.told.keys() == {ids[0], ids[-1]}
        await two.second.patch(ids[1], set={"n": 1})
        for each in ids[2:-1]:
            await two.second.delete(each)
        await two.until(lambda: len(two.told) == len(ids) - 1)
        assert ids[1] not in two.told

    two.play(story)


def test_a_store_that_is_closed_tells_so(library: str, tmp_path: Path) -> None:
    two = Two(library, tmp_path / "sessions.db")

    async def story() -> None:
        session = await two.stage.created()
        two.watch(session.session_id)
        await two.first.aclose()
        assert isinstance(two.told[session.session_id], UnavailableError)

    two.play(story)
