"""Peers of a release that knows no namespaces get nothing of them, and are told about by name."""

import pytest

from greenroom import wire
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import PrepareOk, SnapshotOk
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.stored import as_received
from tests.cluster.shard.probe import CLIENT, ME, B, Probe, create

FORMER = frozenset({wire.FEATURE_COPIES})
UNFIT = "actor nb/0 is of a former release: upgrade node nb"


def write(probe: Probe, number: int, namespace: str = "shop") -> wire.Reply | None:
    """Create a session; None if it was logged and waits."""
    made = create(number, bytes([number]) * 32, low=number)
    effects = probe.step(ins.ClientRequests(1, CLIENT, [made], namespace=namespace))
    replies = [as_received(each.message) for each in effects if isinstance(each, fx.ReplyToClient)]
    return replies[0] if replies else None


def link(probe: Probe, features: frozenset[str]) -> None:
    """Both links to the backup come up, and it grants its lease."""
    probe.step(ins.LinkUp(B, bulk=False, features=features))
    probe.grant(B)
    probe.step(ins.LinkUp(B, bulk=True, features=features))


def joining(features: frozenset[str], *, before: int = 0, meanwhile: int = 0) -> Probe:
    """A primary whose plan names a joiner, with so many sessions of a namespace before, and meanwhile."""
    probe = Probe()
    probe.start_alone()
    for number in range(1, before + 1):
        assert isinstance(write(probe, number), wire.Written)
    probe.configure(1, (ME,), wanted="ab")
    for number in range(1, meanwhile + 1):
        assert isinstance(write(probe, 50 + number), wire.Written), "nobody has been reached yet"
    link(probe, features)
    return probe


def chunks_sent(probe: Probe) -> bool:
    return bool(probe.chunks())


def refusal(probe: Probe) -> str:
    assert probe.replica is not None
    assert probe.replica.primary is not None
    return probe.replica.primary.membership.refusal


@pytest.mark.parametrize(("before", "meanwhile"), [(1, 0), (0, 1), (3, 3)])
def test_a_shard_with_names_is_not_copied_to_a_former_release(before: int, meanwhile: int) -> None:
    probe = joining(FORMER, before=before, meanwhile=meanwhile)
    assert not chunks_sent(probe)
    assert refusal(probe) == UNFIT
    assert isinstance(write(probe, 90), wire.Written), "the shard goes on alone"
    for _ in range(30):
        probe.after(0.25)
        assert not probe.prepares()
        assert not chunks_sent(probe)


def test_a_copy_that_was_frozen_with_names_is_not_sent() -> None:
    """They have been deleted since the snapshot was begun, but stand in it."""
    probe = Probe()
    probe.start_alone()
    assert isinstance(write(probe, 1), wire.Written)
    probe.configure(1, (ME,), wanted="ab")
    delete = wire.Delete(2, 2, 0, 0, bytes([1]) * 32)
    probe.step(ins.ClientRequests(1, CLIENT, [delete], namespace="shop"))
    assert probe.replica is not None
    assert probe.replica.table.sessions == {}
    link(probe, FORMER)
    assert not chunks_sent(probe)
    assert refusal(probe) == UNFIT


def test_a_shard_without_names_is_copied_and_takes_none() -> None:
    probe = joining(FORMER)
    join = probe.chunks()[-1].join
    told = write(probe, 1)
    assert told == wire.Overloaded(1, UNFIT)
    probe.hear(B, SnapshotOk(0, 1, join, 0))
    probe.configure(2, (ME, B), nonce=probe.proposal("add").nonce, wanted="ab")
    assert write(probe, 3) == wire.Overloaded(3, UNFIT)
    assert write(probe, 2, namespace="") is None
    sent = [record for prepare in probe.prepares() for part in prepare.entries for record in part.records]
    assert [type(record.command) for record in sent] == [wire.Create]
    for request in (
        wire.Delete(4, 4, 0, 0, bytes([1]) * 32),
        wire.DeleteByUser(5, 5, 0, "u", b"", (0,)),
        wire.Clean(6, 6, 0, (0,)),
    ):
        effects = probe.step(ins.ClientRequests(1, CLIENT, [request], namespace="shop"))
        assert not probe.prepares()
        assert [each for each in effects if isinstance(each, fx.ReplyToClient)]


def test_a_joiner_that_cannot_read_evictions_gets_none() -> None:
    """One was logged before it was reached, behind the snapshot that it would get."""
    probe = Probe(HostSettings(memory_bytes_max=200_000, eviction="anonymous"))
    probe.start_alone()
    probe.configure(1, (ME,), wanted="ab")
    data = b"\x81\xa1d\xc5\x04\x00" + bytes(1024)
    for number in range(1, 500):
        probe.ask(create(number, number.to_bytes(32, "big"), data, low=number))
        if probe.host._resources.evictions.sessions:
            break
    assert probe.host._resources.evictions.sessions
    link(probe, FORMER)
    assert not chunks_sent(probe)
    assert refusal(probe) == UNFIT


def test_the_operator_is_told_which_node_to_upgrade() -> None:
    probe = joining(FORMER)
    made = create(1, low=1)
    effects = probe.step(ins.ClientRequests(1, CLIENT, [made], namespace="shop"))
    (warned,) = [each.message for each in effects if isinstance(each, fx.Warned)]
    assert warned.endswith(UNFIT)


def test_a_joiner_of_this_release_gets_all() -> None:
    probe = joining(frozenset(wire.FEATURES), before=2, meanwhile=2)
    keys = [session.digest for chunk in probe.chunks() for session in chunk.sessions]
    assert any(len(key) > 32 for key in keys)
    assert refusal(probe) == ""


def test_a_backup_whose_release_is_unknown_is_waited_for() -> None:
    """After a hand-over the new primary has not yet been connected to the backups that it got."""
    probe = Probe()
    probe.become_backup()
    probe.configure(3, (ME, B), wanted="ab")
    told = write(probe, 1)
    assert isinstance(told, wire.Overloaded)
    assert told.reason == "the release of actor nb/0 is not known yet"
    link(probe, frozenset(wire.FEATURES))
    assert write(probe, 2) is None
    (prepare,) = probe.prepares()
    probe.hear(B, PrepareOk(prepare.batch))
