"""Shards whose members left directories behind, and what is claimed of them."""

import msgspec

from greenroom_cluster.coordination import messages as m
from tests.cluster.coordination.builders import Desk, actor, cluster, durable, inc, node, nonce, shard

A, B, C = inc("a"), inc("b"), inc("c")
A2, B2 = inc("a again"), inc("b again")
NODES = (node("a"), node("b"), node("c"))


def desk_of(*shards: object, actors: tuple[object, ...] = (), **floors: int) -> Desk:
    found = cluster(
        shards or (shard(A, (B,), epoch=3, wanted=("a/0", "b/0")),),
        actors or (durable(A, "a/0", "da", 5), durable(B, "b/0", "db", 5), actor(C, "c/0")),
        NODES,
    )
    return Desk(msgspec.structs.replace(found, floors={inc(name): floor for name, floor in floors.items()}))


def powerless() -> Desk:
    """Two members in directories, whose hosts lost power and are back without actors."""
    desk = desk_of(da=5, db=5)
    desk.ask(m.ReportDead(1, (A, B)))
    return desk


def claim(claimant: bytes, *last: int, epoch: int = 3, number: int = 1) -> m.Proposal:
    return m.Proposal(0, epoch, nonce(number), "recover", claimant, (), last or (3, 9), ((claimant, 20),))


def claims(desk: Desk, claimant: bytes, *last: int, epoch: int = 3, number: int = 1) -> bool | None:
    """Claim; return whether it was applied, None without an answer."""
    decisions = desk.propose(claimant, claim(claimant, *last, epoch=epoch, number=number))
    return decisions[0].applied if decisions else None
