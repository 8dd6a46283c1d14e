"""What must hold after every event in a world, whatever went wrong in it: the safety argument, watched.

The judge sees more than any participant: every record that any replica applies, every answer that leaves.
It knows nothing of how the protocol works.
"""

from typing import Self

import msgspec

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom_cluster.shard.state.records import Record
from greenroom_cluster.shard.state.table import SessionTable
from tests.cluster.shard.harness import Actor, World

_encoder = msgspec.msgpack.Encoder()


class Tape:
    """Every record that a table applies, in order, until somebody reads it."""

    def __init__(self) -> None:
        self.applied: list[tuple[SessionTable, Record]] = []
        self._original = SessionTable.apply

    def __enter__(self) -> Self:
        original, applied = self._original, self.applied

        def apply(table: SessionTable, record: Record) -> wire.Reply | None:
            applied.append((table, record))
            return original(table, record)

        SessionTable.apply = apply  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        SessionTable.apply = self._original  # type: ignore[method-assign]


class Shard:
    """What the judge knows of one shard since it last began empty, at epoch `born`."""

    def __init__(self, born: int = 0) -> None:
        self.born = born
        self.history: dict[int, bytes] = {}
        self.written: dict[tuple[int, int], bytes] = {}
        self.sequence_of: dict[tuple[bytes, int], int] = {}
        self.acknowledged = 0


class Judge:
    """Watches a world; a violation raises AssertionError at once, in the step that shows it."""

    def __init__(self, world: World, tape: Tape) -> None:
        self.world = world
        self.tape = tape
        self.shards = [Shard() for _ in world.map.shards]
        self.lost_shards: set[int] = set()
        self.checked = 0
        self._epochs: dict[tuple[bytes, int], int] = {}
        self._appended: dict[tuple[bytes, int], tuple[int, int]] = {}
        self._map = world.map
        world.stepped = self.after_step
        world.published = self.on_map
        tape.applied.clear()
        for actor in world.alive():
            self.after_step(actor)

    # --- maps -----------------------------------------------------------------------------------------------

    def on_map(self, full: ClusterMap) -> None:
        """Epochs only rise; a shard whose primary is none of its former members begins empty."""
        for number, (entry, before) in enumerate(zip(full.shards, self._map.shards, strict=True)):
            assert entry.epoch >= before.epoch
            if entry.epoch == before.epoch:
                assert entry.members == before.members
                continue
            assert entry.epoch == before.epoch + 1
            if entry.primary not in before.members:
                dead = {key for key, actor in self._map.actors.items() if actor.state == "dead"}
                dead |= {key for key, actor in full.actors.items() if actor.state == "dead"}
                assert all(member in dead or member not in full.actors for member in before.members)
                self.shards[number] = Shard(entry.epoch)
                if before.epoch:
                    self.lost_shards.add(number)
        self._map = full

    # --- replicas -------------------------------------------------------------------------------------------

    def after_step(self, actor: Actor) -> None:
        """Check what one actor did, then who serves."""
        self.checked += 1
        self._check_applied(actor)
        for replica in actor.host.replicas:
            if replica is None:
                continue
            key = (actor.incarnation, replica.shard)
            assert replica.epoch >= self._epochs.get(key, 0) or replica.receiver is not None
            self._epochs[key] = replica.epoch
            log = replica.log
            assert log.first - 1 <= replica.committed <= log.appended
            self._check_appended(key, replica)
            primary = replica.primary
            if primary is not None:
                settings = actor.world.settings
                assert len(primary.held) <= settings.held_requests_max
                assert log.held_bytes <= settings.uncommitted_bytes_max + (2 << 20)
                for recipient in primary.replication.recipients:
                    assert len(recipient.pair.flights) <= settings.prepares_in_flight_max
                    assert recipient.acknowledged <= log.appended
        for number in range(len(self.shards)):
            self.check_serving(number)

    def check_serving(self, number: int) -> None:
        """At most one serves, and it has applied all that was ever acknowledged."""
        serving = self.world.serving(number)
        assert len(serving) <= 1, f"shard {number}: {[actor.slot for actor in serving]}"
        for actor in serving:
            replica = actor.replica(number)
            assert replica is not None
            shard = self.shards[number]
            assert replica.committed >= shard.acknowledged, (
                f"shard {number}: {actor.slot} serves with {replica.committed} applied, "
                f"but {shard.acknowledged} was acknowledged"
            )

    def _check_applied(self, actor: Actor) -> None:
        """All replicas apply the same records in the same order, and a request of a client only once."""
        applied = self.tape.applied
        if not applied:
            return
        shards = {id(replica.table): replica.shard for replica in actor.host.replicas if replica is not None}
        for table, record in applied:
            number = shards.get(id(table))
            if number is None:
                continue
            shard = self.shards[number]
            if record.epoch < shard.born:
                continue
            encoded = _encoder.encode(record)
            known = shard.history.setdefault(record.sequence, encoded)
            assert known == encoded, f"shard {number}: two records {record.sequence} were applied"
            if record.client:
                asked = (record.client, record.command.request_id)  # type: ignore[union-attr]
                assert shard.sequence_of.setdefault(asked, record.sequence) == record.sequence, (
                    f"shard {number}: {asked[1]} applied twice"
                )
        applied.clear()

    def _check_appended(self, key: tuple[bytes, int], replica) -> None:
        """What one primary wrote at a number in an epoch is the same in every log."""
        log = replica.log
        known, identity = self._appended.get(key, (0, 0))
        first = log.first if identity != id(log) else max(log.first, known + 1)
        shard = self.shards[key[1]]
        for record in log.records(first - 1, log.appended):
            encoded = _encoder.encode(record)
            written = shard.written.setdefault((record.epoch, record.sequence), encoded)
            assert written == encoded, f"shard {key[1]}: two records {record.epoch}/{record.sequence}"
        self._appended[key] = (log.appended, id(log))

    # --- answers --------------------------------------------------------------------------------------------

    def on_reply(self, number: int, client: bytes, request_id: int) -> None:
        """A write was acknowledged to its client: from here on every primary must have it."""
        shard = self.shards[number]
        sequence = shard.sequence_of.get((client, request_id))
        if sequence is not None:
            shard.acknowledged = max(shard.acknowledged, sequence)

    # --- at rest --------------------------------------------------------------------------------------------

    def check_rest(self) -> None:
        """With all faults gone and nothing under way, the members hold the same."""
        for number in range(len(self.shards)):
            assert self.world.converged(number), f"shard {number} differs\n{self.world.describe()}"
