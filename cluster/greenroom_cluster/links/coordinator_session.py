"""The session of an actor or a node's supervisor with the coordinator, over one connection after another.

On each connection it subscribes, naming the map that it knows, and is up only once the whole map has come:
open proposals are judged by that map before they are made again. A map that is older than the known one, or
of another cluster, ends the connection. Proposals are dropped while the session is not up; calls are sent
again on every connection until they are answered.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta, are_foreign
from greenroom.testimony import ADDITIONS_MAX, Addition, Testimony
from greenroom_cluster.coordination.foreigners import OTHER_CLUSTER
from greenroom_cluster.coordination.messages import (
    OLDER_MAP,
    SHOW_DIRECTORY,
    Accepted,
    CoordinatorReply,
    CoordinatorRequest,
    Decided,
    Decision,
    Heartbeat,
    Proposal,
    Propose,
    Rejected,
    ShowDirectory,
    Suspicion,
)

CALL_SECONDS = 5.0
"""How long a call waits for its answer, unless its caller says otherwise."""

PROPOSALS_PER_MESSAGE = 1024

# --- inputs ----------------------------------------------------------------------------------------------


class Remembered(msgspec.Struct, frozen=True):
    """The newest map that a directory tells of: lineage, version, epochs of some shards, and identity.

    `shown` is all that it knows, for a coordinator that asks because it has lost its map.
    """

    lineage: int
    version: int
    epochs: tuple[int, ...]
    identity: bytes = b""
    shown: tuple[ShowDirectory, ...] = ()

    def is_later_than(self, other: ClusterMap) -> bool:
        """Whether the map that was known then holds a decision that this one lacks."""
        if self.lineage != other.lineage:
            return self.lineage > other.lineage
        epochs = other.epochs
        beyond = any(self.epochs[len(epochs) :])
        return beyond or any(ours > theirs for ours, theirs in zip(self.epochs, epochs, strict=False))

    @property
    def kept(self) -> tuple[int, ...]:
        """The shards of which the directory knew the configuration when it was opened."""
        return tuple(shard for shard, epoch in enumerate(self.epochs) if epoch)

    def additions(self, epochs: tuple[int, ...]) -> list[Addition]:
        """Return whom changes that it tells of add, if they may still be decided at these epochs."""
        return [
            Addition(known.shard, member, slot)
            for part in self.shown
            for known in part.known
            for member, slot in known.proposed
            if known.shard >= len(epochs) or known.epoch >= epochs[known.shard]
        ]


NOTHING_REMEMBERED = Remembered(0, 0, ())


class Connected(msgspec.Struct, frozen=True):
    """A connection to the coordinator stands; hellos were exchanged on it."""


class Lost(msgspec.Struct, frozen=True):
    """The connection has ended."""


class Received(msgspec.Struct, frozen=True):
    """Messages that came on the connection, in order."""

    messages: Sequence[CoordinatorReply]


class Offer(msgspec.Struct, frozen=True):
    """Make these proposals, with all others that are offered before the next `Flush`."""

    proposals: Sequence[Proposal]


class Flush(msgspec.Struct, frozen=True):
    """The moment that `FlushSoon` asked for has come."""


class Beat(msgspec.Struct, frozen=True):
    """Tell the coordinator that this node is alive."""

    node: str
    suspicions: tuple[Suspicion, ...] = ()
    marks: tuple[tuple[bytes, int], ...] = ()


class Call(msgspec.Struct, frozen=True):
    """Send the request that `make_request(number)` returns until it is answered, for so many seconds.

    Only for requests that may arrive twice. `token` is the caller's name for the call.
    """

    token: object
    make_request: Callable[[int], CoordinatorRequest]
    seconds: float = CALL_SECONDS


class Overdue(msgspec.Struct, frozen=True):
    """The time of which `Remind` spoke is over."""

    token: object


class GiveUp(msgspec.Struct, frozen=True):
    """The caller has stopped waiting for the answer to this call."""

    token: object


SessionInput: TypeAlias = Connected | Lost | Received | Offer | Flush | Beat | Call | Overdue | GiveUp

# --- effects ---------------------------------------------------------------------------------------------


class Transmit(msgspec.Struct, frozen=True):
    """Send these on the connection."""

    messages: Sequence[wire.Frame]


class FlushSoon(msgspec.Struct, frozen=True):
    """Input a `Flush` once everything that is happening at this moment has happened."""


class MapSeen(msgspec.Struct, frozen=True):
    """A newer map came."""

    map: ClusterMap


class SessionUp(msgspec.Struct, frozen=True):
    """The map has come on this connection; the last `MapSeen` is what the coordinator holds."""


class SessionDown(msgspec.Struct, frozen=True):
    """The session was up, and is down now."""


class Decisions(msgspec.Struct, frozen=True):
    """The coordinator has decided on proposals. The map that shows it came before."""

    decisions: tuple[Decision, ...]


class Remind(msgspec.Struct, frozen=True):
    """Input `Overdue` for this call after so many seconds, also if the call has ended by then."""

    token: object
    seconds: float


class Answered(msgspec.Struct, frozen=True):
    """A call has ended; `reply` is None if no answer came in time."""

    token: object
    reply: Accepted | Rejected | None


class ProposalsRejected(msgspec.Struct, frozen=True):
    """Proposals were rejected as a whole, undecided; `reason` is the coordinator's."""

    reason: str


