"""Quotas: a namespace is refused at its own, whatever others do, and goes on with what does not grow."""

import random

import msgspec
import pytest

from greenroom import wire
from greenroom.ids import POINT_BITS, listed_as
from greenroom.namespace_use import NamespaceUse
from greenroom_cluster.quotas import Quota
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.limits.growth import TRIED_BYTES_MAX, Growth
from greenroom_cluster.shard.messages import PrepareOk
from greenroom_cluster.shard.settings import HostSettings
from tests.cluster.shard.harness import World
from tests.cluster.shard.probe import CLIENT, FAR_US, B, Probe, create
from tests.cluster.shard.test_namespaces import Tenants

TEN = HostSettings(quotas=(Quota("shop", 10, 100_000),))
EVICTING = msgspec.structs.replace(TEN, eviction="anonymous")


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def data(size: int = 0) -> bytes:
    return msgspec.msgpack.encode({"x": "x" * size})


def new(request_id: int, number: int, *, size: int = 0, user: str | None = "u") -> wire.Create:
    made = create(request_id, digest(number), data(size), low=request_id)
    return msgspec.structs.replace(made, user_id=user)


def fill(tenants: Tenants, namespace: str, numbers: range, *, size: int = 0, user: str | None = "u") -> None:
    for number in numbers:
        (reply,) = tenants.ask(namespace, new(number, number, size=size, user=user))
        assert isinstance(reply, wire.Written), (number, reply)


def refusal_of(replies: list[wire.Reply]) -> str:
    (reply,) = replies
    assert isinstance(reply, wire.Failed), reply
    assert reply.code == wire.FailureCode.FULL
    return reply.detail


def count(tenants: Tenants, namespace: str) -> int:
    return tenants.table.used_by(namespace)[0]


@pytest.mark.parametrize("alone", [True, False])
def test_a_namespace_is_refused_at_its_quota_of_sessions(alone: bool) -> None:
    tenants = Tenants(alone=alone, settings=TEN)
    fill(tenants, "shop", range(1, 11))
    for number in range(20, 23):
        told = refusal_of(tenants.ask("shop", new(number, number)))
        assert told.startswith("namespace shop is at its quota of 10 sessions")
        assert "raise --quotas at the nodes" in told
    assert count(tenants, "shop") == 10
    for other in ("", "news", "shop2"):
        fill(tenants, other, range(1, 41))
    (reply,) = tenants.ask("shop", wire.Delete(30, 30, 0, 0, digest(3)))
    assert isinstance(reply, wire.Written)
    fill(tenants, "shop", range(31, 32))
    refusal_of(tenants.ask("shop", new(32, 32)))


def test_a_namespace_is_refused_at_its_quota_of_bytes() -> None:
    tenants = Tenants(settings=TEN)
    fill(tenants, "shop", range(1, 4), size=30_000)
    told = refusal_of(tenants.ask("shop", new(9, 9, size=30_000)))
    assert told.startswith("namespace shop is at its quota of 100000 bytes of sessions")
    larger = wire.Update(10, 10, 0, 0, digest(1), "u", FAR_US, "", data(50_000), None)
    refusal_of(tenants.ask("shop", larger))
    brings = wire.Patch(11, 11, 0, 0, digest(1), ((("y",), data(20_000)),), (), (), None, None)
    refusal_of(tenants.ask("shop", brings))
    turns = wire.Rotate(12, 12, 0, 0, digest(1), digest(50), ((("y",), data(20_000)),), (), None, None)
    refusal_of(tenants.ask("shop", turns))
    fill(tenants, "shop", range(13, 14), size=5000)
    assert tenants.table.used_by("shop")[1] <= 100_000


