"""Operators read a shard as it stood at one moment, and freeze an actor whose last word they want."""

from greenroom import wire
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.clients.copies import COPIES_MAX, COPY_IDLE_SECONDS, FROZEN
from greenroom_cluster.shard.clients.operations import CopyShard, Freeze, ShardPart
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.records import StoredSession
from tests.cluster.shard.probe import Probe, create
from tests.cluster.shard.test_memory import digest


def primary(**settings: int) -> Probe:
    """Return the only replica of a shard, with ten sessions."""
    probe = Probe(HostSettings(**settings))
    probe.start_alone()
    for number in range(10):
        probe.ask(create(number + 1, digest(number), b"\x81\xa1n" + bytes([number])))
    return probe


def read(probe: Probe, part: int, *, connection: int = 7, shard: int = 0) -> object:
    effects = probe.step(ins.ClientRequests(connection, b"o" * 16, [CopyShard(part + 1, shard, part)]))
    (reply,) = (effect.message for effect in effects if isinstance(effect, ReplyToClient))
    return reply


def read_all(probe: Probe, connection: int = 7) -> list[StoredSession]:
    sessions: list[StoredSession] = []
    for number in range(100):
        part = read(probe, number, connection=connection)
        assert isinstance(part, ShardPart)
        assert part.part == number
        sessions += part.sessions
        if part.last:
            return sessions
    raise AssertionError("a copy without an end")


def test_a_copy_has_every_session() -> None:
    copied = read_all(primary())
    assert {each.digest for each in copied} == {digest(number) for number in range(10)}
    assert {each.state.data[-1] for each in copied} == set(range(10))


def test_a_large_shard_comes_in_parts() -> None:
    probe = primary(chunk_bytes=300)
    first = read(probe, 0)
    assert isinstance(first, ShardPart)
    assert not first.last
    assert 1 <= len(first.sessions) < 10
    assert len(read_all(probe)) == 10


def test_what_changes_meanwhile_is_not_in_the_copy() -> None:
    probe = primary(chunk_bytes=1)
    first = read(probe, 0)
    assert isinstance(first, ShardPart)
    probe.ask(wire.DeleteByUser(50, 1, 0, "nobody", b"", (0,)))
    for number in range(10):
        probe.ask(wire.Delete(60 + number, 1, 0, 0, digest(number)))
    probe.ask(create(80, digest(80)))
    rest = [read(probe, number) for number in range(1, 10)]
    copied = [*first.sessions, *(each for part in rest for each in part.sessions)]  # type: ignore[attr-defined]  # parts, as above
    assert {each.digest for each in copied} == {digest(number) for number in range(10)}
    assert [each.digest for each in read_all(probe)] == [digest(80)]


def test_parts_are_given_in_order_and_once() -> None:
    probe = primary(chunk_bytes=1)
    read(probe, 0)
    for part in (0 + 2, 5):
        refusal = read(probe, part)
        assert isinstance(refusal, wire.Failed)
        assert refusal.code == wire.FailureCode.NOT_FOUND
    assert isinstance(read(probe, 1), ShardPart)
    assert isinstance(read(probe, 1), wire.Failed)


def test_each_connection_reads_a_copy_of_its_own() -> None:
    probe = primary(chunk_bytes=1)
    read(probe, 0, connection=7)
    read(probe, 0, connection=8)
    assert isinstance(read(probe, 1, connection=7), ShardPart)
    assert isinstance(read(probe, 1, connection=8), ShardPart)


def test_a_copy_ends_with_its_connection() -> None:
    probe = primary(chunk_bytes=1)
    read(probe, 0)
    probe.step(ins.ConnectionClosed(7))
    assert isinstance(read(probe, 1), wire.Failed)


def test_only_so_many_copies_are_read_at_a_time() -> None:
    probe = primary(chunk_bytes=1)
    for connection in range(COPIES_MAX):
        assert isinstance(read(probe, 0, connection=connection), ShardPart)
    assert isinstance(read(probe, 0, connection=100), wire.Overloaded)
    probe.step(ins.ConnectionClosed(3))
    assert isinstance(read(probe, 0, connection=100), ShardPart)


