"""An unproven coordinator decides a shard once its members' heirs, and all who may know more, were heard."""

from collections.abc import Sequence

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.testimony import Addition, Testimony
from greenroom_cluster.coordination import messages as m
from tests.cluster.coordination.builders import Desk, actor, cluster, durable, inc, node, nonce, shard
from tests.cluster.coordination.test_hearing import decided

A, B, X = inc("a"), inc("b"), inc("x")
A2, B2 = inc("a again"), inc("b again")
COPY = cluster(
    (shard(A, (B,), epoch=3, wanted=("a/0", "b/0")),),
    (durable(A, "a/0", "disk a"), durable(B, "b/0", "disk b"), actor(inc("c"), "c/0")),
)
"""An older copy: both members of the shard ran when it was made, and a third node did."""

SLOTS = {A2: ("a/0", "disk a"), B2: ("b/0", "disk b")}
ADDS_X = Addition(0, X, "x/0")


def restored(*dead: bytes, alone_seconds: float = 0.0) -> Desk:
    """A coordinator with that copy, in which these are dead already."""
    actors = {key: msgspec.structs.replace(COPY.actors[key], state="dead") for key in dead}
    changed = msgspec.structs.replace(
        COPY, actors={**COPY.actors, **actors}, recover_alone_seconds=alone_seconds
    )
    return Desk(changed, proven=False)


def hear(desk: Desk, one: bytes, *additions: Addition, kept: Sequence[int] = (0,), epoch: int = 3) -> object:
    """Have an actor subscribe, which may be an heir: then its supervisor registers it."""
    if one in SLOTS:
        desk.durable(one, *SLOTS[one], mark=5)
    told = Testimony(tuple(kept), additions)
    return desk.ask(wire.Subscribe(1, 1, (epoch,), b"", told), one)


def claim(one: bytes, last: int = 7) -> m.Proposal:
    return m.Proposal(0, 3, nonce(last), "recover", one, (), (3, last))


def both_claim(desk: Desk) -> list[bool]:
    """What comes of the claims of both heirs, the better one last."""
    return decided(desk, A2, claim(A2, 7)) + decided(desk, B2, claim(B2, 9))


def test_a_shard_goes_on_from_disk_though_another_node_is_not_heard() -> None:
    desk = restored()
    hear(desk, A2)
    hear(desk, B2)
    assert both_claim(desk) == [True]
    assert desk.map.shards[0].members == (B2,)
    assert not desk.coordinator.proven(desk.now_ns)


@pytest.mark.parametrize(
    "heir",
    [
        pytest.param(lambda desk: hear(desk, B2, kept=()), id="it gave its copy up"),
        pytest.param(lambda desk: hear(desk, B2, kept=(1,)), id="of another shard"),
        pytest.param(lambda desk: (hear(desk, B2, kept=()), hear(desk, B2)), id="what it tells first"),
        pytest.param(lambda desk: (desk.durable(B2, "b/0", "disk b", 5), desk.subscribe(B2)), id="a former"),
    ],
)
def test_a_directory_that_does_not_say_what_it_knew_is_not_enough(heir: object) -> None:
    desk = restored()
    hear(desk, A2)
    assert callable(heir)
    heir(desk)
    assert both_claim(desk) == []
    desk.pass_seconds(3)
    for name in "abc":
        desk.ask(m.Heartbeat(name, 1, 1), b"supervisor" if name in "ab" else b"supervisor c")
    outcome = desk.pass_seconds(0.25)
    assert desk.map.epochs == (4,), f"every node was heard: {outcome}"


def test_whom_an_open_proposal_on_disk_adds_is_awaited() -> None:
    """The backup may have been added, have taken over, and be cut off from us."""
    desk = restored()
    hear(desk, A2, ADDS_X)
    hear(desk, B2)
    assert both_claim(desk) == []
    desk.pass_seconds(5, "a", "b", "c")
    assert desk.map.epochs == (3,)
    told = [each for each in desk.warnings if "forget-node x" in each]
    assert len(told) == 1
    hear(desk, X, kept=())
    assert desk.map.epochs == (4,)


def test_a_node_that_only_an_open_proposal_names_can_be_forgotten() -> None:
    desk = restored()
    hear(desk, A2, ADDS_X)
    hear(desk, B2)
    assert both_claim(desk) == []
    assert isinstance(desk.forget("y"), m.Rejected)
    assert isinstance(desk.declare_dead("x"), m.Rejected)
    assert isinstance(desk.forget("x"), m.Accepted)
    assert desk.map.epochs == (4,)
    assert isinstance(desk.forget("x"), m.Rejected)


def test_whom_a_living_primary_would_add_is_awaited_before_a_takeover() -> None:
    desk = restored()
    hear(desk, A, ADDS_X, kept=())
    hear(desk, B, kept=())
    takeover = m.Proposal(0, 3, nonce(1), "takeover", B, ())
    assert decided(desk, B, takeover) == []
    hear(desk, X, kept=())
    assert decided(desk, B, takeover) == [True]