@pytest.mark.parametrize("over", [False, True])
def test_what_adds_nothing_goes_on_at_the_quota(over: bool) -> None:
    """Also of a namespace that is over its quota, because that was lowered."""
    tenants = Tenants(settings=msgspec.structs.replace(TEN, quotas=(Quota("shop", 10, 32_000),)))
    fill(tenants, "shop", range(1, 11), size=3000)
    primary = tenants.probe.replica.primary  # type: ignore[union-attr]
    assert primary is not None
    if over:
        quotas = primary.growth._quotas  # type: ignore[attr-defined]
        quotas._parts["shop"] = Quota("shop", 5, 10_000)
    refusal_of(tenants.ask("shop", new(20, 20)))
    key = digest(1)
    for request, kind in (
        (wire.Get(21, 0, key), wire.Session),
        (wire.Update(22, 22, 0, 0, key, "u", FAR_US, "", data(2990), None), wire.Written),
        (wire.Patch(23, 23, 0, 0, key, ((("x",), b"\xa1y"),), (), (), None, None), wire.Session),
        (wire.Patch(24, 24, 0, 0, key, (), (("x",),), (), None, FAR_US), wire.Session),
        (wire.Rotate(25, 25, 0, 0, key, digest(51), (), (), None, None), wire.Session),
        (wire.DeleteByHandle(26, 26, 0, 0, listed_as(digest(2)), "u"), wire.Written),
        (wire.Delete(27, 27, 0, 0, digest(3)), wire.Written),
        (wire.Clean(28, 28, 0, (0,)), wire.Counted),
        (wire.ListByUser(29, "u", 99, (0,)), wire.Listing),
        (wire.DeleteByUser(30, 30, 0, "u", b"", (0,)), wire.Counted),
    ):
        (reply,) = tenants.ask("shop", request)
        assert isinstance(reply, kind), reply
    assert count(tenants, "shop") == 0
    fill(tenants, "shop", range(31, 34), size=1000)


def test_a_large_session_at_its_quota_takes_no_patch() -> None:
    tenants = Tenants(settings=msgspec.structs.replace(TEN, quotas=(Quota("shop", 10, 1_000_000),)))
    fill(tenants, "shop", range(1, 2), size=TRIED_BYTES_MAX)
    primary = tenants.probe.replica.primary  # type: ignore[union-attr]
    assert primary is not None
    primary.growth._quotas._parts["shop"] = Quota("shop", 10, 10_000)  # type: ignore[attr-defined]
    key = digest(1)
    shorter = wire.Patch(2, 2, 0, 0, key, ((("x",), b"\xa1y"),), (), (), None, None)
    assert "at its quota" in refusal_of(tenants.ask("shop", shorter))
    for request in (
        wire.Update(3, 3, 0, 0, key, "u", FAR_US, "", data(TRIED_BYTES_MAX - 99), None),
        msgspec.structs.replace(shorter, request_id=4, low=4),
    ):
        (reply,) = tenants.ask("shop", request)
        assert not isinstance(reply, wire.Failed), reply


def test_a_star_stands_for_each_namespace_that_is_not_named() -> None:
    quotas = (Quota("shop", 4, 10_000), Quota("*", 2, 10_000))
    tenants = Tenants(settings=HostSettings(quotas=quotas))
    for namespace, most in (("shop", 4), ("news", 2), ("", 2), ("other", 2)):
        fill(tenants, namespace, range(1, most + 1))
        assert f"quota of {most} sessions" in refusal_of(tenants.ask(namespace, new(9, 9)))
    assert "namespace default is at" in refusal_of(tenants.ask("", new(10, 10)))


def test_default_may_have_a_quota_too() -> None:
    tenants = Tenants(settings=HostSettings(quotas=(Quota("default", 3, 10_000),)))
    fill(tenants, "shop", range(1, 9))
    fill(tenants, "", range(1, 4))
    refusal_of(tenants.ask("", new(9, 9)))
    assert count(tenants, "") == 3