class End(msgspec.Struct, frozen=True):
    """End the connection."""

    @property
    def is_lasting(self) -> bool:
        """Whether another connection to this coordinator would soon end likewise."""
        return False


class Refused(End, frozen=True):
    """End it: the coordinator has said goodbye, and why."""

    code: str
    reason: str

    @property
    def is_lasting(self) -> bool:
        """Whether its map is that of another cluster, or older than ours."""
        return self.code in (OTHER_CLUSTER, OLDER_MAP)


class ForeignMap(End, frozen=True):
    """End it: the coordinator is that of another cluster."""

    @property
    def is_lasting(self) -> bool:
        """Always: it will not become that of ours."""
        return True


class OlderMap(End, frozen=True):
    """End it: a coordinator that has gone back in time learns it by our `Subscribe`, and is not followed.

    `known` and `received` are lineages and versions.
    """

    known: tuple[int, int]
    received: tuple[int, int]

    @property
    def is_lasting(self) -> bool:
        """Always: somebody has to do something about it."""
        return True


SessionEffect: TypeAlias = (
    Transmit
    | FlushSoon
    | MapSeen
    | SessionUp
    | SessionDown
    | Decisions
    | Remind
    | Answered
    | ProposalsRejected
    | End
)


# --- the session -----------------------------------------------------------------------------------------


class _Call:
    __slots__ = ("request", "token")

    def __init__(self, token: object, request: CoordinatorRequest) -> None:
        self.token = token
        self.request = request


