"""Writes down what happens in a world, one line a message, for transcripts that people read.

Times are milliseconds since the narrator began. Beacons that only renew a lease are left out.
"""

from typing import Any

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import (
    Beacon,
    BeaconOk,
    Prepare,
    PrepareOk,
    SnapshotChunk,
    SnapshotOk,
    SnapshotRefused,
)
from tests.cluster.shard.harness import Actor, World, held


class Narrator:
    """Listens to a world. `lines` is the transcript so far."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lines: list[str] = []
        self._began_ns = world.now_ns
        self._epochs = {number: entry.epoch for number, entry in enumerate(world.map.shards)}
        self._perform = world.perform
        self._batches: dict[tuple[bytes, int], int] = {}
        world.perform = self._on_effect  # type: ignore[method-assign]
        world.replied = self._on_reply
        world.published = self._on_map

    def say(self, text: str) -> None:
        """Write a line of one's own."""
        self.lines.append(f"{(self.world.now_ns - self._began_ns) / 1e6:8.1f}  {text}")

    def name(self, incarnation: bytes) -> str:
        """The slot, with a mark for each former incarnation of it."""
        slot = self.world.actors[incarnation].slot
        same = [key for key, actor in self.world.actors.items() if actor.slot == slot]
        return slot.partition("/")[0] + "'" * same.index(incarnation)

    # --- what happens ---------------------------------------------------------------------------------------

    def _on_effect(self, actor: Actor, effect: fx.HostEffect) -> None:
        me = self.name(actor.incarnation)
        match effect:
            case fx.Send(peer=peer, message=message) | fx.ReplyToPeer(peer=peer, message=message):
                text = self._message(actor, peer, message)
                if text:
                    self.say(f"{me} -> {self.name(peer)}  {text}")
            case fx.Propose(proposal=proposal):
                members = ", ".join(self.name(each) for each in (proposal.primary, *proposal.backups))
                self.say(f"{me} -> coordinator  {proposal.kind} at epoch {proposal.epoch}: {members}")
            case fx.Transition(epoch=epoch, role=role, reason=reason):
                self.say(f"{me} is {role} at epoch {epoch}: {reason}")
            case fx.Ignored(what=what, reason=reason) if what != "MapChanged" and "no such" not in reason:
                self.say(f"{me} ignores {what}: {reason}")
        self._perform(actor, effect)

    def _on_reply(self, actor: Actor, connection: int, reply: wire.Reply) -> None:
        self.say(f"{self.name(actor.incarnation)} -> client  {answer(reply)}")

    def _on_map(self, full: ClusterMap) -> None:
        for number, entry in enumerate(full.shards):
            if entry.epoch != self._epochs[number]:
                self._epochs[number] = entry.epoch
                members = ", ".join(self.name(each) for each in entry.members)
                self.say(f"coordinator  epoch {entry.epoch}: {members}")

    def ask(self, actor: Actor, *requests: wire.Request, client: bytes = b"c" * 16) -> None:
        """Send requests of one client to an actor."""
        for request in requests:
            self.say(f"client -> {self.name(actor.incarnation)}  {asked(request)}")
        actor.step(ins.ClientRequests(1, client, list(requests)))

    def _message(self, actor: Actor, peer: bytes, message: Any) -> str:
        match message:
            case Prepare(batch=batch, entries=entries):
                (entry,) = entries
                first, last = entry.records[0], entry.records[-1]
                self._batches[actor.incarnation, batch] = last.sequence
                kind = type(first.command).__name__.lower() if first is last else "..."
                return (
                    f"prepare {_span(first.sequence, last.sequence)} ({kind}) at epoch {entry.shard_epoch}, "
                    f"committed {entry.committed}"
                )
            case PrepareOk(batch=batch, refused=refused):
                through = self._batches.get((peer, batch), 0)
                return (
                    f"logged through {through}" if not refused else f"not logged, left epoch {refused[0][1]}"
                )
            case Beacon(commits=commits):
                return f"beacon, committed {commits[0][2]} at epoch {commits[0][1]}" if commits else ""
            case BeaconOk(refused=refused):
                return f"no longer backs epoch {refused[0][1]}" if refused else ""
            case SnapshotChunk():
                return (
                    f"chunk {message.number} of a snapshot at {message.sequence}: "
                    f"{len(message.sessions)} sessions{', the last' if message.last else ''}"
                )
            case SnapshotOk(number=number):
                return f"has chunk {number}"
            case SnapshotRefused(reason=reason):
                return f"refuses the snapshot: {reason}"
        return type(message).__name__


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}..{last}"


def asked(request: wire.Request) -> str:
    """A request in a few words."""
    return f"{type(request).__name__.lower()} (request {request.request_id})"


def answer(reply: wire.Reply) -> str:
    """A reply in a few words."""
    match reply:
        case wire.Written(version=version):
            return f"written (request {reply.request_id}), version {version >> 40}.{version & (1 << 40) - 1}"
        case wire.Session(state=wire.SessionState(version=version, data=data)):
            return f"session {held(data)!r} (request {reply.request_id})"
        case wire.Redirect(appended=appended):
            return f"redirect (request {reply.request_id}){', may take effect' if appended else ''}"
        case wire.Failed(code=code):
            return f"failed: {wire.FailureCode(code).name} (request {reply.request_id})"
    return f"{type(reply).__name__.lower()} (request {reply.request_id})"