def test_what_is_logged_and_not_applied_counts() -> None:
    """Many writes at once, while the backup is silent, do not get past the quota together."""
    tenants = Tenants(alone=False, settings=TEN)
    event = ins.ClientRequests(1, CLIENT, [new(n, n) for n in range(1, 31)], namespace="shop")
    effects = tenants.probe.step(event)
    refused = [each.message for each in effects if isinstance(each, fx.ReplyToClient)]
    assert len(refused) == 20
    assert all(isinstance(each, wire.Failed) for each in refused)
    for prepare in tenants.probe.prepares():
        tenants.probe.step(ins.PeerMessages(B, [PrepareOk(prepare.batch)]))
    assert count(tenants, "shop") == 10


def test_a_shrunk_session_gives_back_its_room_only_once() -> None:
    """An update to less, and one to as much as before behind it, must leave no gap for a third."""
    tenants = Tenants(alone=False, settings=TEN)
    fill(tenants, "shop", range(1, 2), size=90_000)
    requests = [
        wire.Update(11, 2, 0, 0, digest(1), "u", FAR_US, "", data(10), None),
        wire.Update(12, 2, 0, 0, digest(1), "u", FAR_US, "", data(90_000), None),
        new(13, 2, size=50_000),
    ]
    for request in requests:
        tenants.probe.step(ins.ClientRequests(1, CLIENT, [request], namespace="shop"))
    for _ in range(3):
        for prepare in tenants.probe.prepares():
            tenants.probe.step(ins.PeerMessages(B, [PrepareOk(prepare.batch)]))
        tenants.probe.after(0.01)
    assert tenants.table.used_by("shop")[1] <= 100_000


def test_a_repeat_at_the_quota_is_never_told_that_nothing_was_written() -> None:
    tenants = Tenants(settings=TEN)
    fill(tenants, "shop", range(1, 11))
    repeat = msgspec.structs.replace(new(20, 20), age_ms=10)
    (reply,) = tenants.ask("shop", repeat)
    assert isinstance(reply, wire.Overloaded)
    assert "quota" in reply.reason


def test_the_operator_is_told_once_a_minute() -> None:
    tenants = Tenants(settings=TEN)
    fill(tenants, "shop", range(1, 11))
    told = []
    for number in range(20, 40):
        effects = tenants.probe.step(ins.ClientRequests(1, CLIENT, [new(number, number)], namespace="shop"))
        told += [each.message for each in effects if isinstance(each, fx.Warned)]
    assert len(told) == 1
    assert told[0].startswith("writes are refused: namespace shop is at its quota of 10 sessions")


def test_without_quotas_no_write_pays_for_them() -> None:
    tenants = Tenants()
    assert type(tenants.probe.replica.primary.growth) is Growth  # type: ignore[union-attr]


# --- several shards ---------------------------------------------------------------------------------------


def test_each_shard_keeps_to_its_own_part() -> None:
    """Who writes to one shard alone has its part there, and fills no other."""
    quota = Quota("shop", 16, 1 << 20)
    world = World(nodes=1, shards=4, replicas=1, settings=HostSettings(quotas=(quota,)))
    world.settle()
    actor = world.primary(0)
    for shard, writes in ((0, 30), (1, 5)):
        for number in range(shard * 100 + 1, shard * 100 + 1 + writes):
            request = msgspec.structs.replace(new(number, number), point=shard << POINT_BITS - 2)
            actor.step(ins.ClientRequests(1, CLIENT, [request], namespace="shop"))
    written = [number for number, reply in actor.replies.items() if isinstance(reply, wire.Written)]
    assert written == [*range(1, quota.part(4).sessions + 1), *range(101, 106)]
    assert 4 < quota.part(4).sessions < 30


# --- eviction ---------------------------------------------------------------------------------------------


def evicting(tenants: Tenants, namespace: str, number: int, *, user: str | None = None) -> wire.Reply:
    """Create a session as a store does: what is overloaded is asked again."""
    for _ in range(5):
        (reply,) = tenants.ask(namespace, new(number, number, size=1500, user=user))
        if not isinstance(reply, wire.Overloaded):
            return reply
        tenants.probe.after(0.01)
    return reply


