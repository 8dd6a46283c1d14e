"""The order in which a coordinator decides, writes, publishes and replies.

Group commit: what arrives while a map is being written is decided as one batch, in one write. Nothing based
on a map leaves before that map is on disk, and one map is written at a time. The process and the simulations
are shells around this: they pass in what arrives, and perform the effects of `step` in order.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap, MapDelta
from greenroom.errors import InvariantError
from greenroom_cluster.coordination.adoption import Adoption
from greenroom_cluster.coordination.coordinator import Coordinator, CoordinatorSettings
from greenroom_cluster.coordination.draft import NO_MARKS
from greenroom_cluster.coordination.exchange import ConnectionClosed, Incoming, Outcome, Response
from greenroom_cluster.coordination.genesis import renumbered
from greenroom_cluster.coordination.inquiry import Inquiry
from greenroom_cluster.coordination.messages import CoordinatorReply, Received, ShowDirectory
from greenroom_cluster.coordination.ownership import trespass
from greenroom_cluster.planning.controller import Controller, ControllerSettings

WAITING_MAX = 16_384
"""Requests that may wait for the disk; beyond that, connections with requests are not read."""


class Effect(msgspec.Struct, frozen=True):
    """Base of every effect."""


class Persist(Effect, frozen=True):
    """Write this map durably, then call `written`. Until then no other effect follows.

    `vouched`: it is known to be the newest, and this boot of the host shall know that too.
    """

    map: ClusterMap
    vouched: bool


class Publish(Effect, frozen=True):
    """Send this map to every subscriber, as the change `delta` if it continues their map."""

    map: ClusterMap
    delta: MapDelta | None


class Vouch(Effect, frozen=True):
    """The map on disk is known to be the newest, and this boot of the host shall know that too."""


class KeepMarks(Effect, frozen=True):
    """Write durably, beside the map, how far directories have come."""

    marks: dict[bytes, int]


class Reply(Effect, frozen=True):
    """Send these on a connection; dropped if it is gone. `last`: then end the connection."""

    connection: int
    messages: tuple[CoordinatorReply, ...]
    last: bool = False


class Subscribe(Effect, frozen=True):
    """Send the map last published on a connection, and every change after it."""

    connection: int


class Ask(Effect, frozen=True):
    """Ask each of these nodes once for its map, and pass what comes of it to `show`."""

    addresses: tuple[str, ...]


class Warn(Effect, frozen=True):
    """Tell an operator."""

    message: str


ServiceEffect: TypeAlias = Persist | Publish | Vouch | KeepMarks | Reply | Subscribe | Ask | Warn


class CoordinationService:
    """One run of a coordinator with this map, and the marks that are kept beside it.

    `proven`: it is known to be the newest. Otherwise the run gives it a version of its own, from the wall
    clock `wall_ms`. With an `adoption` the map is a blank, and nothing is decided before the first one was
    made of what directories know.
    """

    def __init__(
        self,
        first: ClusterMap,
        settings: CoordinatorSettings,
        planning: ControllerSettings,
        now_ns: int,
        wall_ms: int,
        *,
        proven: bool,
        marks: Mapping[bytes, int] = NO_MARKS,
        adoption: Adoption | None = None,
    ) -> None:
        begun = first if proven else renumbered(first, wall_ms)
        self.coordinator = Coordinator(
            begun, settings, now_ns, proven=proven, stored_version=first.version, marks=marks
        )
        self._adoption = adoption
        self._settings = settings
        self._controller = Controller(planning, lambda: self.coordinator.connected())
        self._vouched = proven
        self._waiting: list[Incoming] = []
        self._inquiry = Inquiry()
        self._opening = None if proven else Outcome(begun)
        self._writing: Outcome | None = None
        self._decided = False
        self._effects: list[ServiceEffect] = [Publish(begun, None)] if proven and adoption is None else []

    @property
    def map(self) -> ClusterMap:
        """The decided map: nothing read from it may leave before it is on disk."""
        return self.coordinator.map

    @property
    def crowded(self) -> bool:
        """Whether so much waits for the disk that connections should not be read."""
        return len(self._waiting) >= WAITING_MAX

    # --- what happens ------------------------------------------------------------------------------------

    def receive(
        self, connection: int, sender: bytes, role: str, messages: Sequence[Received], node: str = ""
    ) -> str:
        """Take messages read at once on a connection; `sender` and `role` are those of its hello.

        `node` is who has proven to be there; empty if nobody has. If one of the messages speaks for another
        node, none is taken, and that is returned: the connection is to be ended.
        """
        for message in messages if node else ():
            if told := trespass(self.map, node, message):
                return told
        subscribed = False
        for message in messages:
            if isinstance(message, ShowDirectory):
                if self._adoption is not None:
                    self._adoption.take(connection, sender, message)
                continue
            if isinstance(message, wire.Subscribe):
                # The map is long: send it once for all that was read at once.
                if subscribed:
                    continue
                subscribed = True
            self._waiting.append(Incoming(connection, sender, message, role))
        return ""

    def close(self, connection: int, sender: bytes) -> None:
        """Note that a connection has ended."""
        self._waiting.append(Incoming(connection, sender, ConnectionClosed()))

    def show(self, address: str, shown: ClusterMap | None) -> None:
        """Take the map that a node gave when asked; None if it gave none."""
        self._inquiry.answered(address, shown)

    def step(self, now_ns: int, wall_us: int) -> list[ServiceEffect]:
        """Decide what has arrived and what is due; nothing while a map is being written."""
        if self._writing is not None:
            return []
        if self._adoption is not None:
            self._adopt(now_ns, wall_us, self._adoption)
        if self._adoption is not None:
            effects, self._effects = self._effects, []
            return effects
        marks = self.coordinator.marks.to_write(now_ns)
        if marks is not None:
            self._effects.append(KeepMarks(marks))
        return self._proceed(now_ns, wall_us)

    def end(self) -> list[KeepMarks]:
        """Return what is still to be done at an orderly end; nothing follows it."""
        marks = self.coordinator.marks.rest()
        return [] if marks is None else [KeepMarks(marks)]

    def written(self, now_ns: int, wall_us: int) -> list[ServiceEffect]:
        """Continue: the map of the effect `Persist` is on disk."""
        outcome, self._writing = self._writing, None
        if outcome is None:
            raise InvariantError("a map was written that was not to be")
        self._conclude(now_ns, outcome)
        return self._proceed(now_ns, wall_us)

    def next_deadline(self) -> int:
        """Return when `step` is due even if nothing arrives, in nanoseconds of its clock."""
        if self._adoption is not None:
            return self._adoption.next_deadline()
        return min(
            self.coordinator.next_deadline(),
            self.coordinator.marks.next_deadline(),
            self._controller.next_deadline(),
            self._inquiry.next_deadline(),
        )

    # --- one round ---------------------------------------------------------------------------------------

    def _adopt(self, now_ns: int, wall_us: int, adoption: Adoption) -> None:
        """Answer what has arrived, and begin with the map of the directories once it can be made."""
        batch, self._waiting = self._waiting, []
        answers = [(incoming.connection, adoption.answer(now_ns, incoming)) for incoming in batch]
        self._effects += _replies([Response(to, reply) for to, reply in answers if reply is not None])
        adopted = adoption.conclude(now_ns, wall_us // 1000)
        self._effects += [Warn(each) for each in adoption.news()]
        if adopted is None:
            return
        self._adoption, self._vouched = None, True
        self.coordinator = Coordinator(adopted, self._settings, now_ns)
        self._opening = Outcome(adopted)

    def _proceed(self, now_ns: int, wall_us: int) -> list[ServiceEffect]:
        while self._writing is None:
            outcome = self._next(now_ns, wall_us)
            if outcome is not None:
                self._begin(now_ns, outcome)
            elif not self._waiting:
                break
        effects, self._effects = self._effects, []
        return effects

    def _next(self, now_ns: int, wall_us: int) -> Outcome | None:
        """Decide the next part of this round; None ends it.

        Each round ends with planning, so that planning does not starve however much arrives.
        """
        if self._opening is not None:
            outcome, self._opening = self._opening, None
            return outcome
        if (maps := self._inquiry.conclude(now_ns)) is not None:
            # Before what arrived: a claim that is refuted now need not be looked into again.
            return self.coordinator.shown(now_ns, maps)
        if not self._decided:
            self._decided = True
            batch, self._waiting = self._waiting, []
            return self.coordinator.decide(now_ns, batch, wall_us)
        if plan := self._controller.step(now_ns, self.coordinator.map):
            return self.coordinator.want(plan)
        self._decided = False
        return None

    def _begin(self, now_ns: int, outcome: Outcome) -> None:
        if outcome.ask:
            self._inquiry.begin(now_ns, outcome.ask)
            self._effects.append(Ask(outcome.ask))
        self._effects += [Warn(warning) for warning in outcome.warnings]
        if outcome.persist is None:
            self._conclude(now_ns, outcome)
        else:
            self._writing = outcome
            self._effects.append(Persist(outcome.persist, self._vouched))

    def _conclude(self, now_ns: int, outcome: Outcome) -> None:
        """Publish, then reply: replies may rest on what was published."""
        if outcome.persist is not None:
            self._effects.append(Publish(outcome.persist, outcome.delta))
        if not self._vouched and self._proven(now_ns):
            self._vouched = True
            self._effects.append(Vouch())
        self._effects += _replies(outcome.responses)

    def _proven(self, now_ns: int) -> bool:
        return self.coordinator.proven(now_ns)


def _replies(responses: Sequence[Response]) -> list[ServiceEffect]:
    """Return the effects for these responses: one per connection, its messages in order."""
    effects: list[ServiceEffect] = []
    replies: dict[int, list[CoordinatorReply]] = {}

    def send(connection: int) -> None:
        messages = replies.pop(connection, None)
        if messages:
            last = isinstance(messages[-1], wire.Goodbye)
            effects.append(Reply(connection, tuple(messages), last))

    for response in responses:
        if isinstance(response.message, wire.MapFull):
            send(response.connection)
            effects.append(Subscribe(response.connection))
        else:
            replies.setdefault(response.connection, []).append(response.message)
    for connection in list(replies):
        send(connection)
    return effects
