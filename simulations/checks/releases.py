"""A rule of releases: an actor of one that knows no namespaces gets nothing of them, and no eviction."""

from greenroom.ids import DIGEST_BYTES
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import Prepare, SnapshotChunk
from greenroom_cluster.shard.state.namespaces import is_named
from greenroom_cluster.shard.state.records import Evict
from simulations.cluster.actors import ActorProcess
from simulations.cluster.stage import Stage


def check_former(stage: Stage, actor: ActorProcess, event: ins.HostInput) -> None:
    """Judge what reaches an actor of a former release."""
    if not actor.former_release or not isinstance(event, ins.PeerMessages):
        return
    for message in event.messages:
        unread = False
        if isinstance(message, Prepare):
            records = [record for part in message.entries for record in part.records]
            unread = any(isinstance(record.command, Evict) or is_named(record.command) for record in records)
        elif isinstance(message, SnapshotChunk):
            unread = any(len(session.digest) > DIGEST_BYTES for session in message.sessions)
        if unread:
            stage.violate("release", f"{actor.name} is sent what its release cannot read")
