"""One step applies a bounded part of what is committed; the rest follows at once, and nothing is lost."""

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import ShardEntry
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import Beacon, Prepare, PrepareOk, ShardRecords
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.records import Record
from greenroom_cluster.shard.state.stored import as_received
from tests.cluster.shard.harness import World, create, get
from tests.cluster.shard.probe import CLIENT, ME, WALL_US, B, Probe, chunk, record
from tests.cluster.shard.probe import create as creation

LARGE = b"\x81\xa1a\xc6" + (100_000).to_bytes(4, "big") + bytes(100_000)


def digest_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def patch(number: int, digest: bytes) -> wire.Patch:
    return wire.Patch(number, 1, 0, 0, digest, ((("c",), b"\x01"),), (), (), None, None)


def log_on(probe: Probe, commands: list[wire.Mutation], committed: int) -> None:
    records = tuple(record(10 + n, command) for n, command in enumerate(commands, 1))
    probe.hear(B, Prepare(1, (ShardRecords(0, 2, committed, records),)))


WALKED = b"\x82\xa1b\xc4\x00\xa1a\xdc\x08\x00" + b"\x01" * 2048
"""Bytes beside two thousand items, which are read in Python."""


def test_patches_of_what_is_read_in_python_count_for_more() -> None:
    probe = Probe()
    probe.become_backup()
    commands: list[wire.Mutation] = [creation(1, digest_of(1), WALKED)]
    commands += [patch(n, digest_of(1)) for n in range(2, 42)]
    log_on(probe, commands, 51)
    assert probe.replica.committed <= 10 + 6
    assert ticks_until_applied(probe, 51) > 7


def test_a_frame_of_what_is_read_in_python_is_read_in_steps() -> None:
    probe = Probe()
    probe.start_alone()
    frame = [creation(n, digest_of(n), WALKED) for n in range(1, 41)]
    refused = [creation(n, digest_of(n), WALKED[:-1]) for n in range(41, 81)]
    effects = probe.step(ins.ClientRequests(1, CLIENT, [*refused, *frame], "host"))
    replies = {
        reply.message.request_id: reply.message for reply in effects if isinstance(reply, fx.ReplyToClient)
    }
    assert 0 < len(replies) <= 5
    assert probe.replica.table.sessions == {}
    while len(replies) < 80:
        assert probe.host.next_deadline() <= probe.now_ns, "what is left is due at once"
        effects = probe.step(ins.Tick())
        found = {
            reply.message.request_id: reply.message
            for reply in effects
            if isinstance(reply, fx.ReplyToClient)
        }
        assert len(found) == 1
        replies |= found
    assert all(isinstance(replies[n], wire.Written) for n in range(1, 41))
    assert all(isinstance(replies[n], wire.Failed) for n in range(41, 81))


def ticks_until_applied(probe: Probe, sequence: int) -> int:
    ticks = 0
    while probe.replica.committed < sequence:
        assert probe.host.next_deadline() <= probe.now_ns, "what is left is due at once"
        before = probe.replica.committed
        probe.step(ins.Tick())
        assert probe.replica.committed > before
        ticks += 1
    return ticks


def test_a_backup_applies_many_records_in_steps() -> None:
    probe = Probe()
    probe.become_backup()
    log_on(probe, [creation(n, digest_of(n)) for n in range(1, 4001)], 10)
    answers = probe.hear(B, Beacon(1, 0, ((0, 2, 4010, WALL_US),)))
    assert len(answers) == 1, "the lease is granted before everything is applied"
    assert 10 < probe.replica.committed < 4010
    assert ticks_until_applied(probe, 4010) >= 1
    assert len(probe.replica.table.sessions) == 4000