def test_who_would_be_added_and_ended_since_is_not_awaited_for_ever() -> None:
    """Its supervisor was heard, and does not name it among those that run."""
    desk = restored()
    hear(desk, A2, ADDS_X)
    hear(desk, B2)
    both_claim(desk)
    for name in "cx":
        desk.ask(m.RegisterNode(1, node(name)), b"supervisor " + name.encode())
    assert both_claim(desk) == []
    for name in "ab":
        desk.beat(name)
    desk.pass_seconds(3, "a", "b")
    assert desk.map.epochs == (4,)


@pytest.mark.parametrize("nobody", ["no member", "of before"])
def test_a_proposal_that_cannot_be_decided_awaits_nobody(nobody: str) -> None:
    desk = restored()
    if nobody == "no member":
        hear(desk, inc("c"), ADDS_X, kept=())
        hear(desk, A2)
    else:
        hear(desk, A2, ADDS_X, epoch=2)
    hear(desk, B2)
    assert both_claim(desk) == [True]


def test_an_heir_speaks_for_a_member_that_died_unheard() -> None:
    desk = restored()
    hear(desk, B, kept=())
    takeover = m.Proposal(0, 3, nonce(1), "takeover", B, ())
    assert decided(desk, B, takeover) == []
    hear(desk, A2)
    assert decided(desk, B, takeover) == [True]


@pytest.mark.parametrize("alone_seconds", [0.0, 1.0])
def test_the_heir_of_the_dead_is_awaited_if_it_could_go_on_alone(alone_seconds: float) -> None:
    """It may have been passed over whoever takes over now, since the copy was made."""
    desk = restored(A, alone_seconds=alone_seconds)
    hear(desk, B, kept=())
    takeover = m.Proposal(0, 3, nonce(1), "takeover", B, ())
    assert decided(desk, B, takeover) == ([] if alone_seconds else [True])
    if alone_seconds:
        hear(desk, A2)
        assert decided(desk, B, takeover) == [True]


def test_claims_wait_for_what_the_heirs_of_the_dead_knew() -> None:
    desk = restored(A, B)
    hear(desk, A2)
    hear(desk, B2, kept=())
    assert both_claim(desk) == []


def test_all_heirs_and_all_nodes_prove_the_map() -> None:
    desk = restored()
    hear(desk, A2)
    hear(desk, B2)
    desk.pass_seconds(3, "a", "b", "c")
    hear(desk, inc("c"))
    desk.pass_seconds(0.25, "a", "b", "c")
    assert desk.coordinator.proven(desk.now_ns)


def test_an_heir_counts_whenever_it_is_registered() -> None:
    desk = restored()
    told = Testimony((0,))
    for one in (A2, B2):
        desk.ask(wire.Subscribe(1, 1, (3,), b"", told), one)
    for one, (slot, directory) in SLOTS.items():
        desk.durable(one, slot, directory, mark=5)
    assert both_claim(desk) == [True]


def test_an_older_copy_of_a_directory_speaks_for_nobody() -> None:
    older: ClusterMap = msgspec.structs.replace(COPY, floors={inc("disk b"): 6})
    desk = Desk(older, proven=False)
    hear(desk, A2)
    hear(desk, B2)
    assert decided(desk, A2, claim(A2)) == []


@pytest.mark.parametrize("who", ["a member's heir", "whom a change adds", "who runs in its slot"])
def test_nothing_is_decided_against_a_directory_that_knows_more(who: str) -> None:
    """All nodes were started since, so none has a map that shows it; all have been heard."""
    desk = restored()
    if who == "a member's heir":
        hear(desk, B, kept=())
        hear(desk, A2, epoch=5)
        asked = B, m.Proposal(0, 3, nonce(1), "takeover", B, ())
    else:
        hear(desk, A2, ADDS_X)
        hear(desk, B2)
        decided(desk, B2, claim(B2, 7))
        asked = A2, claim(A2, 9)
        desk.ask(m.RegisterNode(1, node("x")))
        knowing = X if who == "whom a change adds" else inc("x again")
        desk.ask(m.RegisterActor(2, durable(knowing, "x/0", "disk x", 5)))
        hear(desk, knowing, epoch=5)
        desk.ask(m.ReportDead(1, (X,)))
    desk.ask(m.Heartbeat("c", 1, 1), b"supervisor c")
    for _ in range(2):
        desk.pass_seconds(9, "a", "b", "x")
        assert decided(desk, *asked) == []
    desk.pass_seconds(1, "a", "b", "x")
    assert desk.map.epochs == (3,)
    told = [each for each in desk.warnings if "know later decisions" in each]
    assert len(told) == 1
    assert ("node a" if who == "a member's heir" else "node x") in told[0]
    assert not desk.coordinator.proven(desk.now_ns)


def test_what_an_actor_claims_of_shards_of_others_holds_nothing_up() -> None:
    desk = restored()
    hear(desk, A2)
    hear(desk, B2)
    hear(desk, inc("c"), epoch=9)
    assert both_claim(desk) == [True]
