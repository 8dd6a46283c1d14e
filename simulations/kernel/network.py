"""TCP between machines: connections keep order, wait out losses, break, and look alive when they are not.

What TCP allows is what happens here. Within one direction of a connection bytes keep their order; a lost
packet is sent again, so a loss is a delay that holds up what follows. While the way is cut bytes wait at the
sender, until they get through or, after the user timeout, the sender's side of the connection ends. The other
side is told nothing, so it may believe in a connection that is gone ("half-open") until it sends on it.
Whoever sends to a socket that no longer exists gets a reset, if that gets through. A stopped process's kernel
accepts connections and keeps what arrives. An abort (linger 0) drops what was not sent yet; what is under way
still arrives.

Duplicates do not exist within TCP; they come about when a side repeats on a new connection what it sent on
an old one. `TrafficRule`s change how what is sent fares; they are asked in order and add up.
"""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from greenroom import silence as silences
from greenroom.deadlines import NEVER_NS
from greenroom.framing import encode_frames
from greenroom.silence import Silence
from simulations.kernel.timeline import MILLISECOND, SECOND, Machine, Timeline
from simulations.kernel.traffic import TrafficRule

_SYN_RETRY_NS = 1 * SECOND
_RETRANSMIT_NS = 200 * MILLISECOND
_FRAME_BYTES_MAX = 16 << 20


class Owner(Protocol):
    """The process that a socket belongs to."""

    alive: bool
    paused: bool
    machine: Machine
    ends: dict["End", None]

    def tell(self, source: int, call: Callable[..., None], *args: Any) -> None:
        """Have the process act on something."""

    def drop_unread(self, source: int) -> None:
        """Lose what waits unread on a socket."""


class End:
    """One side of a connection. `on_data(payload)` and `on_closed(reason)` are called in its process."""

    __slots__ = (
        "acks_watched",
        "arrival",
        "held",
        "host",
        "number",
        "on_closed",
        "on_data",
        "open",
        "peer",
        "process",
        "queued_until",
        "reply_lost",
        "silence",
        "tag",
        "unread",
    )

    def __init__(self, process: Owner, number: int, silence: Silence) -> None:
        self.process = process
        self.host = process.machine.name
        self.number = number
        self.open = True
        self.peer: End = self
        self.arrival = 0
        self.queued_until = 0
        self.held: list[Any] | None = None
        self.acks_watched = False
        self.reply_lost = False
        self.silence = silence
        self.unread: list[tuple[Callable[..., None], Any]] | None = None
        self.tag = ""
        self.on_data: Callable[[Any], None] = _ignore
        self.on_closed: Callable[[str], None] = _ignore

    @property
    def user_timeout_ns(self) -> int:
        """How long what this side sent may go unacknowledged."""
        return round(self.silence.user_timeout_seconds * SECOND)


class Attempt:
    """A connection being opened; `cancel` gives it up."""

    __slots__ = ("cancelled", "on_failed", "on_open", "process", "silence", "tag")

    def __init__(
        self,
        process: Owner,
        on_open: Callable[[End], None],
        on_failed: Callable[[str], None],
        tag: str,
        silence: Silence,
    ) -> None:
        self.silence = silence
        self.process = process
        self.on_open = on_open
        self.on_failed = on_failed
        self.tag = tag
        self.cancelled = False

    def cancel(self) -> None:
        """Give it up; nothing is reported any more."""
        self.cancelled = True


def _ignore(*_: Any) -> None:
    pass


def _size(payload: Any) -> int:
    """Return how many bytes a payload has on the wire: bytes, a mark, or a list of messages."""
    if isinstance(payload, bytes | bytearray):
        return len(payload)
    return len(encode_frames(payload, _FRAME_BYTES_MAX)) if isinstance(payload, list) else 0


_CLOSE = object()
_RESET = object()


