"""What an operator says of a user, and what the core is asked for."""

import msgspec
import pytest

from greenroom import wire
from greenroom.framing import messages_decoder
from greenroom_cluster.shard.clients.operations import EndSession, EndSessions, ListSessions, Operation
from greenroom_cluster.shard.state.namespaces import enclosed
from greenroom_cluster.shard.state.records import Within

_decoder = messages_decoder(Operation)


@pytest.mark.parametrize("namespace", ["web", "a.b-c_1", "x" * 63])
def test_it_becomes_what_a_client_of_the_namespace_asks_for(namespace: str) -> None:
    asked = wire.DeleteByUser(7, 7, 0, "alice", b"", (1, 2))
    assert EndSessions(7, namespace, "alice", (1, 2)).command() == Within(namespace, asked)
    assert EndSessions(7, "default", "alice", (1, 2)).command() == asked


@pytest.mark.parametrize("namespace", ["web", "a.b-c_1", "x" * 63])
def test_a_list_and_one_end_are_those_of_a_client_too(namespace: str) -> None:
    listing = wire.ListByUser(7, "alice", 9, (1, 2))
    assert ListSessions(7, namespace, "alice", 9, (1, 2)).command() == enclosed(listing, namespace)
    assert ListSessions(7, "default", "alice", 9, (1, 2)).command() == listing
    end = wire.DeleteByHandle(7, 7, 0, 5, b"h" * 32, "alice")
    assert EndSession(7, namespace, "alice", 5, b"h" * 32).command() == Within(namespace, end)
    assert EndSession(7, "default", "alice", 5, b"h" * 32).command() == end


@pytest.mark.parametrize("namespace", ["", "a/b", "web\n", "\nweb", "-web", "x" * 64, "w\0eb", "\u00e4"])
def test_what_is_no_namespace_is_not_decoded(namespace: str) -> None:
    """It stands behind the digests in the keys of sessions."""
    for order in ([25, 7, namespace, "alice", [1]], [33, 7, namespace, "alice", 9, [1]]):
        with pytest.raises(msgspec.ValidationError):
            _decoder.decode(msgspec.msgpack.encode([order]))
    with pytest.raises(msgspec.ValidationError):
        _decoder.decode(msgspec.msgpack.encode([[34, 7, namespace, "alice", 5, b"h" * 32]]))


def test_a_good_one_is_decoded() -> None:
    order = EndSessions(7, "web", "alice", (1,))
    assert _decoder.decode(msgspec.msgpack.encode([order])) == [order]