class CoordinatorSession:
    """Follows the map, proposes and calls for the process with the identity `sender`.

    Effects are to be performed in order, before the next input. Until a map has come, what the directory of
    an actor remembers stands for it: a coordinator with an older one learns that it has gone back in time.
    `keeper_of` is the node whose supervisor this is, if its actors keep what they hold in directories.
    """

    def __init__(
        self, sender: bytes, remembered: Remembered = NOTHING_REMEMBERED, keeper_of: str = ""
    ) -> None:
        self._remembered = remembered
        self._keeper_of = keeper_of
        self.map: ClusterMap | None = None
        self.connected = False
        self.up = False
        self._asked_to_show = False
        self._sender = sender
        self._numbers = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        # By nonce: made twice at one moment, a proposal is sent once.
        self._offered: dict[bytes, Proposal] = {}
        # Sent at an epoch that is not over: those that add a member. A refusal does not end it, for it may be
        # of another run than the one that has decided it before.
        self._open: dict[bytes, Proposal] = {}

    def step(self, event: SessionInput) -> list[SessionEffect]:
        """Take one input; return the effects."""
        match event:
            case Received(messages=messages):
                return self._received(messages)
            case Connected():
                self.connected = True
                shown = self._shown() if self._asked_to_show and self.map is None else ()
                calls = (call.request for call in self._calls.values())
                return [Transmit((*shown, self._subscription(), *calls))]
            case Lost():
                was_up, self.connected, self.up = self.up, False, False
                self._offered.clear()
                return [SessionDown()] if was_up else []
            case Offer(proposals=proposals):
                return self._offer(proposals)
            case Flush():
                return self._flush()
            case Beat(node=node, suspicions=suspicions, marks=marks) if self.connected:
                return [Transmit((Heartbeat(node, *self._known(), suspicions, self._identity(), marks),))]
            case Call():
                return self._call(event)
            case Overdue(token=token):
                return [Answered(token, None)] if self._forget(token) else []
            case GiveUp(token=token):
                self._forget(token)
        return []

    # --- what is asked -----------------------------------------------------------------------------------

    def _offer(self, proposals: Sequence[Proposal]) -> list[SessionEffect]:
        if not self.up or not proposals:
            return []
        first = not self._offered
        self._offered.update((proposal.nonce, proposal) for proposal in proposals)
        return [FlushSoon()] if first else []

    def _flush(self) -> list[SessionEffect]:
        offered = tuple(self._offered.values())
        self._offered.clear()
        self._open = {each.nonce: each for each in (*self._open.values(), *offered) if self._may_add(each)}
        messages = [
            Propose(next(self._numbers), self._sender, offered[start : start + PROPOSALS_PER_MESSAGE])
            for start in range(0, len(offered), PROPOSALS_PER_MESSAGE)
        ]
        return [Transmit(messages)] if messages else []

    def _call(self, asked: Call) -> list[SessionEffect]:
        number = next(self._numbers)
        call = self._calls[number] = _Call(asked.token, asked.make_request(number))
        reminder = Remind(asked.token, asked.seconds)
        return [Transmit((call.request,)), reminder] if self.connected else [reminder]

    def _forget(self, token: object) -> bool:
        """Send a call no more; return whether it was still under way."""
        before = len(self._calls)
        self._calls = {number: call for number, call in self._calls.items() if call.token != token}
        return len(self._calls) < before

    def _known(self) -> tuple[int, int]:
        if self.map is None:
            return (self._remembered.lineage, self._remembered.version)
        return (self.map.lineage, self.map.version)

    def _shown(self) -> Sequence[wire.Frame]:
        """Return what a coordinator without a map has asked for. A supervisor tells whose it is."""
        if self._keeper_of:
            return (Heartbeat(self._keeper_of, *self._known()),)
        return self._remembered.shown

    def _identity(self) -> bytes:
        return self._remembered.identity if self.map is None else self.map.identity

    def _subscription(self) -> wire.Subscribe:
        epochs = self._remembered.epochs if self.map is None else self.map.epochs
        return wire.Subscribe(*self._known(), epochs, self._identity(), self._testimony())

    def _may_add(self, proposal: Proposal) -> bool:
        """Whether a proposal adds a member, and may be decided at what is known."""
        assert self.map is not None
        return proposal.kind == "add" and proposal.epoch >= self.map.shards[proposal.shard].epoch

    def _testimony(self) -> Testimony | None:
        """Return what a coordinator that is restored from an older copy must be told; None: nothing."""
        known, kept = self.map, self._remembered.kept
        additions = self._remembered.additions(() if known is None else known.epochs)
        for each in filter(self._may_add, self._open.values()):
            assert known is not None
            joiners = set(each.backups).difference(known.shards[each.shard].members)
            slots = {one: known.actors[one].slot for one in joiners if one in known.actors}
            additions += [Addition(each.shard, one, slots.get(one, "")) for one in sorted(joiners)]
        if len(additions) > ADDITIONS_MAX:
            kept, additions = (), additions[-ADDITIONS_MAX:]  # so its directory speaks for nobody
        return Testimony(kept, tuple(additions)) if kept or additions else None

    # --- what comes --------------------------------------------------------------------------------------

    def _received(self, messages: Sequence[CoordinatorReply]) -> list[SessionEffect]:
        effects: list[SessionEffect] = []
        for message in messages:
            effects += self._take(message)
            if effects and isinstance(effects[-1], End):
                break
        return effects

    def _take(self, message: CoordinatorReply) -> list[SessionEffect]:
        match message:
            case wire.MapFull(map=full):
                return self._take_map(full)
            case wire.MapChange(delta=delta):
                return self._take_change(delta)
            case Decided(decisions=decisions):
                return [Decisions(decisions)]
            case Accepted() | Rejected():
                return self._take_reply(message)
            case wire.Goodbye(code=code, message=text):
                self._asked_to_show = code == SHOW_DIRECTORY
                return [Refused(code, text)]
            case _:
                return [End()]

    def _take_map(self, full: ClusterMap) -> list[SessionEffect]:
        known = self.map
        effects: list[SessionEffect] = []
        if known is None and are_foreign(full.identity, self._remembered.identity):
            return [ForeignMap()]
        if known is None and self._remembered.is_later_than(full):
            return [OlderMap(self._known(), (full.lineage, full.version))]
        if known is None or full.continues(known):
            self.map = full
            effects.append(MapSeen(full))
        elif full.is_foreign_to(known):
            return [ForeignMap()]
        elif (full.lineage, full.version) != (known.lineage, known.version):
            return [OlderMap(self._known(), (full.lineage, full.version))]
        if not self.up:
            self.up = True
            effects.append(SessionUp())
        return effects

    def _take_change(self, delta: MapDelta) -> list[SessionEffect]:
        known = self.map
        if known is None or (delta.lineage == known.lineage and delta.version <= known.version):
            return []
        try:
            new = known.apply(delta)
        except (ValueError, IndexError):
            # A gap: only the whole map helps.
            return [Transmit((wire.Subscribe(0, 0, (), self._identity()),))]
        if not new.continues(known):
            return [OlderMap(self._known(), (delta.lineage, delta.version))]
        self.map = new
        return [MapSeen(new)]

    def _take_reply(self, reply: Accepted | Rejected) -> list[SessionEffect]:
        call = self._calls.pop(reply.request_id, None)
        if call is not None:
            return [Answered(call.token, reply)]
        return [ProposalsRejected(reply.reason)] if isinstance(reply, Rejected) else []
