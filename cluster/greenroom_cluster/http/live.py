"""What viewers of the dashboard share: one look a second, and none while nobody watches."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio

from greenroom.errors import UnavailableError, UsageError
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.dashboard.board import Board, Look
from greenroom_cluster.dashboard.editions import Editions
from greenroom_cluster.http.looks import Looks
from greenroom_cluster.metrics.readings import Reading
from greenroom_cluster.runtime.tasks import open_tasks

INTERVAL_SECONDS = 1.0
_ANSWER_SECONDS = 5.0


class Sent(msgspec.Struct):
    """How much a viewer was sent: up to which edition, and which look. Changed by `Live.news`."""

    edition: int = 0
    seconds: float = float("-inf")


class Live:
    """What is shown to all viewers of one port."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._board = Board()
        self._editions = Editions()
        self._turn = trio.Lock()
        self._began = float("-inf")
        self._looked = float("-inf")
        self._at = ""
        self._error = ""

    async def next(self) -> None:
        """Wait for the next look; whoever is first takes it, and the others have it."""
        await trio.sleep_until(self._began + INTERVAL_SECONDS)
        async with self._turn:
            if trio.current_time() >= self._began + INTERVAL_SECONDS:
                self._began = trio.current_time()
                await self._look()

    async def _look(self) -> None:
        found: list[ClusterStatus] = []
        told: list[Mapping[str, Sequence[Reading]]] = []

        async def look() -> None:
            found.append(await self._looks.look())

        async def read() -> None:
            told.append(await self._looks.readings())

        try:
            with trio.fail_after(_ANSWER_SECONDS):
                async with open_tasks() as tasks:
                    tasks.start_soon(look)
                    tasks.start_soon(read)
        except (UnavailableError, UsageError) as error:
            self._error = str(error)
        except trio.TooSlowError:
            self._error = "the cluster did not answer in time"
        else:
            self._error = ""
            self._looked, now = trio.current_time(), datetime.now(UTC)
            self._at = now.isoformat(timespec="seconds")
            self._board.note(Look(found[0], told[0], self._looked, now))
            self._editions.publish(self._board.parts())

    def news(self, sent: Sent) -> dict[str, Any]:
        """Return what a viewer was not sent yet, and note that it is."""
        news = {
            "at": self._at,
            "error": self._error,
            "parts": self._editions.since(sent.edition),
            "points": self._board.points(sent.seconds),
        }
        sent.edition, sent.seconds = self._editions.number, self._looked
        return news
