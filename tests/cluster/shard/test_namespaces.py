"""Namespaces: two tenants that use the same digests, users, dialogs and requests, and meet nowhere."""

import msgspec
import pytest

from greenroom import wire
from greenroom.ids import listed_as
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.joining.snapshot import SnapshotReceiver, SnapshotSender
from greenroom_cluster.shard.messages import PrepareOk
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.records import Record, Within
from greenroom_cluster.shard.state.stored import as_received
from greenroom_cluster.shard.state.table import SessionTable
from tests.cluster.shard.probe import CLIENT, FAR_US, WALL_US, B, Probe, create

ALICE, BOB = b"a" * 32, b"b" * 32
NAMESPACES = ("", "shop", "news", "shop2")


class Tenants:
    """A primary, alone or with a backup that acknowledges, and who asks it for what."""

    def __init__(self, *, alone: bool = True, settings: HostSettings | None = None) -> None:
        self.probe = Probe(settings)
        self.probe.start_alone() if alone else self.probe.become_primary()
        self.logged: list[Record] = []

    @property
    def table(self) -> SessionTable:
        assert self.probe.replica is not None
        return self.probe.replica.table

    def ask(self, namespace: str, *requests: wire.Request, client: bytes = CLIENT) -> list[wire.Reply]:
        event = ins.ClientRequests(1, client, list(requests), namespace=namespace)
        effects = self.probe.step(event)
        for prepare in self.probe.prepares():
            self.logged += [record for part in prepare.entries for record in part.records]
            effects += self.probe.step(ins.PeerMessages(B, [PrepareOk(prepare.batch)]))
        replies = [as_received(each.message) for each in effects if isinstance(each, fx.ReplyToClient)]
        for _ in range(50):
            effects = self.probe.after(0.005)
            replies += [as_received(each.message) for each in effects if isinstance(each, fx.ReplyToClient)]
            if replies:
                break
        return replies

    def data(self, namespace: str, digest: bytes) -> bytes | None:
        (reply,) = self.ask(namespace, wire.Get(999, 0, digest))
        return reply.state.data if isinstance(reply, wire.Session) else None

    def listed(self, namespace: str, user_id: str) -> list[bytes]:
        (reply,) = self.ask(namespace, wire.ListByUser(998, user_id, 99, (0,)))
        assert isinstance(reply, wire.Listing)
        return [each.listed for each in reply.sessions]


def of(number: int, digest: bytes, namespace: str, user_id: str | None = "u") -> wire.Create:
    data = msgspec.msgpack.encode({"of": namespace})
    return msgspec.structs.replace(create(number, digest), user_id=user_id, data=data)


def all_there(tenants: Tenants) -> None:
    """Have each tenant create the same sessions, under the same client and request ids."""
    for namespace in NAMESPACES:
        for number, digest in ((1, ALICE), (2, BOB)):
            (reply,) = tenants.ask(namespace, of(number, digest, namespace))
            assert isinstance(reply, wire.Written), namespace
            assert reply.version


def check_others(tenants: Tenants, changed: str) -> None:
    for namespace in NAMESPACES:
        if namespace != changed:
            for digest in (ALICE, BOB):
                assert tenants.data(namespace, digest) == msgspec.msgpack.encode({"of": namespace})
            assert tenants.listed(namespace, "u") == [listed_as(BOB), listed_as(ALICE)]


ATTACKS = {
    "update": wire.Update(11, 3, 0, 0, ALICE, "v", FAR_US, "", b"\x80", None),
    "delete": wire.Delete(11, 3, 0, 0, ALICE),
    "patch": wire.Patch(11, 3, 0, 0, ALICE, ((("of",), b"\x01"),), (), (), ("v",), None),
    "expire": wire.Patch(11, 3, 0, 0, ALICE, (), (), (), None, WALL_US - 1),
    "rotate": wire.Rotate(11, 3, 0, 0, ALICE, b"n" * 32, (), (), None, None),
    "rotate onto": wire.Rotate(11, 3, 0, 0, ALICE, b"c" * 32, (), (), ("u",), None),
    "by handle": wire.DeleteByHandle(11, 3, 0, 0, listed_as(ALICE), "u"),
    "by digest": wire.DeleteByHandle(11, 3, 0, 0, ALICE, "u"),
    "by user": wire.DeleteByUser(11, 3, 0, "u", b"", (0,)),
    "by user but one": wire.DeleteByUser(11, 3, 0, "u", BOB, (0,)),
    "clean": wire.Clean(11, 3, 0, (0,)),
}


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("attack", list(ATTACKS))
@pytest.mark.parametrize("by", ["", "shop"])
def test_what_one_does_reaches_nothing_of_another(by: str, attack: str, alone: bool) -> None:
    tenants = Tenants(alone=alone)
    all_there(tenants)
    (reply,) = tenants.ask(by, ATTACKS[attack])
    assert not isinstance(reply, wire.Overloaded | wire.Redirect)
    check_others(tenants, by)
    if attack not in ("clean", "expire"):
        assert tenants.data(by, ALICE) != msgspec.msgpack.encode({"of": by})


