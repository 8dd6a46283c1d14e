"""Whoever causes long steps waits for others, and nobody else does."""

from itertools import count

import msgspec

from greenroom import wire
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.limits.fairness import (
    ALONE_NS,
    COSTLY_BYTES,
    DEBT_NS_MAX,
    WAITING_MAX,
    CostlyRequest,
    FairShare,
)
from tests.cluster.shard.probe import ALICE, FAR_US, Probe, create

MS = 1_000_000
NOW = 10**12
BIG = b"\x81\xa1a\xc5\x7f\xff" + bytes(0x7FFF)


def waiting(identity: str, number: int = 1, size: int = 10, connection: int = 1) -> CostlyRequest:
    return CostlyRequest(connection, b"c" * 16, identity, wire.Inspect(number), size)


def shared() -> FairShare:
    """Two identities have just asked for something."""
    fair = FairShare()
    fair.came(NOW, "greedy")
    fair.came(NOW, "modest")
    return fair


# --- the queue -------------------------------------------------------------------------------------------


def test_a_short_step_is_not_charged() -> None:
    fair = shared()
    fair.charge(NOW, "modest", MS)
    assert not fair.debts


def test_a_long_step_is_charged_the_square_of_its_length() -> None:
    fair = shared()
    fair.charge(NOW, "modest", 2 * MS)
    fair.charge(NOW, "greedy", 8 * MS)
    assert fair.debts["greedy"] - NOW == 16 * (fair.debts["modest"] - NOW)
    fair.charge(NOW, "greedy", 1000 * MS)
    assert fair.debts["greedy"] == NOW + DEBT_NS_MAX


def test_who_is_in_debt_waits_until_it_is_paid() -> None:
    fair = shared()
    fair.charge(NOW, "greedy", 5 * MS)
    assert fair.must_wait(NOW, "greedy")
    assert fair.wait(waiting("greedy"))
    assert fair.take(NOW) is None
    paid_ns = fair.due_ns()
    assert NOW < paid_ns < NOW + ALONE_NS
    assert fair.take(paid_ns - 1) is None
    assert fair.take(paid_ns) == waiting("greedy")
    fair.take(paid_ns)
    assert not fair.debts


def test_whoever_is_alone_waits_for_nobody() -> None:
    fair = shared()
    fair.charge(NOW, "greedy", 1000 * MS)
    fair.wait(waiting("greedy"))
    later = fair.due_ns()
    assert later == NOW + ALONE_NS + 1
    assert fair.take(later) == waiting("greedy")
    assert not fair.must_wait(later, "greedy")


def test_those_who_wait_have_their_turns_one_after_the_other() -> None:
    fair = shared()
    for identity, requests in (("a", 3), ("b", 1), ("c", 2)):
        fair.charge(NOW, identity, 2 * MS)
        for number in range(requests):
            assert fair.wait(waiting(identity, number))
    later = NOW + DEBT_NS_MAX
    taken = [fair.take(later) for _ in range(7)]
    assert [(each.identity, each.request.request_id) for each in taken if each is not None] == [
        ("a", 0),
        ("b", 0),
        ("c", 0),
        ("a", 1),
        ("c", 1),
        ("a", 2),
    ]
    assert taken[-1] is None


def test_one_who_goes_into_debt_again_is_passed_over() -> None:
    fair = shared()
    for identity in ("a", "b"):
        fair.charge(NOW, identity, 2 * MS)
        fair.wait(waiting(identity, 1))
        fair.wait(waiting(identity, 2))
    later = NOW + DEBT_NS_MAX
    fair.came(later, "a")
    assert fair.take(later) == waiting("a", 1)
    fair.charge(later, "a", 20 * MS)
    assert fair.take(later) == waiting("b", 1)
    assert fair.take(later) == waiting("b", 2)
    assert fair.take(later) is None


def test_what_waits_is_bounded_for_each() -> None:
    fair = shared()
    fair.charge(NOW, "a", 9 * MS)
    fair.charge(NOW, "b", 9 * MS)
    assert sum(fair.wait(waiting("a", number)) for number in range(300)) == WAITING_MAX
    assert [fair.wait(waiting("b", 1, 3 << 20)), fair.wait(waiting("b", 2, 2 << 20))] == [True, False]
    fair.drop(1)
    assert fair.take(NOW + DEBT_NS_MAX) is None
    assert fair.wait(waiting("b", 1, 3 << 20))


def test_a_greedy_identity_takes_a_tenth_of_what_others_wait() -> None:
    """A run: somebody who always has another costly request, beside somebody who asks all the time."""
    fair = shared()
    now, served, step = NOW, 0, 4 * MS
    for number in count():
        fair.came(now, "modest")
        fair.came(now, "greedy")
        if "greedy" not in fair.debts or not fair.must_wait(now, "greedy"):
            now += step
            served += 1
            fair.charge(now, "greedy", step)
        else:
            fair.wait(waiting("greedy", number))
            if fair.take(now) is not None:
                now += step
                served += 1
                fair.charge(now, "greedy", step)
        now += MS
        if now > NOW + 20_000 * MS:
            break
    # 4 ms make others wait for 8 ms in all if one comes each ms, so 80 ms have to pass.
    assert 200 <= served <= 20_000 / 80 + 5


