"""Every queue has a bound, and what is bounded says so instead of growing."""

import msgspec

from greenroom import wire
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.expiry import BUCKET_US
from tests.cluster.shard.probe import ALICE, WALL_US, Probe, create
from tests.cluster.shard.test_interleavings import quiet, settle


def test_sweeps_do_not_pile_up_while_nothing_commits() -> None:
    probe = Probe()
    probe.become_primary()
    probe.ask(create(1))
    settle(probe)
    quiet(probe, 49)
    appended = probe.replica.log.appended
    for _ in range(100):
        probe.after(1)
    assert probe.replica.log.appended <= appended + 2


def test_held_requests_are_bounded_in_bytes() -> None:
    probe = Probe()
    probe.hand_over()
    replies = [
        reply
        for number in range(1, 41)
        for reply in probe.ask(create(number, bytes([number]) * 32, b"x" * 1_000_000))
    ]
    assert 30 < len(replies) < 34
    assert all(isinstance(reply, wire.Overloaded) for reply in replies)
    probe.step(ins.ConnectionClosed(1))
    assert probe.ask(create(50)) == []


def test_reads_of_an_expired_session_are_bounded_while_nothing_commits() -> None:
    probe = Probe(msgspec.structs.replace(Probe().host._settings, uncommitted_bytes_max=10_000))
    probe.become_primary()
    probe.ask(msgspec.structs.replace(create(1), expires_us=WALL_US + 1))
    settle(probe)
    probe.wall_us += 10
    for number in range(1000):
        probe.ask(wire.Get(number, 0, ALICE))
    assert probe.replica.log.held_bytes < 20_000


def test_a_listing_decides_a_bounded_number_of_expired_sessions() -> None:
    probe = Probe()
    probe.start_alone()
    for number in range(1200):
        digest = number.to_bytes(32, "big")
        probe.ask(msgspec.structs.replace(create(number, digest), user_id="u", expires_us=WALL_US + 5))
    probe.wall_us += 10
    before = probe.replica.log.appended
    (listing,) = probe.ask(wire.ListByUser(5000, "u", 10, (0,)))
    assert listing == wire.Listing(5000, (0,), ())
    assert probe.replica.log.appended == before + 3


def test_a_fan_out_is_logged_without_the_list_of_its_shards() -> None:
    probe = Probe()
    probe.become_primary()
    probe.ask(wire.DeleteByUser(1, 1, 0, "u", b"", tuple(range(4096))))
    (sent,) = probe.prepares()
    assert sent.entries[0].records[0].command.shards == ()


def test_sessions_that_end_at_once_are_removed_in_small_steps() -> None:
    """The steps follow each other soon."""
    probe = Probe()
    probe.start_alone()
    for number in range(1000):
        digest = number.to_bytes(32, "big")
        probe.ask(msgspec.structs.replace(create(number, digest), expires_us=WALL_US + 5))
    left, steps, began_ns = 1000, 0, probe.now_ns + int(BUCKET_US * 1000)
    probe.after(BUCKET_US / 1e6)
    while left:
        now = len(probe.replica.table.sessions)
        assert left - now <= HostSettings().sweep_looks_max
        left, steps = now, steps + 1
        probe.after((probe.host.next_deadline() - probe.now_ns) / 1e9)
    assert steps >= 1000 / HostSettings().sweep_looks_max
    assert probe.now_ns - began_ns < 2e9
