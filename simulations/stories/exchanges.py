"""What goes between processes for one write, and while its primary is killed: heard in runs of the real core.

`write` is one write without a fault. In `failover` the primary is killed between the moment in which its
backup has logged the write and the answer: the caller's store repeats it, and it has taken effect once.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from greenroom import wire
from greenroom.errors import InvariantError
from greenroom.framing import FrameBuffer, messages_decoder
from greenroom_cluster.access import ActorRequest
from greenroom_cluster.coordination.messages import Decided, Heartbeat, Propose, ReportDead
from greenroom_cluster.shard.messages import Beacon, BeaconOk, Prepare, PrepareOk
from simulations.kernel.network import End
from simulations.kernel.timeline import MILLISECOND, ORIGIN_NS
from simulations.plans.plan import Action, Fault, Plan
from simulations.runs.world import World

_FRAME_BYTES_MAX = 16 << 20
_PLAN = Plan(
    seed=1,
    shards=1,
    clients=1,
    callers=1,
    sessions=1,
    seconds=2.0,
    jitter_us=0,
    actions=(Action(0, 700.0, "create", 0), Action(0, 200.0, "update", 0)),
)
_KILLED_AFTER_MS = 0.5
"""The backup has logged the write 0.4 ms after it was sent, and the primary hears of that at 0.6 ms."""
_ENDS = (wire.Written, wire.Failed, wire.Redirect, wire.Overloaded, wire.Unknowable)
_decoders = tuple(messages_decoder(kinds) for kinds in (ActorRequest, wire.ServerMessage | wire.Subscribe))


class Message(msgspec.Struct, frozen=True):
    """What one process said to another, in milliseconds since the write was sent. `lost`: nobody read it."""

    at_ms: float
    source: str
    destination: str
    words: str
    lost: bool = False


class Moment(msgspec.Struct, frozen=True):
    """What happened in a process. `ends`: it is the last that happens there."""

    at_ms: float
    where: str
    words: str
    ends: bool = False


Event = Message | Moment


class Exchange(msgspec.Struct, frozen=True):
    """A story: who takes part, from left to right, and what happens."""

    title: str
    about: str
    parties: tuple[str, ...]
    events: tuple[Event, ...]


class _Heard(msgspec.Struct, frozen=True):
    """A message as it was sent. `number`: which of all."""

    number: int
    sent_ns: int
    arrives_ns: int
    source: str
    destination: str
    message: Any


class _Run:
    """A plan that has been run, and everything that was said in it."""

    def __init__(self, plan: Plan) -> None:
        self.world = World(plan)
        self.heard: list[_Heard] = []
        self.world.network.listener = self._hear
        result = self.world.run()
        if result.violations:
            raise InvariantError(f"the story breaks a rule: {result.violations[0]}")
        self.write = next(each for each in self.heard if isinstance(each.message, wire.Update))
        entry = next(
            each for each in reversed(self.world.recording.configurations) if each.at < self._seconds()
        )
        self.primary = self.write.destination
        (self.backup,) = {
            each.destination
            for each in self.heard
            if isinstance(each.message, Prepare) and each.source == self.primary
        }
        if entry.members != len((self.primary, self.backup)):
            raise InvariantError("the story begins before the shard has both its replicas")

    def _hear(self, end: End, payload: Any, arrives_ns: int) -> None:
        source, destination = end.process, end.peer.process
        for message in _messages(payload):
            self.heard.append(
                _Heard(
                    len(self.heard),
                    self.world.timeline.now,
                    arrives_ns,
                    getattr(source, "name", ""),
                    getattr(destination, "name", ""),
                    message,
                )
            )

    def _seconds(self) -> float:
        return (self.write.sent_ns - ORIGIN_NS) / 1e9

    def at_ms(self, moment_ns: float) -> float:
        """Return a moment in milliseconds since the write was sent."""
        return (moment_ns - self.write.sent_ns) / MILLISECOND

    def seconds_at_ms(self, seconds: float) -> float:
        """Return a moment of the recording in milliseconds since the write was sent."""
        return self.at_ms(ORIGIN_NS + seconds * 1e9)

    def ended_ns(self, process: str) -> float:
        """Return when a process ended."""
        for life in self.world.recording.lives:
            if life.name == process and life.ended is not None:
                return ORIGIN_NS + life.ended * 1e9
        return float("inf")

    def since_the_write(self, done: Callable[[_Heard], bool]) -> Iterator[_Heard]:
        """Yield what was said from the write on, up to the message that ends the story."""
        for each in self.heard[self.write.number :]:
            yield each
            if done(each):
                return
        raise InvariantError("the story has no end")

    def told(self, parties: dict[str, str], done: Callable[[_Heard], bool]) -> tuple[Event, ...]:
        """Return what happens among the parties, in its order."""
        events: list[Event] = []
        for each in self.since_the_write(done):
            words = _words(each.message)
            if words and each.source in parties and each.destination in parties:
                lost = each.arrives_ns >= self.ended_ns(each.destination)
                source, destination = parties[each.source], parties[each.destination]
                events.append(Message(self.at_ms(each.sent_ns), source, destination, words, lost))
        last_ms = events[-1].at_ms
        for turn in self.world.recording.turns:
            at_ms = self.seconds_at_ms(turn.at)
            if turn.actor in parties and 0 <= at_ms <= last_ms:
                events.append(
                    Moment(at_ms, parties[turn.actor], f"{turn.role}, epoch {turn.epoch}: {turn.reason}")
                )
        for life in self.world.recording.lives:
            if life.name in parties and life.ended is not None:
                at_ms = self.seconds_at_ms(life.ended)
                if 0 <= at_ms <= last_ms:
                    events.append(Moment(at_ms, parties[life.name], "killed", ends=True))
        return tuple(sorted(events, key=lambda each: (round(each.at_ms, 6), isinstance(each, Message))))


def write() -> Exchange:
    """Return the story of one write."""
    run = _Run(_PLAN)
    parties = {run.write.source: "store", run.primary: "primary", run.backup: "backup"}

    def done(each: _Heard) -> bool:
        return isinstance(each.message, Beacon) and bool(each.message.commits)

    return Exchange(
        "A write",
        "The backup has the record in its log before the caller hears that it was written. "
        "What is committed it applies with the next record, or here the next beacon.",
        tuple(parties.values()),
        run.told(parties, done),
    )


def failover() -> Exchange:
    """Return the story of a write whose primary is killed."""
    quiet = _Run(_PLAN)
    at_ms = (quiet.write.sent_ns - quiet.world.ready_ns) / MILLISECOND + _KILLED_AFTER_MS
    run = _Run(replace(_PLAN, faults=(Fault(at_ms, "kill actor", "primary of shard 0"),)))
    supervisor = f"supervisor {run.primary.partition('/')[0]}"
    parties = {
        run.write.source: "store",
        supervisor: "supervisor",
        run.primary: "primary",
        run.backup: "backup",
        "coordinator": "coordinator",
    }

    def done(each: _Heard) -> bool:
        return isinstance(each.message, _ENDS) and each.source == run.backup

    return Exchange(
        "A failover",
        "The primary is killed when its backup has logged a write and nobody has answered it. Its supervisor "
        "sees it end, the backup takes over, and the store repeats the write under the same number: it is "
        "answered, and has taken effect once.",
        tuple(parties.values()),
        run.told(parties, done),
    )


EXCHANGES: dict[str, Callable[[], Exchange]] = {"write": write, "failover": failover}


# --- messages in words -----------------------------------------------------------------------------------


def _messages(payload: Any) -> list[Any]:
    """Return the messages of what was sent; a greeting is the name of its kind."""
    if isinstance(payload, list | tuple):
        return list(payload)
    if not isinstance(payload, bytes | bytearray):
        return []  # the end of a connection
    return [message for frame in FrameBuffer(_FRAME_BYTES_MAX).feed(payload) for message in _decoded(frame)]


def _decoded(frame: bytes) -> list[Any]:
    for decoder in _decoders:
        try:
            return decoder.decode(frame)
        except msgspec.ValidationError:
            continue
    return [wire.Hello.__name__]


def _words(message: Any) -> str:
    """Return a message in words; none for those that keep leases and connections alive."""
    match message:
        case str():
            return message
        case wire.Update(request_id=number):
            return f"Update, request {number}"
        case wire.Written(version=version):
            return f"Written, version {version >> 40}.{version & (1 << 40) - 1}"
        case Prepare(entries=(entry,)):
            return f"Prepare, record {entry.records[-1].sequence}"
        case PrepareOk():
            return "PrepareOk, logged"
        case Beacon(commits=((_, _, committed, _), *_)):
            return f"Beacon, committed {committed}"
        case ReportDead():
            return "ReportDead, the primary"
        case wire.MapChange(delta=delta):
            epochs = [entry.epoch for _, entry in delta.shards]
            return f"MapChange, epoch {epochs[0]}" if epochs else "MapChange, primary dead"
        case Propose(proposals=(proposal,)):
            return f"Propose, {proposal.kind} of epoch {proposal.epoch}"
        case Decided(decisions=(decision,)):
            return f"Decided, {'applied' if decision.applied else 'not applied'}"
        case Beacon() | BeaconOk() | Heartbeat():
            return ""
    return type(message).__name__