def test_a_copy_that_is_not_read_on_ends() -> None:
    """It keeps in memory what is replaced meanwhile, and stands in the way of other copies."""
    probe = primary(chunk_bytes=1)
    for connection in range(COPIES_MAX):
        read(probe, 0, connection=connection)
    probe.after(COPY_IDLE_SECONDS - 1)
    assert isinstance(read(probe, 1, connection=0), ShardPart)
    probe.after(2)
    assert isinstance(read(probe, 2, connection=0), ShardPart), "this one is being read"
    assert isinstance(read(probe, 1, connection=1), wire.Failed)
    assert isinstance(read(probe, 0, connection=100), ShardPart)


def test_a_step_gives_one_part() -> None:
    """A frame that asks for hundreds would hold up everybody else for as long as all of them take."""
    probe = primary(chunk_bytes=1)
    effects = probe.step(ins.ClientRequests(7, b"o" * 16, [CopyShard(n + 1, 0, 0) for n in range(256)]))
    replies = [effect.message for effect in effects if isinstance(effect, ReplyToClient)]
    assert [type(each) for each in replies] == [ShardPart] + [wire.Overloaded] * 255


def test_an_actor_that_is_frozen_ends_the_copies_of_before() -> None:
    """They lack what was written since, and the last copies need their place."""
    probe = primary(chunk_bytes=1)
    for connection in range(COPIES_MAX):
        read(probe, 0, connection=connection)
    probe.ask(Freeze(1))
    assert isinstance(read(probe, 1, connection=3), wire.Failed)
    assert len(read_all(probe, connection=100)) == 10


def test_who_is_not_primary_gives_no_copy() -> None:
    probe = Probe()
    assert isinstance(read(probe, 0), wire.Failed), "before the first map"
    probe.become_backup()
    for shard in (-1, 0, 1, 1 << 62):
        assert isinstance(read(probe, 0, shard=shard), wire.Failed)


def test_a_primary_that_may_not_answer_reads_gives_no_copy() -> None:
    probe = Probe()
    probe.become_primary()
    assert isinstance(read(probe, 0), ShardPart)
    probe.after(30)
    assert isinstance(read(probe, 0), wire.Overloaded), "its lease has run out"


def test_a_frozen_actor_serves_operators_alone() -> None:
    probe = primary()
    assert probe.ask(Freeze(1)) == [wire.Written(1, 0)]
    assert probe.ask(create(90, digest(90)), wire.Get(91, 0, digest(1))) == [
        wire.Overloaded(90, FROZEN),
        wire.Overloaded(91, FROZEN),
    ]
    assert probe.ask(wire.Clean(92, 1, 0, (0,)), wire.ListByUser(93, "u", 5, (0,))) == [
        wire.Overloaded(92, FROZEN),
        wire.Overloaded(93, FROZEN),
    ]
    (inspection,) = probe.ask(wire.Inspect(94))
    assert isinstance(inspection, wire.Inspection)
    assert len(read_all(probe)) == 10


def test_what_was_logged_before_a_freeze_is_in_the_copy() -> None:
    """The answer to it may have been sent, so a copy waits until nothing is under way."""
    probe = Probe()
    probe.become_primary()
    probe.ask(create(1, digest(1)))
    (prepare,) = probe.prepares()
    probe.ask(Freeze(2))
    assert isinstance(read(probe, 0), wire.Overloaded), "the backup has not acknowledged it"
    probe.acknowledge(prepare)
    assert [each.digest for each in read_all(probe)] == [digest(1)]


def test_what_was_held_is_refused_by_a_freeze() -> None:
    probe = Probe()
    probe.become_primary()
    probe.after(30)
    assert probe.ask(wire.Get(1, 0, digest(1))) == [], "held for want of a lease"
    effects = probe.step(ins.ClientRequests(9, b"o" * 16, [Freeze(2)]))
    replies = [effect for effect in effects if isinstance(effect, ReplyToClient)]
    assert replies == [
        ReplyToClient(1, wire.Overloaded(1, FROZEN)),
        ReplyToClient(9, wire.Written(2, 0)),
    ]
