"""Every role against every input: the accepted ones do what they should, the others change nothing."""

import ast
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from greenroom import wire
from greenroom_cluster import shard
from greenroom_cluster.coordination.messages import Decision
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import (
    Beacon,
    BeaconOk,
    PrepareOk,
    SnapshotOk,
    SnapshotRefused,
)
from greenroom_cluster.shard.roles.accepts import ACCEPTS
from greenroom_cluster.shard.roles.role import InputKind, Role
from tests.cluster.shard.probe import ALICE, CLIENT, ME, WALL_US, B, C, Probe, chunk, create, prepare


def none(probe: Probe) -> None:
    """A map, but no replica."""
    probe.configure(2, (B, C), wanted="bc")


ROLES: dict[str, Callable[[Probe], None]] = {
    "none": none,
    "alone": lambda probe: probe.start_alone(),
    "primary": lambda probe: probe.become_primary(),
    "handing over": lambda probe: probe.hand_over(),
    "backup": lambda probe: probe.become_backup(),
    "fenced": lambda probe: probe.fence(),
    "joining": lambda probe: probe.join(epoch=2, last=False),
    "joined": lambda probe: probe.join(epoch=2),
    "suspended": lambda probe: probe.suspend(),
}

INPUTS: dict[str, ins.HostInput] = {
    "get": ins.ClientRequests(1, CLIENT, [wire.Get(1, 0, ALICE)]),
    "create": ins.ClientRequests(1, CLIENT, [create(1)]),
    "list": ins.ClientRequests(1, CLIENT, [wire.ListByUser(1, "u", 9, (0,))]),
    "clean": ins.ClientRequests(1, CLIENT, [wire.Clean(1, 1, 0, (0,))]),
    "records": ins.PeerMessages(B, [prepare(11)]),
    "records of a past epoch": ins.PeerMessages(B, [prepare(11, epoch=1)]),
    "records of another": ins.PeerMessages(C, [prepare(11)]),
    "records after a gap": ins.PeerMessages(B, [prepare(13)]),
    "commit": ins.PeerMessages(B, [Beacon(5, 0, ((0, 2, 10, WALL_US + 77),))]),
    "commit of another": ins.PeerMessages(C, [Beacon(5, 0, ((0, 2, 10, WALL_US + 77),))]),
    "first chunk": ins.PeerMessages(B, [chunk(epoch=2, join=8, last=False)]),
    "first chunk of the past": ins.PeerMessages(B, [chunk(epoch=1, join=9, last=False)]),
    "next chunk": ins.PeerMessages(B, [chunk(epoch=2, number=1)]),
    "chunk of another join": ins.PeerMessages(B, [chunk(epoch=2, join=6, number=1)]),
    "stray acknowledgement": ins.PeerMessages(B, [PrepareOk(999)]),
    "stray chunk acknowledgement": ins.PeerMessages(B, [SnapshotOk(0, 2, 999, 0)]),
    "stray chunk refusal": ins.PeerMessages(B, [SnapshotRefused(0, 2, 999, "no")]),
    "acknowledgement of a stranger": ins.PeerMessages(C, [BeaconOk(1, 0)]),
    "unknown shard": ins.PeerMessages(B, [msgspec.structs.replace(chunk(), shard=9)]),
    "decision": ins.Decisions((Decision(0, b"?" * 12, applied=False, reason="refused"),)),
    "link up of a stranger": ins.LinkUp(C, bulk=False),
    "link down of a stranger": ins.LinkDown(C, bulk=True),
}

EVERYWHERE = {
    "stray acknowledgement": "ignored",
    "stray chunk acknowledgement": "ignored",
    "stray chunk refusal": "nothing",
    "acknowledgement of a stranger": "ignored",
    "unknown shard": "refused",
    "decision": "ignored",
    "link up of a stranger": "ignored",
    "link down of a stranger": "ignored",
    "records of a past epoch": "refused",
    "records of another": "refused",
    "records after a gap": "refused",
    "commit of another": "ignored",
    "first chunk of the past": "refused",
    "chunk of another join": "refused",
    "records": "refused",
    "commit": "ignored",
    "first chunk": "refused",
    "next chunk": "refused",
}
REDIRECTS = {"get": "redirected", "create": "redirected", "list": "left out", "clean": "left out"}

EXPECTED: dict[str, dict[str, str]] = {
    "none": EVERYWHERE
    | REDIRECTS
    | {
        "first chunk": "taken",
        "decision": "nothing",
        "stray chunk refusal": "ignored",
    },
    "alone": EVERYWHERE | {"get": "answered", "create": "answered", "list": "answered", "clean": "answered"},
    "primary": EVERYWHERE | {"get": "answered", "create": "logged", "list": "answered", "clean": "logged"},
    "handing over": EVERYWHERE
    | {"get": "held", "create": "held", "list": "held", "clean": "held", "stray chunk refusal": "ignored"},
    "backup": EVERYWHERE
    | REDIRECTS
    | {"records": "logged", "commit": "clock", "stray chunk refusal": "ignored"},
    "fenced": EVERYWHERE | REDIRECTS | {"stray chunk refusal": "ignored", "commit": "refused"},
    "joining": EVERYWHERE
    | REDIRECTS
    | {
        "records": "logged",
        "commit": "clock",
        "first chunk": "taken",
        "next chunk": "taken",
        "stray chunk refusal": "ignored",
    },
    "joined": EVERYWHERE
    | REDIRECTS
    | {
        "records": "logged",
        "commit": "clock",
        "first chunk": "taken",
        "stray chunk refusal": "ignored",
    },
    "suspended": EVERYWHERE
    | REDIRECTS
    | {"get": "answered", "create": "answered", "commit": "refused", "stray chunk refusal": "ignored"},
}