# --- at an actor -----------------------------------------------------------------------------------------


class Actor:
    """A primary alone, and what it answers; the length of each step is told to it."""

    def __init__(self) -> None:
        self.probe = Probe()
        self.probe.start_alone()
        self.replies: dict[int, wire.Reply] = {}
        self.ask("host-a", create(1, ALICE, BIG))
        self.ask("host-b", create(2, b"b" * 32))

    def ask(self, identity: str, *requests: wire.Request, spent_ns: int = 0) -> None:
        connection = 1 if identity == "host-a" else 2
        self._step(ins.ClientRequests(connection, identity.encode() * 2, list(requests), identity))
        if spent_ns:
            self.probe.host.spent(self.probe.now_ns, spent_ns)

    def _step(self, event: ins.HostInput) -> None:
        for effect in self.probe.step(event):
            if isinstance(effect, fx.ReplyToClient):
                self.replies[effect.message.request_id] = effect.message

    def until(self, request_id: int) -> float:
        """Let time pass until it is answered; return how long, in seconds."""
        began = self.probe.now_ns
        while request_id not in self.replies:
            assert self.probe.now_ns < began + 10**10
            self.probe.now_ns = max(self.probe.host.next_deadline(), self.probe.now_ns + 1)
            self._step(ins.Tick())
        return (self.probe.now_ns - began) / 1e9


def patch(number: int, digest: bytes = ALICE) -> wire.Patch:
    return wire.Patch(number, 1, 0, 0, digest, ((("b",), b"\x01"),), (), (), None, None)


def test_costly_requests_of_who_caused_a_long_step_wait() -> None:
    """All others go on."""
    actor = Actor()
    actor.ask("host-a", patch(10), spent_ns=2 * MS)
    actor.ask("host-a", patch(11), create(12, b"n" * 32), wire.Get(13, 0, ALICE), patch(14, b"b" * 32))
    actor.ask("host-a", create(15, b"m" * 32, BIG), wire.ListByUser(16, "u", 10, (0,)))
    assert {12, 13, 14} <= set(actor.replies)
    assert not {11, 15, 16} & set(actor.replies)
    actor.ask("host-b", patch(20), create(21, b"o" * 32, BIG), wire.ListByUser(22, "u", 10, (0,)))
    assert {20, 22} <= set(actor.replies)
    assert actor.until(21) < 1e-6, "it is applied by the next step, which is due at once"
    assert 0.005 < actor.until(11) < 0.1
    actor.until(15)
    actor.until(16)
    assert isinstance(actor.replies[11], wire.EncodedSession)


def test_who_commits_later_is_charged_then() -> None:
    """The step that applies a command takes in nobody's requests, but an acknowledgement."""
    actor = Actor()
    host = actor.probe.host
    actor.probe.step(ins.Tick())
    host._step.applied_bytes = {"host-a": 3 * COSTLY_BYTES, "host-b": COSTLY_BYTES}
    assert set(host.spent(actor.probe.now_ns, 8 * MS)) == {"host-a", "host-b"}
    debts = host._requests.fair.debts
    assert set(debts) == {"host-a", "host-b"}
    assert debts["host-a"] > debts["host-b"]


def test_a_step_that_was_long_for_no_reason_of_theirs_charges_nobody() -> None:
    actor = Actor()
    actor.ask("host-b", patch(10, b"b" * 32), spent_ns=500 * MS)
    actor._step(ins.Tick())
    actor.probe.host.spent(actor.probe.now_ns, 500 * MS)
    assert not actor.probe.host._requests.fair.debts


def test_what_waits_goes_with_its_connection() -> None:
    actor = Actor()
    actor.ask("host-a", patch(10), spent_ns=2 * MS)
    actor.ask("host-a", patch(11))
    actor._step(ins.ConnectionClosed(1))
    actor.probe.after(5)
    assert 11 not in actor.replies


def test_too_much_that_waits_is_refused_with_a_reason() -> None:
    actor = Actor()
    actor.ask("host-a", patch(10), spent_ns=3 * MS)
    actor.ask("host-a", *(patch(number) for number in range(100, 100 + WAITING_MAX + 1)))
    reply = actor.replies[100 + WAITING_MAX]
    assert isinstance(reply, wire.Overloaded)
    assert "sessions small" in reply.reason


def test_expiry_and_absence_do_not_matter_to_who_waits() -> None:
    actor = Actor()
    actor.ask("host-a", patch(10), spent_ns=2 * MS)
    absent = wire.Rotate(11, 1, 0, 0, b"x" * 32, b"y" * 32, (), (), None, None)
    elsewhere = msgspec.structs.replace(patch(12), point=70_000)
    actor.ask("host-a", absent, elsewhere, wire.Update(13, 1, 0, 0, ALICE, None, FAR_US, "", b"\x80", None))
    assert {11, 12, 13} <= set(actor.replies)
