"""Requests to every shard of a host: answered once, with a limit."""

from greenroom import wire
from greenroom_cluster.shard.fanout import Gather
from tests.cluster.shard.probe import ALICE


def test_a_fan_out_is_answered_once_and_names_the_shards_that_answered() -> None:
    effects: list = []
    gather = Gather(3, wire.DeleteByUser(9, 1, 0, "u", b"", (0, 1, 2)))
    for _ in range(3):
        gather.expect()
    gather.add(0, wire.Counted(9, ((0, 2),)), effects)
    gather.seal(effects)
    gather.add(2, wire.Redirect(9, 4), effects)
    assert effects == []
    gather.add(1, wire.Counted(9, ((0, 5),)), effects)
    (reply,) = effects
    assert (reply.connection, reply.message) == (3, wire.Counted(9, ((0, 2), (1, 5))))


def test_a_fan_out_that_no_shard_here_can_answer_is_answered_empty_at_once() -> None:
    effects: list = []
    Gather(3, wire.ListByUser(9, "u", 5, (0, 1))).seal(effects)
    assert effects[0].message == wire.Listing(9, (), ())


def test_a_listing_stops_at_its_limit() -> None:
    effects: list = []
    gather = Gather(3, wire.ListByUser(9, "u", 3, (0, 1)))
    handle = wire.SessionHandle(0, ALICE, 1, 2, 3, "")
    for shard in (0, 1):
        gather.expect()
        gather.add(shard, wire.Listing(9, (shard,), (handle, handle)), effects)
    gather.seal(effects)
    assert effects[0].message == wire.Listing(9, (0, 1), (handle,) * 3)


def test_a_listing_of_several_shards_has_the_order_of_each() -> None:
    """By creation, then by digest: the versions of two shards say nothing of each other."""
    effects: list = []
    gather = Gather(3, wire.ListByUser(9, "u", 3, (0, 1)))
    handles = [
        wire.SessionHandle(0, bytes([digest]) * 32, version, created, 9, "")
        for digest, version, created in ((3, 1, 5), (1, 8, 5), (2, 7, 5), (4, 9, 4))
    ]
    for shard, found in ((0, handles[:2]), (1, handles[2:])):
        gather.expect()
        gather.add(shard, wire.Listing(9, (shard,), tuple(found)), effects)
    gather.seal(effects)
    assert effects[0].message.sessions == (handles[0], handles[2], handles[1])