def test_patches_of_large_sessions_count_with_what_they_open() -> None:
    probe = Probe()
    probe.become_backup()
    commands: list[wire.Mutation] = [creation(1, digest_of(1), LARGE)]
    commands += [patch(n, digest_of(1)) for n in range(2, 22)]
    log_on(probe, commands, 31)
    most = max(1, HostSettings().step_bytes // 100_000)
    assert probe.replica.committed <= 10 + most
    assert ticks_until_applied(probe, 31) >= 20 // most


def test_a_primary_applies_and_answers_in_steps() -> None:
    probe = Probe()
    probe.become_primary()
    requests = [creation(n, digest_of(n), LARGE) for n in range(1, 41)]
    probe.step(ins.ClientRequests(1, CLIENT, requests))
    answered: list[int] = []

    def note(effects: list[fx.HostEffect]) -> None:
        answered.extend(each.message.request_id for each in effects if isinstance(each, fx.ReplyToClient))

    waiting = probe.prepares()
    steps = 0
    while len(answered) < 40:
        if waiting:
            note(probe.step(ins.PeerMessages(B, [PrepareOk(waiting.pop(0).batch)])))
        else:
            note(probe.step(ins.Tick()))
        waiting += probe.prepares()
        steps += 1
        assert steps < 60
    assert answered == list(range(1, 41))
    assert steps > 4


def test_a_backup_that_is_behind_takes_over_with_everything() -> None:
    probe = Probe()
    probe.become_backup()
    log_on(probe, [creation(n, digest_of(n)) for n in range(1, 4001)], 4010)
    assert probe.replica.committed < 4010
    probe.after(1.3)
    proposal = probe.proposal("takeover")
    probe.configure(3, (proposal.primary,), nonce=proposal.nonce, dead="b")
    assert probe.replica.committed == 4010
    assert len(probe.replica.table.sessions) == 4000
    probe.step(ins.Tick())


def test_who_takes_over_serves_once_all_is_applied_and_applies_it_in_steps() -> None:
    probe = Probe()
    probe.become_backup()
    log_on(probe, [creation(n, digest_of(n)) for n in range(1, 4001)], 10)
    probe.configure(2, (B, ME), dead="b")
    proposal = probe.proposal("takeover")
    answers = probe.configure(3, (proposal.primary,), nonce=proposal.nonce, dead="b")
    assert 10 < probe.replica.committed < 1000
    assert not probe.serves()
    assert not probe.ask(
        wire.Get(1, 0, digest_of(1)), creation(4000, digest_of(4000)), creation(5000, digest_of(4001))
    )
    answers = []
    while probe.replica.committed < 4010:
        assert not [each for each in answers if isinstance(each, fx.ReplyToClient)]
        assert probe.host.next_deadline() <= probe.now_ns
        answers = probe.step(ins.Tick())
    read, repeated, written = (each.message for each in answers if isinstance(each, fx.ReplyToClient))
    assert isinstance(as_received(read), wire.Session)
    assert isinstance(repeated, wire.Written), "the answer to what stands in the log"
    assert isinstance(written, wire.Written)


def test_who_serves_nobody_yet_is_applied_before_what_a_backup_lacks() -> None:
    probe = Probe(shards=2)
    probe.configure(1, (B,), wanted="ba")
    for shard in (0, 1):
        probe.hear(B, msgspec.structs.replace(chunk(epoch=1, join=7, last=True), shard=shard))
    probe.configure(2, (B, ME), wanted="ba")
    backed, taken = (probe.host.replicas[shard] for shard in (0, 1))
    assert backed is not None
    assert taken is not None
    records = tuple(record(10 + n, creation(n, digest_of(n))) for n in range(1, 2001))
    probe.hear(B, Beacon(1, 0), Prepare(1, (ShardRecords(0, 2, 2010, records),)))
    assert backed.committed < 2010
    probe.hear(B, Prepare(2, (ShardRecords(1, 2, 10, records),)))
    before = backed.committed
    taken.adopt(probe.now_ns, probe.wall_us, ShardEntry(3, ME, (), b"n" * 16, (), None))
    ticks = 0
    while taken.committed < 2010:
        assert backed.committed == before, "its primary serves meanwhile"
        assert probe.host.next_deadline() <= probe.now_ns, "what is left is due at once"
        probe.step(ins.Tick())
        ticks += 1
    assert ticks > 2
    while backed.committed < 2010:
        assert probe.host.next_deadline() <= probe.now_ns
        probe.step(ins.Tick())
    assert len(backed.table.sessions) == len(taken.table.sessions) == 2000


def test_a_replica_that_was_given_up_is_not_gone_on_with() -> None:
    probe = Probe()
    probe.become_backup()
    log_on(probe, [creation(n, digest_of(n)) for n in range(1, 4001)], 4010)
    probe.configure(3, (B,))
    assert probe.replica is None
    probe.step(ins.Tick())
    assert probe.host.next_deadline() > probe.now_ns


@pytest.mark.parametrize("seed", range(3))
def test_replicas_become_alike_under_many_large_writes(seed: int) -> None:
    world = World(shards=1, seed=seed)
    world.settle()
    actor = world.primary()
    for number in range(1, 41):
        actor.ask(create(digest_of(number), LARGE)(number))
    world.run_until(lambda: 40 in actor.replies)
    assert all(isinstance(actor.replies[n], wire.Written) for n in range(1, 41))
    assert isinstance(world.call(actor, get(digest_of(3))), wire.Session)
    world.run_until(lambda: world.converged(0))


def test_records_with_made_up_sizes_are_told_what_they_cost() -> None:
    """A record of another epoch than its neighbours, and of a client that is none, counts like any other."""
    probe = Probe()
    probe.become_backup()
    records = (Record(1, 11, WALL_US, b"", wire.Delete(1, 1, 0, 0, digest_of(1))),)
    probe.hear(B, Prepare(1, (ShardRecords(0, 2, 11, records),)))
    assert probe.replica.committed == 11
