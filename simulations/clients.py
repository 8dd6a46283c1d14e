"""A client process: the real dialog, driven as `greenroom.drivers` drives it, and callers that use it."""

from collections.abc import Callable
from random import Random
from typing import Any

from greenroom import wire
from greenroom.dialog import Abort, Close, Dialog, DialogSettings, Open
from greenroom.dialog.links import Link
from greenroom.dialog.operations import Kind, Single
from greenroom.errors import GreenroomError
from simulations.network import Attempt, End, Network
from simulations.processes import Process
from simulations.timeline import Machine

Outcome = Callable[[wire.Reply | None, GreenroomError | None], None]


class WatchedDialog(Dialog):
    """A dialog that says when it takes a server to have broken the protocol, and when it changes clusters."""

    complaint: Callable[[str], None]
    went_over: Callable[[], None]

    @property
    def identity(self) -> bytes:
        """Of which cluster it has a map; empty before the first."""
        return b"" if self._map is None else self._map.identity

    def _remap(self, now_ns: int) -> None:
        before = self.identity
        super()._remap(now_ns)
        if before and self.identity != before:
            self.went_over()

    def _unlink(self, link: Link, reason: str, *rest: Any, **more: Any) -> None:
        if reason.startswith("it broke the protocol"):
            self.complaint(reason)
        super()._unlink(link, reason, *rest, **more)


class ClientProcess(Process):
    """A process with one dialog. `perform` and `gather` submit an operation and call back once."""

    def __init__(
        self,
        network: Network,
        machine: Machine,
        random: Random,
        identity: bytes,
        settings: DialogSettings,
        complaint: Callable[[str], None],
        went_over: Callable[[], None],
    ) -> None:
        super().__init__(network, machine, machine.name, random)
        self.identity = identity
        self.dialog = WatchedDialog(identity, settings, Random(random.random()))
        self.dialog.complaint = complaint
        self.dialog.went_over = went_over
        self._attempts: dict[int, Attempt] = {}
        self._sockets: dict[int, End] = {}
        self._timer_ns = 1 << 62
        self._flush_due = False

    def perform(self, request: Single, kind: Kind, outcome: Outcome) -> None:
        """Submit an operation on one session. Raises what `Dialog.submit` raises."""
        self.dialog.submit(self.machine.now_ns(), request, kind, outcome)
        self._settle()

    def gather(self, request: wire.Fanout, kind: Kind, outcome: Outcome) -> None:
        """Submit an operation that every shard answers. Raises what `Dialog.gather` raises."""
        self.dialog.gather(self.machine.now_ns(), request, kind, outcome)
        self._settle()

    # --- as a driver -------------------------------------------------------------------------------------

    def _settle(self) -> None:
        dialog = self.dialog
        if dialog.replies:
            replies, dialog.replies = dialog.replies, []
            for token, reply in replies:
                token(reply, None)  # type: ignore[operator]
        if dialog.failures:
            failures, dialog.failures = dialog.failures, []
            for token, error in failures:
                token(None, error)  # type: ignore[operator]
        board = dialog.board
        while board.actions:
            actions = board.actions[:]
            board.actions.clear()
            for action in actions:
                match action:
                    case Open():
                        self._open(action.link, action.address)
                    case Abort():
                        self._drop(action.link, reset=True)
                    case Close():
                        self._drop(action.link, reset=False)
        if board.dirty and not self._flush_due:
            self._flush_due = True
            self.timeline.after(0, self.tell, 0, self._flush)
        if dialog.wake_ns < self._timer_ns:
            self._timer_ns = dialog.wake_ns
            self.timeline.at(self.machine.moment(dialog.wake_ns), self.tell, 0, self._tick, dialog.wake_ns)

    def _flush(self) -> None:
        self._flush_due = False
        for number, data in self.dialog.board.take_writes():
            end = self._sockets.get(number)
            if end is not None:
                self.network.send(end, bytes(data))

    def _tick(self, due: int) -> None:
        if due != self._timer_ns:
            return
        self._timer_ns = 1 << 62
        self.dialog.tick(self.machine.now_ns())
        self._settle()

    def _open(self, number: int, address: str) -> None:
        def opened(end: End) -> None:
            self._attempts.pop(number, None)
            self._sockets[number] = end
            end.on_data = lambda payload: self._received(number, payload)
            end.on_closed = lambda reason: self._lost(number, reason)
            self.dialog.opened(self.machine.now_ns(), number)
            self._settle()

        def failed(reason: str) -> None:
            self._attempts.pop(number, None)
            self._lost(number, reason)

        self._attempts[number] = self.network.connect(self, address, opened, failed, "client")

    def _received(self, number: int, payload: Any) -> None:
        now_ns = self.machine.now_ns()
        if len(payload) > 8 and self.random.random() < 0.05:
            cut = self.random.randrange(1, len(payload))
            self.dialog.received(now_ns, number, payload[:cut])
            payload = payload[cut:]
        self.dialog.received(now_ns, number, payload)
        self._settle()

    def _lost(self, number: int, reason: str) -> None:
        self._sockets.pop(number, None)
        self.dialog.lost(self.machine.now_ns(), number, reason)
        self._settle()

    def _drop(self, number: int, *, reset: bool) -> None:
        attempt = self._attempts.pop(number, None)
        if attempt is not None:
            attempt.cancel()
        end = self._sockets.pop(number, None)
        if end is not None:
            self.network.close(end, reset=reset)