class Network:
    """All machines and the ways between them."""

    def __init__(self, timeline: Timeline, random: Random, latency_ns: int, jitter_ns: int) -> None:
        self.timeline = timeline
        self.random = random
        self.machines: dict[str, Machine] = {}
        self.secret = b""
        """What the processes of the cluster prove that they know; empty: they have certificates."""
        self.coordinators = ""
        """Where coordinators listen, as it is told to those who follow them."""
        self.tokens: Any = None
        """What some apps show instead of a certificate; None: all have certificates."""
        self.rules: list[TrafficRule] = []
        self.happened: Counter[str] = Counter()
        self.listener: Callable[[End, Any, int], None] | None = None
        """Hears everything that is sent: from which end, what, and when it is to arrive."""
        self._latency_ns = latency_ns
        self._jitter_ns = jitter_ns
        self._cuts: dict[tuple[str, str], int] = {}
        self._listeners: dict[str, tuple[Owner, Callable[[End], None]]] = {}
        self._holding: dict[End, None] = {}
        self._ends = 0

    def machine(self, name: str, rate: int = 1_000_000) -> Machine:
        """Return the machine of that name, a new one if there is none."""
        found = self.machines.get(name)
        if found is None:
            found = self.machines[name] = Machine(self.timeline, name, rate)
        return found

    # --- ways --------------------------------------------------------------------------------------------

    def cut(self, source: str, destination: str) -> None:
        """Let nothing through in this direction. Cuts of the same way count."""
        way = (source, destination)
        self._cuts[way] = self._cuts.get(way, 0) + 1

    def mend(self, source: str, destination: str) -> None:
        """Take back one cut of this way."""
        way = (source, destination)
        left = self._cuts.get(way, 0) - 1
        if left > 0:
            self._cuts[way] = left
            return
        self._cuts.pop(way, None)
        self._flush()

    def mend_all(self) -> None:
        """Take back every cut and every rule."""
        self._cuts.clear()
        self.rules.clear()
        self._flush()

    def is_cut(self, source: str, destination: str) -> bool:
        """Whether nothing gets through in this direction."""
        return bool(self._cuts) and (source, destination) in self._cuts

    def _flush(self) -> None:
        for end in list(self._holding):
            if not self.is_cut(end.host, end.peer.host):
                self.timeline.after(self.random.randrange(2 * _RETRANSMIT_NS), self._release, end)

    def _release(self, end: End) -> None:
        if end.held is None or self.is_cut(end.host, end.peer.host):
            return
        held, end.held = end.held, None
        self._holding.pop(end, None)
        for payload in held:
            self._arrive(end, payload)

    def _delay(self, end: End) -> int:
        delay = self._latency_ns + int(self.random.random() * self._jitter_ns)
        if self.rules:
            for rule in self._rules_of(end):
                delay += rule.delay_ns
                if rule.jitter_ns:
                    delay += int(self.random.random() * rule.jitter_ns)
                wait = _RETRANSMIT_NS
                while rule.loss and delay < end.user_timeout_ns and self.random.random() < rule.loss:
                    self.happened["packet lost"] += 1
                    delay += wait
                    wait *= 2
        return delay

    # --- connecting --------------------------------------------------------------------------------------

    def listen(self, process: Owner, address: str, accept: Callable[[End], None]) -> None:
        """Accept connections to this address in that process."""
        self._listeners[address] = (process, accept)

    def unlisten(self, process: Owner) -> None:
        """Forget what the process listened on."""
        for address in [each for each, (owner, _) in self._listeners.items() if owner is process]:
            del self._listeners[address]

    def connect(
        self,
        process: Owner,
        address: str,
        on_open: Callable[[End], None],
        on_failed: Callable[[str], None],
        tag: str = "",
        silence: Silence | None = None,
    ) -> Attempt:
        """Begin to connect; then call one of the two in the process, unless the attempt is cancelled.

        An address is `"machine:port"`. `silence` is the patience of this side, by default
        that of a link; the other side has that of a server.
        """
        attempt = Attempt(process, on_open, on_failed, tag, silence or silences.LINK)
        self.timeline.after(self._latency_ns, self._syn, attempt, address)
        return attempt

    def _syn(self, attempt: Attempt, address: str) -> None:
        if attempt.cancelled or not attempt.process.alive:
            return
        source, destination = attempt.process.machine.name, address.partition(":")[0]
        machine = self.machines.get(destination)
        cut = self.is_cut(source, destination) or self.is_cut(destination, source)
        if machine is None or not machine.up or cut:
            self.timeline.after(_SYN_RETRY_NS, self._syn, attempt, address)
            return
        found = self._listeners.get(address)
        if found is None:
            self.timeline.after(self._latency_ns, self._refused, attempt)
            return
        listener, accept = found
        near, far = self._end(attempt.process, attempt.silence), self._end(listener, silences.SERVED)
        near.peer, far.peer = far, near
        near.tag = far.tag = attempt.tag
        listener.tell(far.number, self._accepted, far, accept)
        self.timeline.after(self._latency_ns, self._established, attempt, near)

    def _end(self, process: Owner, silence: Silence) -> End:
        self._ends += 1
        end = End(process, self._ends, silence)
        process.ends[end] = None
        return end

    def _refused(self, attempt: Attempt) -> None:
        if not attempt.cancelled:
            attempt.process.tell(0, attempt.on_failed, "connection refused")

    @staticmethod
    def _accepted(end: End, accept: Callable[[End], None]) -> None:
        if end.open:
            accept(end)

    def _established(self, attempt: Attempt, near: End) -> None:
        if attempt.cancelled or not attempt.process.alive:
            self.close(near, reset=True)
            return
        attempt.process.tell(near.number, self._opened, attempt, near)

    def _opened(self, attempt: Attempt, near: End) -> None:
        if attempt.cancelled:
            self.close(near, reset=True)
        elif near.open:
            attempt.on_open(near)
        else:
            attempt.on_failed("connection reset")

    # --- sending -----------------------------------------------------------------------------------------

    def send(self, end: End, payload: Any, *, urgent: bool = False) -> None:
        """Hand a payload to the kernel, or to the sender's queue before it; lost if the socket is gone."""
        if not end.open:
            return
        if end.unread and end.unread[-1][0] == self._ended:
            # Sending shows what reading has not yet: with the connection gone nothing more is read of it.
            del end.unread[:-1]
        now = self.timeline.now
        until = 0 if urgent else max(now + self.queue_ns(end), end.queued_until)
        if self.rules and not urgent:
            until += self._transmission_ns(end, payload)
        if until > now:
            # Only what is urgent overtakes: the queue keeps its order, also while it drains.
            self.happened["waited in a sender's queue"] += 1
            end.queued_until = until
            self.timeline.at(until, self._post, end, payload)
        else:
            self._post(end, payload)

    def queue_ns(self, end: End) -> int:
        """Return how long what is sent now waits in the sender's own queue."""
        left = max(0, end.queued_until - self.timeline.now)
        if not self.rules:
            return left
        return max((left, *(rule.queue_ns for rule in self._rules_of(end))))

    def _rules_of(self, end: End) -> list[TrafficRule]:
        """Return the rules for what that end sends."""
        source, destination, tag = end.host, end.peer.host, end.tag
        return [rule for rule in self.rules if rule.concerns(source, destination, tag)]

    def _transmission_ns(self, end: End, payload: Any) -> int:
        """Return how long a payload takes to leave at the rate that the connection has now."""
        rates = [rule.bytes_per_second for rule in self._rules_of(end) if rule.bytes_per_second]
        return _size(payload) * SECOND // min(rates) if rates else 0

    def _post(self, end: End, payload: Any) -> None:
        if not end.open:
            return
        delay = self._delay(end)
        if delay >= end.user_timeout_ns and end.arrival < NEVER_NS:
            # Lost so often, or so long under way, that its sender has given up before it arrives.
            end.arrival = NEVER_NS
            self.happened["user timeout"] += 1
            self.timeline.after(end.user_timeout_ns, self._end_locally, end, "timed out")
        when = max(self.timeline.now + delay, end.arrival)
        end.arrival = when
        if self.listener is not None:
            self.listener(end, payload, when)
        self.timeline.at(when, self._arrive, end, payload)

    def _arrive(self, end: End, payload: Any) -> None:
        peer = end.peer
        if end.held is not None or self.is_cut(end.host, peer.host):
            self._hold(end, payload)
            return
        if not peer.open:
            self._answer_reset(end)
            return
        process = peer.process
        if payload is _CLOSE or payload is _RESET:
            waiting = process.paused or bool(peer.unread)
            if payload is _RESET and waiting and self.random.random() < 0.5:
                process.drop_unread(peer.number)
                if peer.unread:
                    peer.unread.clear()
            process.tell(peer.number, self._ended, peer, "the other side closed the connection")
            return
        if self.is_cut(peer.host, end.host) and not end.acks_watched:
            end.acks_watched = True
            self.timeline.after(end.user_timeout_ns, self._unacknowledged, end)
        process.tell(peer.number, self._read, peer, payload)

    def leave_unread(self, end: End) -> None:
        """Stop the end's process from reading this connection: what arrives waits in its kernel."""
        if end.open and end.unread is None:
            end.unread = []

    def read_again(self, end: End) -> None:
        """Have the end's process read what has arrived, and continue reading."""
        unread, end.unread = end.unread, None
        for call, what in unread or ():
            end.process.tell(end.number, call, end, what)

    def _read(self, end: End, payload: Any) -> None:
        if not end.open:
            return
        if end.unread is not None:
            end.unread.append((self._read, payload))
            return
        if end.reply_lost:
            # The connection breaks between the arrival of a request and its answer.
            self.happened["reset after delivery"] += 1
            end.reply_lost = False
            end.on_data(payload)
            self.break_connection(end)
            return
        end.on_data(payload)

    def _watch(self, end: End) -> None:
        """Start keep-alive for a side whose peer has just gone."""
        self.timeline.after(end.silence.idle_seconds * SECOND, self._keepalive, end, self.timeline.now)

    def _keepalive(self, end: End, since_ns: int) -> None:
        if not end.open or end.peer.open:
            return
        peer = end.peer.host
        if self.machines[peer].up and not self.is_cut(end.host, peer) and not self.is_cut(peer, end.host):
            self._end_locally(end, "connection reset")
        elif self.timeline.now - since_ns >= end.user_timeout_ns:
            self._end_locally(end, "timed out")
        else:
            self.timeline.after(end.silence.interval_seconds * SECOND, self._keepalive, end, since_ns)

    def _hold(self, end: End, payload: Any) -> None:
        if payload is _RESET:
            return  # nobody sends a reset again
        if end.held is None:
            end.held = []
            self._holding[end] = None
            self.timeline.after(end.user_timeout_ns, self._user_timeout, end, end.held)
        end.held.append(payload)

    def _user_timeout(self, end: End, held: list[Any]) -> None:
        if end.held is held:
            self.happened["user timeout"] += 1
            end.held = None
            self._holding.pop(end, None)
            self._end_locally(end, "timed out")

    def _unacknowledged(self, end: End) -> None:
        end.acks_watched = False
        if self.is_cut(end.peer.host, end.host):
            self.happened["user timeout"] += 1
            self._end_locally(end, "timed out")

    def _answer_reset(self, end: End) -> None:
        machine = self.machines[end.peer.host]
        if machine.up and not self.is_cut(end.peer.host, end.host):
            self.timeline.after(self._latency_ns, self._end_locally, end, "connection reset")
        else:
            self.timeline.after(end.user_timeout_ns, self._end_locally, end, "timed out")

    def _end_locally(self, end: End, reason: str) -> None:
        if end.open:
            end.process.tell(end.number, self._ended, end, reason)

    def _ended(self, end: End, reason: str) -> None:
        if end.open and end.unread is not None:
            end.unread.append((self._ended, reason))
        elif end.open:
            self._forget(end)
            if end.peer.open:
                # Nothing told the other side; if it never sends, only its keep-alive finds out.
                self._watch(end.peer)
            end.on_closed(reason)

    def _forget(self, end: End) -> None:
        end.open = False
        end.process.ends.pop(end, None)

    # --- ending ------------------------------------------------------------------------------------------

    def close(self, end: End, *, reset: bool) -> None:
        """Close this side; `reset` (linger 0) drops what has not gone out. Its process is told nothing."""
        if not end.open:
            return
        self._forget(end)
        if reset:
            end.held = None
            self._holding.pop(end, None)
        when = max(self.timeline.now + self._delay(end), end.arrival)
        end.arrival = when
        self.timeline.at(when, self._arrive, end, _RESET if reset else _CLOSE)
        self._watch(end.peer)

    def forsake(self, end: End) -> None:
        """This side's machine is gone. The other side notices when nothing answers it."""
        self._forget(end)
        end.held = None
        self._holding.pop(end, None)
        self._watch(end.peer)

    def break_connection(self, end: End) -> None:
        """Reset a connection from within the network: both sides hear of it, and data in flight is lost."""
        for side in (end, end.peer):
            side.held = None
            self._holding.pop(side, None)
            self._end_locally(side, "connection reset")

    def half_open(self, end: End) -> None:
        """Let one side of a connection vanish unnoticed: the other still believes in it."""
        if end.open:
            end.process.tell(end.number, self._ended, end, "connection reset")
            self._watch(end.peer)
