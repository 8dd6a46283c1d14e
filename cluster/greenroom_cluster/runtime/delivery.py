"""Passes on the messages of a connection as they arrive, in callbacks of a `Poller`.

The task that runs a delivery sleeps unless something cannot be done in a callback: waiting for room because
the other side does not read, giving others a turn between the parts of a large read, or ending.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import trio

from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.poller import Poller

MESSAGES_PER_CALL_MAX = 256


class Delivery:
    """Calls `handle(messages)` for the messages that `connection` receives; `handle` never blocks.

    `patient`: nothing is read while much is queued for the other side. That is for clients, whose requests
    fill the queue. From a peer, a full queue needs acknowledgements, so it must be read.
    """

    __slots__ = (
        "_connection",
        "_descriptor",
        "_failure",
        "_halted",
        "_handle",
        "_patient",
        "_poller",
        "_rest",
    )

    def __init__(
        self,
        connection: FramedConnection,
        poller: Poller,
        handle: Callable[[list[Any]], None],
        *,
        patient: bool = False,
    ) -> None:
        self._connection = connection
        self._poller = poller
        self._handle = handle
        self._patient = patient
        self._descriptor = -1
        self._halted = trio.Event()
        self._rest: list[Any] = []
        self._failure: Exception | None = None

    async def run(self) -> NoReturn:
        """Deliver until the connection ends.

        Raises ConnectionEndedError, RemoteProtocolError as `FramedConnection.receive` does, and what `handle`
        raises.
        """
        connection = self._connection
        connection.on_end = self._halt
        try:
            # Messages that arrived with the first frame.
            self._resume()
            self._receive()
            while True:
                await self._halted.wait()
                self._halted = trio.Event()
                if self._failure is not None:
                    raise self._failure
                while self._rest:
                    await trio.lowlevel.checkpoint()
                    await self._room()
                    part, self._rest = _split(self._rest)
                    self._handle(part)
                await self._room()
                self._resume()
                self._receive()
        finally:
            connection.on_end = None
            self._halt()
            self._failure = None

    def _receive(self) -> None:
        """Read once and pass the messages on."""
        try:
            messages = self._connection.receive_nowait()
            if len(messages) > MESSAGES_PER_CALL_MAX:
                messages, self._rest = _split(messages)
            if messages:
                self._handle(messages)
                if self._rest or (self._patient and self._connection.crowded):
                    self._halt()
        except Exception as error:  # noqa: BLE001 - it is the connection's task that has to fail, not the poller
            self._failure = error
            self._halt()

    async def _room(self) -> None:
        if self._patient:
            await self._connection.room()

    def _resume(self) -> None:
        if not self._connection.ended:
            descriptor = self._connection.fileno()
            self._poller.watch(descriptor, self._receive)
            self._descriptor = descriptor

    def _halt(self) -> None:
        """Stop reading and wake the task."""
        if self._descriptor >= 0:
            self._poller.unwatch(self._descriptor)
            self._descriptor = -1
        self._halted.set()


def _split(messages: list[Any]) -> tuple[list[Any], list[Any]]:
    if len(messages) <= MESSAGES_PER_CALL_MAX:
        return messages, []
    return messages[:MESSAGES_PER_CALL_MAX], messages[MESSAGES_PER_CALL_MAX:]
