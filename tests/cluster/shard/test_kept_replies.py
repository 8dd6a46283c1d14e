"""Kept replies: until the client confirms them, or is forgotten."""

from greenroom import wire
from greenroom_cluster.shard.state.kept_replies import ClientTable
from greenroom_cluster.shard.state.records import KeptReply
from tests.cluster.shard.probe import CLIENT


def kept(table: ClientTable) -> set[int]:
    return {kept.request_id for kept in table.replies()}


def test_answers_are_kept_until_the_client_confirms_them() -> None:
    table = ClientTable()
    for request_id in (1, 2, 3):
        table.keep(KeptReply(CLIENT, request_id, wire.Written(request_id, 1)), 1, 10 * request_id)
    assert kept(table) == {1, 2, 3}
    table.keep(KeptReply(CLIENT, 5, wire.Written(5, 1)), 3, 50)
    assert kept(table) == {3, 5}
    assert table.get(CLIENT).low == 3
    table.keep(KeptReply(CLIENT, 4, wire.Written(4, 1)), 2, 60)  # an older watermark takes nothing back
    assert table.get(CLIENT).low == 3
    table.keep(KeptReply(CLIENT, 2, wire.Written(2, 1)), 2, 70)
    assert kept(table) == {3, 4, 5}


def test_only_those_who_have_not_written_since_are_forgotten() -> None:
    table = ClientTable()
    table.keep(KeptReply(b"old", 1, wire.Written(1, 1)), 1, 10)
    table.keep(KeptReply(b"new", 1, wire.Written(1, 1)), 1, 20)
    assert table.silent_since(10) == (b"old",)
    table.forget((b"old", b"new", b"unknown"), 10)
    assert table.get(b"old") is None
    assert table.get(b"new") is not None
