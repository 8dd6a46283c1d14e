"""What is kept for the clients of one namespace shuts out, and takes away, nothing of another."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.kept_replies import ClientTable
from greenroom_cluster.shard.state.memory import CLIENT_BYTES, REPLY_BYTES
from greenroom_cluster.shard.state.namespaces import client_in
from greenroom_cluster.shard.state.records import KeptReply
from greenroom_cluster.shard.state.sharing import is_over_share
from tests.cluster.shard.probe import create
from tests.cluster.shard.test_namespaces import Tenants

ALICE = b"a" * 32
LARGE = 200_000


def client(number: int) -> bytes:
    return number.to_bytes(16, "big")


def large(request_id: int) -> wire.Create:
    return create(request_id, ALICE, msgspec.msgpack.encode({"x": b"x" * LARGE}), low=request_id)


def patch(request_id: int, low: int) -> wire.Patch:
    """Return one that shows all of the session, and confirms what is below `low`."""
    return wire.Patch(request_id, low, 0, 0, ALICE, (), (), (), None, None)


def admitted(tenants: Tenants, namespace: str, count: int) -> int:
    """Return how many of so many made-up clients a namespace may have."""
    deletions = [
        tenants.ask(namespace, wire.Delete(1, 1, 0, 0, ALICE), client=client(n)) for n in range(count)
    ]
    assert all(isinstance(reply, wire.Written | wire.Overloaded) for (reply,) in deletions)
    return sum(isinstance(reply, wire.Written) for (reply,) in deletions)


@pytest.mark.parametrize("evil", ["", "evil"])
@pytest.mark.parametrize("alone", [True, False])
def test_made_up_clients_of_one_shut_out_nobody_else(alone: bool, evil: str) -> None:
    tenants = Tenants(alone=alone, settings=HostSettings(clients_max=20))
    assert admitted(tenants, evil, 30) == 20
    others = [each for each in ("", "shop", "news") if each != evil]
    assert [admitted(tenants, each, 1) for each in others] == [1] * len(others)
    assert admitted(tenants, evil, 60) == 20, "and no more, though others came"
    (reply,) = tenants.ask(evil, wire.Delete(2, 2, 0, 0, ALICE), client=client(3))
    assert isinstance(reply, wire.Written), "whoever is known goes on"


def test_whoever_comes_finds_as_much_as_those_have_who_want_all() -> None:
    tenants = Tenants(settings=HostSettings(clients_max=60))
    assert [admitted(tenants, each, 70) for each in ("a", "b", "c", "d")] == [60, 30, 15, 7]
    assert len(tenants.table.clients) < 2 * 60


def flood(tenants: Tenants, namespace: str) -> list[type]:
    """Have made-up clients ask for large replies, and confirm none; return what they got at last."""
    tenants.ask(namespace, large(1))
    told = [
        type(reply)
        for number in range(100, 112)
        for request_id in range(1, 9)
        for reply in tenants.ask(namespace, patch(request_id, 0), client=client(number))
    ]
    return told[-8:]


@pytest.mark.parametrize("evil", ["", "evil"])
def test_replies_kept_for_one_namespace_displace_none_of_another(evil: str) -> None:
    tenants = Tenants(settings=HostSettings(memory_bytes_max=16_000_000))
    others = [each for each in ("", "shop") if each != evil]
    kept = {}
    for each in others:
        tenants.ask(each, large(1))
        (kept[each],) = tenants.ask(each, patch(7, 2))
        assert isinstance(kept[each], wire.Session)
    assert flood(tenants, evil) == [wire.Overloaded] * 8
    for each in others:
        assert tenants.ask(each, patch(7, 2)) == [kept[each]], "a repeat still gets its reply"
        for number in (1, 2):
            (reply,) = tenants.ask(each, patch(1, 0), client=client(number))
            assert isinstance(reply, wire.Session), "also a client that is new"
        (reply,) = tenants.ask(each, patch(8, 7))
        assert isinstance(reply, wire.Session)
    assert set(flood(tenants, evil)) == {wire.Overloaded}
    assert tenants.table.clients.charged_bytes < 2 * 16_000_000 // 8 + 4 * LARGE


@given(
    st.lists(
        st.tuples(st.sampled_from(("", "a", "bc")), st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)),
        max_size=40,
    ),
    st.integers(0, 40),
)
def test_what_a_namespace_has_is_counted_as_if_looked_through(
    moves: list[tuple[str, int, int, int]], silent_since: int
) -> None:
    table = ClientTable()

    def check() -> None:
        sizes: Counter[bytes] = Counter()
        for each, known in table.by_id.items():
            sizes[each[16:]] += CLIENT_BYTES + REPLY_BYTES * len(known.replies) + known.kept_bytes
        counts = Counter(each[16:] for each in table.by_id)
        assert table.charged_bytes == sizes.total()
        assert table.named_bytes == {name: size for name, size in sizes.items() if name}
        for name in ("", "a", "bc", "other"):
            assert table.count_beside(client_in(name, client(99))) == counts[name.encode()]

    for time_us, (namespace, number, request_id, low) in enumerate(moves):
        of = client_in(namespace, client(number))
        shown = wire.EncodedSession(request_id, msgspec.Raw(bytes(request_id * 7 + low)))
        table.keep(KeptReply(of, request_id, shown), low, time_us)
        check()
    copy = ClientTable()
    copy.install(table.states(), table.replies())
    assert copy.named_bytes == table.named_bytes
    table.forget(table.silent_since(silent_since), silent_since)
    check()


@given(st.lists(st.integers(0, 5), max_size=300), st.integers(1, 30))
def test_all_shares_together_have_a_bound(order: list[int], most: int) -> None:
    """Nobody is refused for nothing, and in all less than twice is taken of what one may have alone."""
    taken: Counter[int] = Counter()
    for who in order:
        if not is_over_share(taken[who] + 1, taken.total() + 1, most):
            taken[who] += 1
    assert all(count <= most for count in taken.values())
    assert taken.total() < 2 * most
    assert taken.total() >= min(len(order), most)