def state(probe: Probe) -> tuple[object, ...]:
    """All of a replica that an input might change."""
    replica = probe.replica
    if replica is None:
        return ()
    receiver = replica.receiver
    primary = replica.primary
    return (
        replica.role,
        replica.epoch,
        replica.primary_incarnation,
        replica.members,
        replica.log.appended,
        replica.committed,
        replica.clock.last_us,
        replica.table.fingerprint(),
        None if receiver is None else (receiver.join, receiver.next_number, receiver.complete),
        None if replica.proposal is None else replica.proposal.proposal,
        None if primary is None else len(primary.held),
        None
        if primary is None
        else [(recipient.acknowledged, recipient.refused) for recipient in primary.replication.recipients],
    )


def outcome(before: tuple[object, ...], probe: Probe) -> str:
    """Name what a step did, from its effects and from what it changed."""
    after = state(probe)
    answers = [effect.message for effect in probe.effects if isinstance(effect, fx.ReplyToPeer)]
    replies = [effect.message for effect in probe.effects if isinstance(effect, fx.ReplyToClient)]
    if replies:
        (reply,) = replies
        match reply:
            case wire.Redirect(appended=False):
                assert before == after
                return "redirected"
            case wire.Listing(shards=()) | wire.Counted(counts=()):
                assert before == after
                return "left out"
        return "answered"
    if before != after:
        if any(isinstance(answer, SnapshotOk) for answer in answers):
            return "taken"
        changed = {index for index, (old, new) in enumerate(zip(before, after, strict=False)) if old != new}
        return {frozenset({6}): "clock", frozenset({10}): "held"}.get(frozenset(changed), "logged")
    if any(isinstance(answer, SnapshotRefused) or getattr(answer, "refused", ()) for answer in answers):
        return "refused"
    return "ignored" if probe.ignored() else "nothing"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", INPUTS)
def test_each_role_does_with_each_input_what_the_table_says(role: str, name: str) -> None:
    probe = Probe()
    ROLES[role](probe)
    before = state(probe)
    probe.step(INPUTS[name])
    assert outcome(before, probe) == EXPECTED[role][name]


def test_the_table_names_every_role_and_every_kind() -> None:
    assert set(ACCEPTS) == set(Role)
    assert set().union(*ACCEPTS.values()) == set(InputKind)


@pytest.mark.parametrize("role", ROLES)
def test_only_a_backup_takes_over_from_a_silent_primary(role: str) -> None:
    """Only a backup keeps trying, too."""
    probe = Probe()
    ROLES[role](probe)
    kinds = [proposal.kind for proposal in (probe.after(1.3), probe.proposals())[1]]
    assert ("takeover" in kinds) == (role in ("backup", "fenced"))


@pytest.mark.parametrize("role", ROLES)
def test_a_map_that_is_not_newer_is_ignored(role: str) -> None:
    probe = Probe()
    ROLES[role](probe)
    before = state(probe)
    probe.version -= 1
    probe.configure(9, (C,), wanted="c")
    assert state(probe) == before
    assert "is not newer" in probe.ignored()[0]


@pytest.mark.parametrize("role", ROLES)
def test_who_is_no_member_any_more_lets_the_replica_go(role: str) -> None:
    probe = Probe()
    ROLES[role](probe)
    probe.configure(9, (C,), wanted="c")
    assert probe.replica is None
    (reply,) = probe.ask(wire.Get(1, 0, ALICE))
    assert reply == wire.Redirect(1, probe.version)


@pytest.mark.parametrize("role", ROLES)
def test_before_the_first_map_everything_is_turned_away(role: str) -> None:
    probe = Probe()
    (reply,) = probe.ask(create(1))
    assert isinstance(reply, wire.Redirect)
    (answer,) = probe.hear(B, chunk())
    assert isinstance(answer, SnapshotRefused)
    (answer,) = probe.hear(B, prepare(1))
    assert answer == PrepareOk(1, ((0, 2),))
    probe.after(5)
    ROLES[role](probe)


@pytest.mark.parametrize("role", ["primary", "handing over"])
def test_a_primary_that_is_superseded_says_what_may_have_happened(role: str) -> None:
    """A request in the log may take effect at the successor; a held one has not been applied."""
    probe = Probe()
    if role == "primary":
        probe.become_primary()
        probe.ask(create(1))
    else:
        probe.hand_over()
        probe.ask(create(1))
    probe.configure(9, (C,), wanted="c")
    (reply,) = [effect.message for effect in probe.effects if isinstance(effect, fx.ReplyToClient)]
    assert reply == wire.Redirect(1, probe.version, appended=role == "primary")


def test_a_fenced_backup_acknowledges_nothing_until_a_later_epoch_frees_it() -> None:
    probe = Probe()
    probe.fence()
    (answer,) = probe.hear(B, Beacon(5, 0))
    assert answer.refused == ((0, 2),)
    (answer,) = probe.hear(B, prepare(11))
    assert answer.refused == ((0, 2),)
    probe.configure(3, (B, ME), wanted="ba")
    assert probe.replica.role is Role.BACKUP
    (answer,) = probe.hear(B, prepare(11, epoch=3))
    assert answer.refused == ()


def test_roles_change_in_become_and_nowhere_else() -> None:
    """Only `_become`, which asks the table, sets a role; only `become_*` calls it."""
    for path in Path(shard.__file__).parent.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if not isinstance(node, ast.Attribute):
                    continue
                if node.attr == "role" and isinstance(node.ctx, ast.Store):
                    assert function.name in ("__init__", "_become"), f"{path.name}: {function.name}"
                if node.attr == "_become":
                    assert function.name.lstrip("_").startswith("become_"), f"{path.name}: {function.name}"