@pytest.mark.parametrize("alone", [True, False])
def test_a_namespace_at_its_quota_evicts_its_own_oldest(alone: bool) -> None:
    tenants = Tenants(alone=alone, settings=EVICTING)
    fill(tenants, "", range(1, 9), user=None)
    fill(tenants, "news", range(1, 9), user=None)
    fill(tenants, "shop", range(1, 5), user="u")
    fill(tenants, "shop", range(5, 11), user=None)
    for number in range(11, 14):
        assert isinstance(evicting(tenants, "shop", number), wire.Written)
    left = [int.from_bytes(key[:32], "big") for key in tenants.table.sessions if key[32:] == b"shop"]
    assert left == [1, 2, 3, 4, 8, 9, 10, 11, 12, 13]
    assert count(tenants, "") == count(tenants, "news") == 8
    assert tenants.probe.host._resources.evictions.sessions == 3


def test_users_are_never_evicted_for_a_quota() -> None:
    tenants = Tenants(settings=EVICTING)
    fill(tenants, "", range(1, 9), user=None)
    fill(tenants, "shop", range(1, 11), user="u")
    reply = evicting(tenants, "shop", 20)
    assert isinstance(reply, wire.Failed)
    assert count(tenants, "") == 8
    assert count(tenants, "shop") == 10


def test_nothing_is_evicted_for_a_quota_in_vain() -> None:
    """What the others without a user take is too little for what comes."""
    tenants = Tenants(settings=EVICTING)
    fill(tenants, "shop", range(1, 4), size=30_000, user="u")
    fill(tenants, "shop", range(4, 6), size=2000, user=None)
    refusal_of(tenants.ask("shop", new(9, 9, size=20_000, user=None)))
    assert count(tenants, "shop") == 5
    own = wire.Update(10, 10, 0, 0, digest(4), None, FAR_US, "", data(12_000), None)
    refusal_of(tenants.ask("shop", own))
    assert count(tenants, "shop") == 5


def test_a_quota_lower_than_what_is_there_makes_room_in_pages() -> None:
    settings = msgspec.structs.replace(EVICTING, page_max=4, quotas=(Quota("shop", 40, 1 << 20),))
    tenants = Tenants(settings=settings)
    fill(tenants, "shop", range(1, 41), user=None)
    primary = tenants.probe.replica.primary  # type: ignore[union-attr]
    assert primary is not None
    primary.growth._quotas._parts["shop"] = Quota("shop", 10, 1 << 20)  # type: ignore[attr-defined]
    for _ in range(20):
        (reply,) = tenants.ask("shop", new(50, 50, user=None))
        if isinstance(reply, wire.Written):
            break
        assert isinstance(reply, wire.Overloaded)
        tenants.probe.after(0.01)
    assert count(tenants, "shop") == 10


def full_of(settings: HostSettings, order: list[tuple[str, int]]) -> Tenants:
    tenants = Tenants(settings=settings)
    for request_id, (namespace, number) in enumerate(order, 1):
        tenants.ask(namespace, new(request_id, number, size=1500, user=None))
    return tenants


def test_when_memory_is_full_who_takes_most_makes_room() -> None:
    """The flood of one ends none of another's, though these are older."""
    order = [("", n) for n in range(1, 11)] + [("news", n) for n in range(1, 11)]
    settings = HostSettings(memory_bytes_max=150_000, eviction="anonymous")
    tenants = full_of(settings, order)
    for number in range(100, 300):
        evicting(tenants, "shop", number)
    assert count(tenants, "") == count(tenants, "news") == 10
    assert 20 < count(tenants, "shop") < 190
    assert tenants.probe.host._resources.evictions.sessions > 50


