"""A client process: the real dialog in the real runner, on simulated sockets."""

from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

from msgspec.structs import replace

from greenroom import silence, wire
from greenroom.dialog import Dialog, DialogSettings
from greenroom.dialog.links import Lane, Link
from greenroom.dialog.near import Entry, NearCache
from greenroom.dialog.operations import Kind, Single
from greenroom.dialog.runner import DialogRunner
from greenroom.dialog.runners import Runners
from greenroom.errors import GreenroomError
from greenroom.framing import encode_greeting
from greenroom.identities import DEFAULT_NAMESPACE
from greenroom.negotiation import hello
from greenroom.tokens import Shown
from greenroom_cluster.links.handshake import stamped
from simulations.cluster.connections import CLUSTER, challenge_of, holder
from simulations.kernel.network import Attempt, End, Network
from simulations.kernel.processes import Process
from simulations.kernel.timeline import Machine

FORMER_CODE_MAX = wire.FailureCode.INVALID
"""The last code of a `Failed` that version 3 of the protocol has."""

Outcome = Callable[[wire.Reply | None, GreenroomError | None], None]


class WatchedDialog(Dialog):
    """A dialog that reports servers that break the protocol, and its own change to another cluster."""

    complaint: Callable[[str], None]
    went_over: Callable[[], None]

    @property
    def identity(self) -> bytes:
        """The identity of the cluster whose map it has; empty before the first map."""
        return b"" if self._map is None else self._map.identity

    def lane_of(self, point: int) -> Lane | None:
        """Return the lane to the primary of a point's shard, by the map that it has."""
        return self._lanes.lane_of(point)

    def copied(self, machine: Machine) -> "WatchedDialog":
        """Return a copy, as a fork makes it; nobody in the child waits for what is under way."""
        copy: WatchedDialog = deepcopy(self, {id(machine): machine})
        for operation in copy._ledger.pending.values():
            operation.token = _nobody
        return copy

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
        entropy: Callable[[int], bytes],
        settings: DialogSettings,
        complaint: Callable[[str], None],
        went_over: Callable[[], None],
        namespace: str = DEFAULT_NAMESPACE,
        near: NearCache | None = None,
    ) -> None:
        super().__init__(network, machine, machine.name, random)
        self.holder = holder("client", machine.name, namespace)
        self.dialog = WatchedDialog(entropy, settings, Random(random.random()), near)
        # When the entries of its near cache came; and who looks at it whenever more comes.
        self.filled_ns: dict[Entry, int] = {}
        self.on_received: Callable[[ClientProcess], None] | None = None
        self.identity = self.dialog.board.client_id
        # By a certificate or by a token, it is the same holder.
        proven = None if network.secret else self.holder
        known, within = stamped(hello(CLUSTER, wire.ROLE_CLIENT, self.identity), proven)
        self.known_as = known + within.encode()
        self.tenant = int(namespace != DEFAULT_NAMESPACE)
        self.dialog.complaint = complaint
        self.dialog.went_over = went_over
        self._use(_Runner(self, self.dialog))
        # Which client it is: on which machine it runs, and what it keeps.
        self.number = 0
        # Whether it speaks version 3 of the protocol, as former releases do.
        self.former = False

    def _use(self, runner: "_Runner") -> None:
        self.runner = runner
        self.dialog = runner.dialog
        self.perform = runner.perform
        self.hit = runner.hit
        self.gather = runner.gather
        self.watch = runner.watch

    def forked_from(self, parent: "ClientProcess") -> None:
        """Begin as the child of a fork, with all that the parent has in its memory, but no connection.

        What remains of that is for the product to say.
        """
        runners: Runners[_Runner] = Runners()
        runners.put(parent, parent.runner)
        runners.forked()
        kept = runners.get(parent)
        if kept is not None:
            copy = _Runner(self, kept.dialog.copied(parent.machine))
            self._use(copy)
            copy.go_on()

    def may_show(self, entry: Entry, now_ns: int) -> bool:
        """Whether an entry of the near cache may be shown, as the rules say."""
        link = entry.link
        lane, lease = link.lane, link.lease
        if lane is None or lease is None or lane.link is not link:
            return False
        if self.dialog.lane_of(entry.point) is not lane:
            return False
        return now_ns < lease.until_ns and now_ns < entry.until_ns

    def received(self) -> None:
        """Note which entries have come, and have somebody look at them."""
        near = self.dialog.near
        if near is None:
            return
        known, now = self.filled_ns, self.timeline.now
        self.filled_ns = {each: known.get(each, now) for each in near.entries.values()}
        if self.on_received is not None:
            self.on_received(self)