def test_an_empty_namespace_sees_nothing() -> None:
    tenants = Tenants()
    all_there(tenants)
    assert tenants.data("empty", ALICE) is None
    assert tenants.listed("empty", "u") == []
    assert tenants.ask("empty", wire.DeleteByUser(3, 3, 0, "u", b"", (0,))) == [wire.Counted(3, ((0, 0),))]
    for user_id in ("shop\0u", "shop/u", "u\0shop"):
        assert tenants.listed("", user_id) == []


def test_counts_are_of_the_own_namespace() -> None:
    tenants = Tenants()
    all_there(tenants)
    assert tenants.ask("shop", wire.DeleteByUser(3, 3, 0, "u", BOB, (0,))) == [wire.Counted(3, ((0, 1),))]
    assert tenants.table.usage.of("shop")[0] == 1
    assert tenants.table.usage.of("news")[0] == 2
    assert "" not in tenants.table.usage.by_namespace


def test_kept_replies_are_given_to_nobody_else() -> None:
    """Not even to a client with the same id, which one of another identity never has."""
    tenants = Tenants()
    all_there(tenants)
    patch = wire.Patch(5, 3, 0, 0, ALICE, ((("paid",), b"\xc3"),), (), (), None, None)
    (shown,) = tenants.ask("shop", patch)
    assert isinstance(shown, wire.Session)
    assert tenants.ask("shop", patch) == [shown]
    assert tenants.ask("empty", patch) == [wire.Failed(5, wire.FailureCode.NOT_FOUND)]
    for namespace in ("", "news"):
        (reply,) = tenants.ask(namespace, patch)
        assert isinstance(reply, wire.Session)
        assert msgspec.msgpack.decode(reply.state.data) == {"of": namespace, "paid": True}


def test_a_log_out_in_pages_stays_in_its_namespace() -> None:
    tenants = Tenants(settings=HostSettings(page_max=4))
    for namespace in ("", "shop"):
        for number in range(1, 21):
            tenants.ask(namespace, of(number, bytes([number]) * 32, namespace))
    (reply,) = tenants.ask("shop", wire.DeleteByUser(30, 30, 0, "u", bytes([3]) * 32, (0,)))
    assert reply == wire.Counted(30, ((0, 19),))
    assert tenants.listed("shop", "u") == [listed_as(bytes([3]) * 32)]
    assert len(tenants.listed("", "u")) == 20
    assert tenants.table.usage.of("shop")[0] == 1


def test_a_clean_in_pages_counts_its_own() -> None:
    tenants = Tenants(settings=HostSettings(page_max=1, sweep_seconds=3600))
    for namespace in ("", "shop", "news"):
        for number in range(1, 13):
            ends = of(number, bytes([number]) * 32, namespace)
            tenants.ask(namespace, msgspec.structs.replace(ends, expires_us=WALL_US + 60_000_000))
    tenants.probe.after(100)
    for namespace, left in (("shop", 24), ("", 12), ("news", 0)):
        assert tenants.ask(namespace, wire.Clean(30, 30, 0, (0,))) == [wire.Counted(30, ((0, 12),))]
        assert len(tenants.table.sessions) == left


def test_sessions_of_all_namespaces_expire() -> None:
    tenants = Tenants()
    for namespace in NAMESPACES:
        ends = msgspec.structs.replace(of(1, ALICE, namespace), expires_us=WALL_US + 1_000_000)
        tenants.ask(namespace, ends)
    assert len(tenants.table.sessions) == 4
    for _ in range(200):
        tenants.probe.after(0.1)
    assert tenants.table.sessions == {}
    assert tenants.table.usage.by_namespace == {}
    assert tenants.table.expiry.entries == 0


def test_a_snapshot_brings_every_namespace() -> None:
    tenants = Tenants()
    all_there(tenants)
    sender = SnapshotSender(0, 1, 1, (1, 8), tenants.table, 64)
    first = sender.chunk(WALL_US)
    copy = SnapshotReceiver(first, SessionTable())
    chunk = first
    while True:
        encoded = msgspec.msgpack.encode(chunk)
        copy.take(msgspec.msgpack.decode(encoded, type=type(chunk)))
        if copy.complete:
            break
        chunk = sender.chunk(WALL_US)
    assert copy.table.fingerprint() == tenants.table.fingerprint()
    assert copy.table.usage.by_namespace == tenants.table.usage.by_namespace
    assert copy.table.charged_bytes == tenants.table.charged_bytes


def test_what_is_logged_of_default_has_no_namespace() -> None:
    tenants = Tenants(alone=False)
    tenants.ask("", of(1, ALICE, ""))
    tenants.ask("shop", of(1, ALICE, "shop"))
    assert [type(record.command) for record in tenants.logged] == [wire.Create, Within]
