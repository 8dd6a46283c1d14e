"""What a node's supervisor reports to the coordinator, whom it reports dead, and when it may leave.

It reports what it knows at first hand: which incarnations run, and which it has seen die. It keeps reports
until the coordinator has them, so a coordinator that was away learns them when it is back.

A death report lets others take over at once. So only two things count: the exit of a child, and, on this
host, the absence of a process that a former supervisor of this node had registered.

A node that leaves says so, and its actors go on serving until every shard has moved to others; then they are
stopped and the node is removed from the map.

The process and the simulations are shells around `Agent.step`.
"""

from collections.abc import Iterable
from enum import IntEnum
from itertools import chain

import msgspec

from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry
from greenroom.deadlines import NEVER_NS
from greenroom.errors import GreenroomError, UsageError
from greenroom_cluster.coordination.messages import (
    DIRECTORY_OLDER,
    NAME_TAKEN,
    Accepted,
    RegisterActor,
    RegisterNode,
    Rejected,
    RemoveNode,
    ReportDead,
    Suspicion,
)
from greenroom_cluster.node import effects as fx
from greenroom_cluster.node import inputs as ins
from greenroom_cluster.node.drain import UP, Drain, shards_held
from greenroom_cluster.node.registration import DEAD, Registration, without_directory
from greenroom_cluster.node.watches import Watches
from greenroom_cluster.suspect_records import WATCH_SECONDS, bounded, has_crashed

HEARTBEAT_SECONDS = 0.5
RETRY_SECONDS = 0.25
PREDECESSOR_SECONDS = 0.05
FAREWELL_SECONDS = 0.5
REFUSED_SECONDS = 3.0
"""A little longer than the coordinator takes to give up a predecessor whose end was not reported."""

MARKS_SECONDS = 10.0
"""So often the coordinator is told how far directories have come. It then refuses copies from before."""
TELL_SECONDS = 60.0
"""A request that is rejected again and again is told at most that often, unless for another reason."""

LEAVING = "leaving"

DURABILITY_UNKNOWN = (
    "the coordinator is of a release that keeps nothing about directories, so shards on disk would be lost: "
    "upgrade it first, or give --durability none (GREENROOM_DURABILITY)"
)


class Phase(IntEnum):
    """The phases of a node, in order. It registers, and reports deaths, in the first two only."""

    SERVING = 0
    DRAINING = 1
    STOPPING = 2
    FAREWELL = 3
    FINISHED = 4


_IN_SERVICE = frozenset({Phase.SERVING, Phase.DRAINING})


class NameTakenError(GreenroomError):
    """Another node has taken over this node's name, so this one stops."""


class AgentSettings(msgspec.Struct, frozen=True):
    """The node's identity, with `host` as in `ActorEntry`, and the time that leaving may take at most."""

    name: str
    address: str
    host: str
    drain_seconds: float
    marks_seconds: float = MARKS_SECONDS
    zone: str = ""


