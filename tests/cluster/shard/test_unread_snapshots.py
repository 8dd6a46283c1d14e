"""What a former backup has of a snapshot on its disk is read only once it has a role, part by part."""

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import SuspectRecord
from greenroom.errors import InvariantError
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import SnapshotChunk
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.records import StoredSession
from tests.cluster.shard.durable_probe import DurableProbe, recovered, restart
from tests.cluster.shard.probe import FAR_US, ME, WALL_US, B, C, create, prepare
from tests.cluster.shard.small_memory import data, digest

PARTS, EACH = 3, 20
SHORT = HostSettings(memory_bytes_max=10_000_000, step_bytes=4000)
"""A step reads one part."""


def session(number: int) -> StoredSession:
    state = wire.SessionState(1 << 40 | number, FAR_US, WALL_US, None, None, "", 0, data(1000))
    return StoredSession(digest(number), state)


def part(number: int, *, last: bool) -> SnapshotChunk:
    sessions = tuple(session(each) for each in range(number * EACH, (number + 1) * EACH))
    return SnapshotChunk(0, 1, 7, 10, WALL_US, number, last, sessions, (), (), 0, 1)


def backup(*sequences: int) -> DurableProbe:
    """Return a backup with a snapshot of several parts up to record 10, and these records."""
    probe = DurableProbe()
    probe.configure(1, (B,), wanted="ba")
    probe.hear(B, *(part(number, last=number == PARTS - 1) for number in range(PARTS)))
    probe.synced()
    probe.configure(2, (B, ME), wanted="ba")
    probe.synced()
    if sequences:
        probe.hear(B, prepare(*sequences))
        probe.synced()
    return probe


def found(probe: DurableProbe) -> Replica:
    (replica,) = probe.host.found
    return replica


def heir(before: DurableProbe, suspect: SuspectRecord | None = None) -> DurableProbe:
    """Return the actor as it comes back, and recovers the shard."""
    probe = restart(before, SHORT)
    claim = recovered(probe, (B, C), epoch=2)
    probe.configure(3, (ME,), nonce=claim.nonce, wanted="ab", dead="cb", suspect=suspect)
    return probe


def held(probe: DurableProbe) -> int:
    assert probe.replica is not None
    return len(probe.replica.table.sessions)


@pytest.mark.parametrize("sequences", [(), (11, 12)])
def test_an_heir_serves_once_all_of_it_is_read(sequences: tuple[int, ...]) -> None:
    probe = heir(backup(*sequences))
    steps = 0
    while not probe.serves():
        (reply,) = probe.ask(wire.Get(900 + steps, 0, digest(3))) or (None,)
        assert reply is None, "it is held"
        probe.synced()
        probe.step(ins.Tick())
        steps += 1
    assert PARTS - 1 <= steps <= PARTS + 3
    assert held(probe) == PARTS * EACH + min(len(sequences), 1)
    for number in (0, PARTS * EACH - 1):
        (reply,) = probe.ask(wire.Get(1, 0, digest(number)))
        assert isinstance(reply, wire.Session)
    probe.ask(create(5, digest=b"n" * 32))
    assert any(isinstance(effect, fx.ReplyToClient) for effect in probe.synced())


def test_requests_that_were_held_meanwhile_are_answered() -> None:
    probe = heir(backup())
    probe.ask(wire.Get(1, 0, digest(PARTS * EACH - 1)))
    answers: list[object] = []
    while not probe.serves():
        answers += [each for each in probe.synced() if isinstance(each, fx.ReplyToClient)]
        answers += [each for each in probe.step(ins.Tick()) if isinstance(each, fx.ReplyToClient)]
    assert len(answers) == 1


def test_who_may_not_serve_reads_none_of_it_and_is_charged_for_it() -> None:
    before = backup(11)
    probe = restart(before, SHORT)
    replica = found(probe)
    assert len(replica.log.unread) == PARTS
    assert len(replica.table.sessions) == 0
    charged = PARTS * EACH * 1000
    assert charged < probe.host.memory.used_bytes < charged * 1.3


def test_what_a_primary_had_is_read_at_once() -> None:
    before = backup()
    before.configure(3, (ME,), wanted="ab", dead="b")
    before.synced()
    replica = found(restart(before, SHORT))
    assert not replica.log.unread
    assert len(replica.table.sessions) == PARTS * EACH


def test_a_joiner_that_goes_on_reads_it_beside_its_work() -> None:
    probe = restart(backup(11), SHORT)
    probe.configure(3, (B,), wanted="ba", dead="c")
    probe.synced()
    offer = SnapshotChunk(0, 3, 7, 11, WALL_US, 0, True, (), (), (), continues=(10, ((2, 11),)))
    probe.hear(B, offer)
    probe.synced()
    assert probe.replica is not None
    assert held(probe) < PARTS * EACH
    probe.hear(B, prepare(12, epoch=3, committed=12))
    probe.synced()
    assert probe.replica.committed == 10, "nothing is applied before that"
    for _ in range(PARTS + 1):
        probe.step(ins.Tick())
    assert held(probe) == PARTS * EACH + 1
    assert probe.replica.committed == 12
    table = probe.replica.table
    used = table.charged_bytes + table.clients.charged_bytes + probe.replica.log.charged_bytes
    assert probe.host.memory.used_bytes == used


def test_a_suspended_heir_has_read_it() -> None:
    """It has to know whose requests were carried out before."""
    probe = heir(backup(11, 12, 13), SuspectRecord(B, 2, 12))
    assert probe.replica is not None
    assert probe.replica.role.value == "suspended"
    assert not probe.replica.log.unread
    for _ in range(3):
        probe.step(ins.Tick())
    assert probe.replica.committed == 11


def test_a_snapshot_without_its_last_part_ends_the_actor() -> None:
    probe = heir(backup())
    assert probe.replica is not None
    probe.replica.log.unread.pop()
    with pytest.raises(InvariantError, match="last part"):
        probe.step(ins.Tick())


def test_compaction_writes_no_snapshot_of_what_is_not_read() -> None:
    probe = restart(backup(11), SHORT)
    compaction = probe.host._resources.compaction
    assert compaction is not None
    replica = found(probe)
    compaction.rebase(replica)
    probe.step(ins.Tick())
    assert not replica.log.unread
    again = restart(probe, msgspec.structs.replace(SHORT, memory_bytes_max=20_000_000))
    assert sum(map(len, found(again).log.unread)) > PARTS * EACH * 1000