def _nobody(_reply: wire.Reply | None, _error: GreenroomError | None) -> None:
    """Hear of what a parent's callers have asked."""


class _Runner(DialogRunner):
    """The dialog of a process, on simulated sockets."""

    dialog: WatchedDialog

    def __init__(self, process: ClientProcess, dialog: WatchedDialog) -> None:
        super().__init__(dialog)
        self._process = process
        self._attempts: dict[int, Attempt] = {}
        self._sockets: dict[int, End] = {}

    def perform(self, request: Single, kind: Kind, outcome: Outcome) -> None:
        """Submit an operation on one session. Raises what `Dialog.submit` raises."""
        self._submit(self._now_ns(), request, kind, outcome)

    def gather(self, request: wire.Fanout, kind: Kind, outcome: Outcome) -> None:
        """Submit an operation that every shard answers. Raises what `Dialog.gather` raises."""
        self.dialog.gather(self._now_ns(), request, kind, outcome)
        self._settle()

    def go_on(self) -> None:
        """Have the dialog be told of the time again."""
        self._settle()

    # --- what DialogRunner asks for ----------------------------------------------------------------------

    def _now_ns(self) -> int:
        return self._process.machine.now_ns()

    def _clocks(self) -> tuple[int, int | None]:
        machine = self._process.machine
        return machine.wall_us(), machine.now_ns()

    def _warn(self, notice: str) -> None:
        if notice.startswith("who was told"):  # what judges it has failed
            self._process.dialog.complaint(notice)

    def _challenge(self, _number: int, address: str) -> Shown | None:
        return challenge_of(self._process, address)

    def _opened(self, number: int) -> None:
        super()._opened(number)
        link = self.dialog.board.get(number)
        if self._process.former and link is not None and link.asked is not None:
            link.asked = replace(link.asked, protocol_max=0)
            link.greeting = encode_greeting(link.asked)

    def _hand_out(self, replies: list[tuple[Any, wire.Reply]]) -> None:
        for outcome, reply in replies:
            if self._process.former and isinstance(reply, wire.Failed) and reply.code > FORMER_CODE_MAX:
                self._process.dialog.complaint(f"version 3 knows no failure {reply.code}")
            outcome(reply, None)

    def _fail(self, token: Any, error: GreenroomError) -> None:
        token(None, error)

    def _schedule_flush(self) -> None:
        self._process.timeline.after(0, self._process.tell, 0, self._flush)

    def _schedule_tick(self, at_ns: int) -> None:
        process = self._process
        process.timeline.at(process.machine.moment(at_ns), process.tell, 0, self._due, at_ns)

    def _due(self, at_ns: int) -> None:
        if at_ns == self._timer_ns:
            self._tick()

    def _write(self, number: int, data: bytes) -> None:
        end = self._sockets.get(number)
        if end is not None:
            self._process.network.send(end, bytes(data))

    def _open(self, number: int, address: str, node: str) -> None:
        def opened(end: End) -> None:
            self._attempts.pop(number, None)
            self._sockets[number] = end
            end.on_data = lambda payload: self._received(number, payload)
            end.on_closed = lambda reason: self._lost(number, reason)
            self._opened(number)
            self._settle()

        def failed(reason: str) -> None:
            self._attempts.pop(number, None)
            self._lost(number, reason)

        self._attempts[number] = self._process.network.connect(
            self._process, address, opened, failed, "client", silence.STORE
        )

    def _received(self, number: int, payload: Any) -> None:
        now_ns = self._now_ns()
        if len(payload) > 8 and self._process.random.random() < 0.05:
            cut = self._process.random.randrange(1, len(payload))
            self.dialog.received(now_ns, number, payload[:cut])
            payload = payload[cut:]
        self.dialog.received(now_ns, number, payload)
        self._settle()
        self._process.received()

    def _lost(self, number: int, reason: str) -> None:
        self._sockets.pop(number, None)
        self.dialog.lost(self._now_ns(), number, reason)
        self._settle()

    def _drop(self, number: int, *, reset: bool) -> None:
        attempt = self._attempts.pop(number, None)
        if attempt is not None:
            attempt.cancel()
        end = self._sockets.pop(number, None)
        if end is not None:
            self._process.network.close(end, reset=reset)