def test_what_a_namespace_takes_is_measured_against_its_quota() -> None:
    quotas = (Quota("large", 1000, 3_000_000), Quota("small", 100, 300_000))
    settings = HostSettings(memory_bytes_max=150_000, eviction="anonymous", quotas=quotas)
    order = [("large", n) for n in range(1, 31)] + [("small", n) for n in range(1, 16)]
    tenants = full_of(settings, order)
    for number in range(100, 160):
        evicting(tenants, "large", number)
    # 15 of 100 are more than 30 of 1000.
    assert count(tenants, "small") < 10
    assert count(tenants, "large") > 30


@pytest.mark.parametrize("seed", range(6))
def test_no_order_of_writes_gets_past_a_quota(seed: int) -> None:
    generator = random.Random(seed)
    settings = msgspec.structs.replace(TEN, quotas=(Quota("shop", 12, 20_000),))
    tenants = Tenants(alone=False, settings=settings)
    waiting: list[int] = []
    for request_id in range(1, 401):
        key, size = digest(generator.randrange(20)), generator.choice((0, 500, 3000))
        request: wire.Request = generator.choice((
            wire.Create(request_id, 1, 0, 0, key, None, 1, FAR_US, None, "é" * 9, data(size)),
            wire.Update(request_id, 1, 0, 0, key, "ü" * 9, FAR_US, "", data(size), None),
            wire.Patch(request_id, 1, 0, 0, key, ((("y",), data(size)),), (), (), None, None),
            wire.Patch(request_id, 1, 0, 0, key, (), (("y",),), (), ("v",), None),
            wire.Rotate(request_id, 1, 0, 0, key, digest(generator.randrange(20)), (), (), None, None),
            wire.Delete(request_id, 1, 0, 0, key),
        ))  # fmt: skip
        tenants.probe.step(ins.ClientRequests(1, CLIENT, [request], namespace="shop"))
        waiting += [prepare.batch for prepare in tenants.probe.prepares()]
        while waiting and generator.random() < 0.4:
            tenants.probe.step(ins.PeerMessages(B, [PrepareOk(waiting.pop(0))]))
            waiting += [prepare.batch for prepare in tenants.probe.prepares()]
        sessions, size = tenants.table.used_by("shop")
        assert sessions <= 12
        assert size <= 20_000 + 64 * sessions
        assert size == sum(len(each) for key, each in tenants.table.sessions.items() if key[32:])


# --- what operators are shown -----------------------------------------------------------------------------


def test_an_operator_is_shown_what_namespaces_have() -> None:
    settings = msgspec.structs.replace(TEN, quotas=(*TEN.quotas, Quota("empty", 5, 500)))
    tenants = Tenants(alone=False, settings=settings)
    fill(tenants, "", range(1, 4))
    fill(tenants, "news", range(1, 3))
    fill(tenants, "shop", range(1, 11))
    refusal_of(tenants.ask("shop", new(20, 20)))
    (shown,) = tenants.ask("", wire.Inspect(1))
    assert isinstance(shown, wire.Inspection)
    uses = {each.namespace: each for each in shown.namespaces}
    assert list(uses) == ["default", "shop", "empty", "news"]
    stored = sum(len(each) for key, each in tenants.table.sessions.items() if len(key) == 32)
    assert uses["default"] == NamespaceUse("default", 3, stored)
    assert uses["shop"].sessions == 10
    assert (uses["shop"].sessions_max, uses["shop"].stored_bytes_max) == (10, 100_000)
    assert uses["empty"] == NamespaceUse("empty", 0, 0, 5, 500)
    assert [each.refused for each in uses.values()] == [False, True, False, False]
    tenants.probe.after(61)
    (shown,) = tenants.ask("", wire.Inspect(2))
    assert isinstance(shown, wire.Inspection)
    assert not any(each.refused for each in shown.namespaces)


def test_a_backup_counts_no_namespace_twice() -> None:
    probe = Probe(TEN)
    probe.become_backup()
    (shown,) = probe.ask(wire.Inspect(1))
    assert isinstance(shown, wire.Inspection)
    assert [(each.namespace, each.sessions) for each in shown.namespaces] == [("default", 0), ("shop", 0)]