class Agent:
    """One run of a node's supervisor."""

    def __init__(self, settings: AgentSettings, now_ns: int) -> None:
        self._settings = settings
        self._now_ns = now_ns
        self._phase = Phase.SERVING
        self._map: ClusterMap | None = None
        self._up = False
        self._error: GreenroomError | None = None
        self._effects: list[fx.AgentEffect] = []
        self._calls = 0
        self._watches = Watches()
        # How far directories have come, by incarnation, and when to tell that.
        self._directory_marks: dict[bytes, int] = {}
        self._tell_marks_ns = now_ns
        self._beat_ns = now_ns
        self._marks_ns = now_ns
        # Entries that the map should have.
        self._registration = Registration(NodeEntry(settings.name, settings.address, UP, settings.zone))
        self._registering: tuple[int, NodeEntry | ActorEntry] | None = None
        self._ask_again_ns = NEVER_NS
        self._refused_since_ns: int | None = None
        self._told_older: set[bytes] = set()
        self._rejection, self._rejection_due_ns = "", now_ns
        self._told_zone = False
        # Known deaths.
        self._unreported: dict[bytes, tuple[Suspicion, ...]] = {}
        self._reporting: tuple[int, tuple[bytes, ...]] | None = None
        self._report_ns = now_ns
        self._look_ns = NEVER_NS
        # Leaving.
        self._drain: Drain | None = None
        self._removing: int | None = None
        self._farewell_ns = NEVER_NS

    @property
    def joined(self) -> bool:
        """Whether the coordinator has registered this node under its name."""
        return self._registration.joined

    @property
    def serving(self) -> bool:
        """Whether it has not been asked to stop, nor to leave."""
        return self._phase == Phase.SERVING

    @property
    def leaving(self) -> bool:
        """Whether it was asked to hand everything over and leave."""
        return self._drain is not None

    def step(self, now_ns: int, event: ins.AgentInput) -> list[fx.AgentEffect]:
        """Take an event; return the effects to perform, in order."""
        self._now_ns = now_ns
        self._take(event)
        if self._phase in _IN_SERVICE:
            self._register()
            self._look()
        if self._phase == Phase.DRAINING:
            self._leave_when_drained()
        if self._phase != Phase.FINISHED:
            self._report()
            self._beat()
            self._watch()
        if self._phase == Phase.FAREWELL:
            self._say_farewell()
        effects, self._effects = self._effects, []
        return effects

    def next_deadline(self) -> int:
        """Return when a `Tick` is due, in nanoseconds of the clock of `step`."""
        if self._phase == Phase.FINISHED:
            return NEVER_NS
        due = min(self._beat_ns, self._farewell_ns)
        if self._registration.actors:
            due = min(due, self._marks_ns)
        if self._unreported and self._reporting is None and self.joined:
            due = min(due, self._report_ns)
        if self._phase in _IN_SERVICE:
            due = min(due, self._ask_again_ns, self._look_ns)
        if self._phase == Phase.DRAINING and self._drain is not None:
            due = min(due, self._drain.next_deadline())
        return due

    def _take(self, event: ins.AgentInput) -> None:
        match event:
            case ins.MapSeen(map=seen):
                self._map = seen
                self._effects.append(fx.Publish(seen))
                self._registration.renew()
                self._tell_zone(seen)
                self._look_ns = self._now_ns
            case ins.CoordinatorUp():
                self._up = True
                self._registration.meet()
                # A restarted coordinator learns from a heartbeat who owns the name.
                self._beat_ns = self._tell_marks_ns = self._now_ns
            case ins.CoordinatorDown():
                self._up = False
            case ins.CoordinatorRefused(reason=reason):
                if self._map is None:
                    self._fail(UsageError(reason))
            case ins.Answered():
                self._take_answer(event)
            case ins.DrainAsked() if self._phase == Phase.SERVING and self.joined:
                self._begin_to_drain()
            case ins.DrainAsked() | ins.StopAsked():
                self._stop()
            case ins.ChildrenStopped() if self._phase == Phase.STOPPING:
                self._phase = Phase.FAREWELL
                self._farewell_ns = self._now_ns + _ns(FAREWELL_SECONDS)
            case ins.ChildrenStopped() | ins.Tick():
                pass
            case _:
                self._take_child(event)

    def _take_child(
        self, event: ins.ChildStarting | ins.ChildReady | ins.MarksRead | ins.ChildEnded | ins.Looked
    ) -> None:
        match event:
            case ins.ChildStarting(slot=slot, incarnation=incarnation):
                self._watches.begin(slot, incarnation)
            case ins.ChildReady(incarnation=incarnation):
                self._registration.actors[incarnation] = self._entry_of(event)
            case ins.MarksRead(marks=marks):
                self._note_marks(marks)
                if told := self._watches.look(marks):
                    self._effects += told
                    # The coordinator should know before the actor's shards are taken over.
                    self._beat_ns = self._now_ns
            case ins.ChildEnded(mark=mark, exit_status=status):
                self._registration.actors.pop(mark.incarnation, None)
                self._note_marks((mark,))
                crashed = has_crashed(status)
                self._unreported[mark.incarnation], told = self._watches.end(mark, crashed=crashed)
                self._effects += told
            case ins.Looked(running=running, gone=gone):
                for incarnation in gone:
                    self._unreported.setdefault(incarnation, ())
                if running:
                    # They end within moments of their supervisor.
                    self._look_ns = self._now_ns + _ns(PREDECESSOR_SECONDS)

    # --- reports to the coordinator ----------------------------------------------------------------------

    def _beat(self) -> None:
        if self._now_ns < self._beat_ns:
            return
        self._beat_ns = self._now_ns + _ns(HEARTBEAT_SECONDS)
        # None once it has asked to be removed: the heartbeat would be that of an unknown node.
        if self.joined and self._removing is None:
            marks = self._marks_to_tell()
            self._effects.append(fx.Heartbeat(self._settings.name, self._watches.suspicions, marks))

    def _note_marks(self, marks: Iterable[ins.RecordMark]) -> None:
        for each in marks:
            if each.directory_mark:
                self._directory_marks[each.incarnation] = each.directory_mark

    def _marks_to_tell(self) -> tuple[tuple[bytes, int], ...]:
        """Return how far the directories of running actors have come, if that is due."""
        if self._now_ns < self._tell_marks_ns or not self._up:
            return ()
        running = self._registration.actors
        marks = tuple((key, mark) for key, mark in self._directory_marks.items() if key in running)
        if marks:
            self._tell_marks_ns = self._now_ns + _ns(self._settings.marks_seconds)
        return marks

    def _watch(self) -> None:
        if self._now_ns >= self._marks_ns and self._registration.actors:
            self._marks_ns = self._now_ns + _ns(WATCH_SECONDS)
            self._effects.append(fx.ReadMarks())

    def _call(self, request: fx.AgentRequest) -> int:
        self._calls += 1
        self._effects.append(fx.Call(self._calls, request))
        return self._calls

    def _take_answer(self, answer: ins.Answered) -> None:
        accepted = isinstance(answer.reply, Accepted)
        if isinstance(answer.reply, Rejected):
            self._rejected(answer.call, answer.reply)
        if self._registering is not None and self._registering[0] == answer.call:
            entry, self._registering = self._registering[1], None
            self._registered(entry, accepted=accepted)
        elif self._reporting is not None and self._reporting[0] == answer.call:
            dead, self._reporting = self._reporting[1], None
            self._reported(dead, accepted=accepted)
        elif self._removing == answer.call:
            self._finish(removed=accepted)

    def _rejected(self, call: int, reply: Rejected) -> None:
        if reply.code == NAME_TAKEN:
            self._name_taken(reply.reason)
        elif reply.code == DIRECTORY_OLDER and self._registering is not None and self._registering[0] == call:
            self._tell_older(self._registering[1], reply.reason)
        elif reply.reason != self._rejection or self._now_ns >= self._rejection_due_ns:
            self._rejection, self._rejection_due_ns = reply.reason, self._now_ns + _ns(TELL_SECONDS)
            self._log("warning", "request_rejected", reason=reply.reason)

    def _tell_older(self, entry: NodeEntry | ActorEntry, reason: str) -> None:
        """Tell once that an actor runs in an older copy of its directory. It is asked for again, in vain."""
        if isinstance(entry, ActorEntry) and entry.incarnation not in self._told_older:
            self._told_older.add(entry.incarnation)
            known = entry.directory.hex()
            self._log("warning", "directory_rejected", slot=entry.slot, directory_id=known, reason=reason)

    def _tell_zone(self, seen: ClusterMap) -> None:
        """Tell once that the coordinator keeps no zones: shards are then not kept apart by ours."""
        if not self._told_zone and self._registration.zone_is_lost(seen):
            self._told_zone = True
            hint = "the coordinator is of a release that knows no zones: upgrade it"
            self._log("warning", "zone_not_kept", zone=self._settings.zone, hint=hint)

    def _name_taken(self, reason: str) -> None:
        """Retry until the coordinator has given up a predecessor; never fight one that is alive."""
        if self.joined:
            if self._error is None:
                self._log("error", "name_taken_over", node=self._settings.name, reason=reason)
            self._fail(NameTakenError(f"this node's name was taken over while it was silent: {reason}"))
        elif self._refused_since_ns is None:
            self._refused_since_ns = self._now_ns
            self._log("info", "name_refused", node=self._settings.name, reason=reason)
        elif self._now_ns - self._refused_since_ns >= _ns(REFUSED_SECONDS):
            self._fail(UsageError(reason))

    # --- registering -------------------------------------------------------------------------------------

    def _register(self) -> None:
        """Register what the map lacks: this node in its present state, and every ready actor."""
        if self._now_ns >= self._ask_again_ns:
            self._ask_again_ns = NEVER_NS
            self._registration.ask_again()
        if self._map is None or not self._up or self._registering is not None:
            return
        if self.joined and not self._keep_own(self._map):
            return
        entry = self._registration.missing(self._map)
        if isinstance(entry, NodeEntry):
            self._registering = (self._call(RegisterNode(0, entry)), entry)
        elif entry is not None:
            self._registering = (self._call(RegisterActor(0, entry)), entry)

    def _entry_of(self, child: ins.ChildReady) -> ActorEntry:
        return ActorEntry(
            incarnation=child.incarnation,
            node=self._settings.name,
            slot=child.slot,
            address=child.address,
            state=UP,
            host=self._settings.host,
            pid=child.pid,
            started_ticks=child.started_ticks,
            durability=child.durability,
            directory=child.directory,
            mark=child.mark,
        )

    def _keep_own(self, cluster_map: ClusterMap) -> bool:
        """Give up actors that count as dead; False if one is registered by another node."""
        dead, foreign = self._registration.contested(cluster_map)
        for actor in dead:
            # An operator forgot it while it was unreachable. Only a new incarnation can return.
            self._log("warning", "actor_counts_as_dead", slot=actor.slot)
            del self._registration.actors[actor.incarnation]
            self._effects.append(fx.KillChild(actor.slot))
        if foreign and cluster_map.actors[foreign[0].incarnation] == without_directory(foreign[0]):
            self._fail(UsageError(DURABILITY_UNKNOWN))
        elif foreign:
            self._name_taken(f"another has registered {foreign[0].slot}: give this one another --name")
        return not foreign

    def _registered(self, entry: NodeEntry | ActorEntry, *, accepted: bool) -> None:
        if not accepted:
            self._registration.refuse(entry)
            self._ask_again_ns = self._now_ns + _ns(RETRY_SECONDS)
            return
        self._registration.accept(entry)
        if isinstance(entry, ActorEntry):
            self._log("info", "actor_registered", slot=entry.slot, incarnation=entry.incarnation.hex())
        elif not self.joined:
            self._registration.joined = True
            self._log("info", "node_joined", node=entry.name, address=entry.address)

    # --- deaths ------------------------------------------------------------------------------------------

    def _report(self) -> None:
        """Report deaths, once this node owns its name: only the owner may."""
        due = self.joined and self._now_ns >= self._report_ns
        if not due or not self._unreported or self._reporting is not None:
            return
        dead = tuple(self._unreported)
        suspicions = bounded(chain.from_iterable(self._unreported.values()))
        ends = ((each, self._directory_marks.get(each, 0)) for each in dead)
        marks = tuple((incarnation, mark) for incarnation, mark in ends if mark)
        self._reporting = (self._call(ReportDead(0, dead, suspicions, marks)), dead)

    def _reported(self, dead: tuple[bytes, ...], *, accepted: bool) -> None:
        if not accepted:
            self._report_ns = self._now_ns + _ns(RETRY_SECONDS)
            return
        for incarnation in dead:
            self._unreported.pop(incarnation, None)
            self._directory_marks.pop(incarnation, None)
        self._log("info", "deaths_reported", incarnations=[incarnation.hex() for incarnation in dead])

    def _look(self) -> None:
        """Ask whether actors that a former supervisor of this node registered still run on this host."""
        if self._now_ns < self._look_ns or self._map is None:
            return
        self._look_ns = NEVER_NS
        left = tuple(actor for actor in self._map.actors.values() if self._may_bury(actor))
        if left:
            self._effects.append(fx.LookFor(left))

    def _may_bury(self, actor: ActorEntry) -> bool:
        return (
            actor.node == self._settings.name
            and actor.host == self._settings.host
            and actor.state != DEAD
            and actor.incarnation not in self._registration.actors
            and actor.incarnation not in self._unreported
        )

    # --- leaving -----------------------------------------------------------------------------------------

    def _begin_to_drain(self) -> None:
        self._phase = Phase.DRAINING
        self._drain = Drain(self._settings.name, self._settings.drain_seconds, self._now_ns)
        self._registration.node = msgspec.structs.replace(self._registration.node, state=LEAVING)

    def _leave_when_drained(self) -> None:
        if self._drain is not None and self._drain.look(self._now_ns, self._map):
            self._stop()

    def _fail(self, error: GreenroomError) -> None:
        self._error = self._error or error
        self._stop()

    def _stop(self) -> None:
        if self._phase >= Phase.STOPPING:
            return
        self._phase = Phase.STOPPING
        drain = self._drain
        if drain is not None and drain.shards_held and self._error is None:
            self._log(
                "warning",
                "not_all_handed_over",
                shards=drain.shards_held,
                others_up=drain.others_up,
                hint=drain.hint(self._now_ns),
            )
        self._effects.append(fx.StopChildren())

    def _say_farewell(self) -> None:
        """Report that all actors have stopped; if the node leaves for good, ask to remove it from the map."""
        held = shards_held(self._settings.name, self._map)
        if self._now_ns >= self._farewell_ns:
            self._finish(removed=False)
        elif self._removing is not None or (self.joined and self._unreported and self._up):
            return
        elif self._drain is not None and self._error is None and not held:
            self._removing = self._call(RemoveNode(0, self._settings.name))
        else:
            self._finish(removed=False)

    def _finish(self, *, removed: bool) -> None:
        self._phase = Phase.FINISHED
        self._farewell_ns = NEVER_NS
        self._log("info", "node_stopped", node=self._settings.name, removed=removed)
        self._effects.append(fx.Finished(removed, self._error))

    def _log(self, level: fx.Level, event: str, **fields: object) -> None:
        self._effects.append(fx.Log(level, event, fields))


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
