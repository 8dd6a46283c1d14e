"""An actor goes on with a shard from what its directory has."""

import pytest

from greenroom.cluster_map import SuspectRecord
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import (
    SnapshotChunk,
    SnapshotOk,
    SnapshotRefused,
)
from greenroom_cluster.shard.state.records import heading
from tests.cluster.shard.durable_probe import (
    DIRECTORIES,
    THEIRS,
    DurableProbe,
    acknowledged,
    recovered,
    restart,
)
from tests.cluster.shard.probe import ME, WALL_US, B, C, D, chunk, create, prepare


def offer(kept_from: int, *rungs: tuple[int, int], epoch: int = 3) -> SnapshotChunk:
    """The primary's offer to go on, at join 7."""
    return SnapshotChunk(0, epoch, 7, 0, WALL_US, 0, True, (), (), (), continues=(kept_from, rungs))


def returned(*sequences: int) -> DurableProbe:
    """Return a former backup that is back from its disk, which holds these records after a snapshot at 10."""
    before = DurableProbe()
    before.become_backup()
    before.hear(B, prepare(*sequences))
    before.synced()
    probe = restart(before)
    probe.configure(3, (B,), wanted="ba", dead="c")
    probe.synced()
    return probe


def told(probe: DurableProbe) -> SnapshotOk | SnapshotRefused:
    (message,) = [effect.message for effect in probe.effects if isinstance(effect, fx.ReplyToPeer)]
    assert isinstance(message, SnapshotOk | SnapshotRefused)
    return message


def test_a_former_backup_goes_on_with_what_it_has() -> None:
    probe = returned(11, 12)
    probe.hear(B, offer(10, (2, 13)))
    taken = told(probe)
    assert isinstance(taken, SnapshotOk)
    assert (taken.sequence, taken.mark) == (12, probe.mark)
    probe.hear(B, prepare(13, epoch=3, committed=12))
    assert acknowledged(probe.synced()) == [1]
    probe.configure(4, (B, ME), wanted="ba", dead="c")
    probe.synced()
    assert probe.replica is not None
    assert (probe.replica.role.value, probe.replica.committed) == ("backup", 12)
    assert (probe.replayed()[0].from_sequence, probe.replayed()[0].appended) == (10, 13)


def test_what_the_others_went_on_without_is_cut_off() -> None:
    """It was never acknowledged: the former primary had not sent it."""
    probe = returned(11, 12, 13)
    probe.hear(B, offer(10, (2, 11), (3, 20)))
    probe.synced()
    taken = told(probe)
    assert isinstance(taken, SnapshotOk)
    assert taken.sequence == 11
    probe.hear(B, prepare(12, epoch=3, committed=11))
    probe.synced()
    kept = map(heading, probe.replayed()[0].records)
    assert [(each.epoch, each.sequence) for each in kept] == [(2, 11), (3, 12)]


@pytest.mark.parametrize(
    "offered",
    [
        pytest.param(offer(13, (2, 20)), id="the tail is gone"),
        pytest.param(offer(0, (2, 9), (3, 20)), id="applied beyond"),
        pytest.param(offer(0, (3, 20)), id="nothing in common"),
    ],
)
def test_who_cannot_go_on_asks_for_a_snapshot(offered: SnapshotChunk) -> None:
    probe = returned(11, 12)
    probe.hear(B, offered)
    assert isinstance(told(probe), SnapshotRefused)
    probe.hear(B, chunk(epoch=3, join=8, sequence=20))
    probe.synced()
    assert isinstance(told(probe), SnapshotOk)
    assert probe.replayed()[0].from_sequence == 20


def test_nobody_goes_on_through_a_record_that_ended_an_actor() -> None:
    """Its primary is past that record, and a snapshot does not have it applied again."""
    probe = returned(11, 12)
    probe.configure(4, (B,), wanted="ba", dead="c", suspect=SuspectRecord(C, 2, 12))
    probe.hear(B, offer(10, (2, 13), epoch=4))
    assert isinstance(told(probe), SnapshotRefused)


def removed_backup() -> DurableProbe:
    """Return a primary whose backup was removed with record 1 unacknowledged, after which 2 followed."""
    probe = DurableProbe()
    probe.become_primary()
    probe.ask(create(1))
    probe.synced()
    probe.configure(2, (ME, B), wanted="ab", dead="b")
    probe.synced()
    probe.configure(3, (ME,), nonce=probe.proposal("remove").nonce, wanted="ab", dead="b")
    probe.ask(create(2, digest=b"b" * 32))
    probe.synced()
    return probe


def come_back(probe: DurableProbe) -> SnapshotChunk:
    """Have actor d come back with the directory of b; return what it is sent first."""
    probe.configure(3, (ME,), wanted="ad", dead="b", directories={**DIRECTORIES, "d": THEIRS})
    probe.connect(D)
    (first,) = probe.chunks()
    return first


def test_a_primary_keeps_what_a_former_backup_lacks() -> None:
    probe = removed_backup()
    first = come_back(probe)
    assert first.continues == (0, ((2, 1), (3, 2)))
    probe.hear(D, SnapshotOk(0, 3, first.join, 0, mark=9, sequence=1))
    (sent,) = probe.prepares()
    assert [record.sequence for record in sent.entries[0].records] == [2]


def test_a_refused_offer_is_followed_by_a_snapshot() -> None:
    probe = removed_backup()
    first = come_back(probe)
    probe.hear(D, SnapshotRefused(0, 3, first.join, "a test"))
    probe.after(0.4)
    probe.connect(D)
    (second,) = probe.chunks()
    assert (second.continues, second.sequence) == (None, 2)


@pytest.mark.parametrize("refused", [False, True], ids=["link broken", "no map yet"])
def test_an_offer_that_did_not_arrive_is_made_again(refused: bool) -> None:
    probe = removed_backup()
    first = come_back(probe)
    if refused:
        probe.hear(D, SnapshotRefused(0, 3, first.join, "a test", waits=True))
    else:
        probe.step(ins.LinkDown(D, bulk=True))
    probe.after(0.4)
    probe.connect(D)
    (second,) = probe.chunks()
    assert second.join > first.join
    assert second.continues == first.continues


def test_who_has_no_map_yet_may_be_offered_to_go_on_again() -> None:
    before = DurableProbe()
    before.become_backup()
    probe = restart(before)
    (refusal,) = probe.hear(B, offer(10, (2, 10)))
    assert isinstance(refusal, SnapshotRefused)
    assert refusal.waits


def test_an_offer_takes_no_turn_from_a_snapshot() -> None:
    probe = removed_backup()
    first = come_back(probe)
    assert probe.host._joins.taken == 0
    probe.hear(D, SnapshotRefused(0, 3, first.join, "a test"))
    probe.after(0.4)
    assert probe.host._joins.taken == 1


def recovered_beside_another(count: int = 1) -> tuple[DurableProbe, SnapshotChunk]:
    """Return an heir that goes on while that of the other member runs, and what it sends that one."""
    before = DurableProbe()
    before.start_alone()
    before.ask(*[create(1)][:count])
    before.synced()
    probe = restart(before)
    claim = recovered(probe, (C, B))
    directories = {**DIRECTORIES, "d": THEIRS}
    probe.configure(2, (ME,), nonce=claim.nonce, wanted="ad", dead="cb", directories=directories)
    probe.synced()
    probe.effects = probe.step(ins.LinkUp(D, bulk=True))
    (first,) = probe.chunks()
    return probe, first


@pytest.mark.parametrize("count", [0, 1])
def test_who_recovers_has_the_others_go_on_at_once(count: int) -> None:
    _, first = recovered_beside_another(count)
    assert first.continues == (0, ((1, 1),)[:count])


def test_who_goes_on_is_added_with_its_lease() -> None:
    probe, first = recovered_beside_another()
    probe.step(ins.LinkUp(D, bulk=False))
    probe.hear(D, SnapshotOk(0, 2, first.join, 0, mark=9, sequence=1))
    assert probe.replica is not None
    assert probe.replica.proposal is None, "it has granted no lease yet"
    probe.grant(D)
    assert probe.replica.proposal is not None
    assert probe.replica.proposal.proposal.backups == (D,)


def test_nothing_is_kept_for_long() -> None:
    probe = removed_backup()
    assert probe.replica is not None
    assert probe.replica.log.first == 1
    probe.after(61)
    assert probe.replica.log.first == 3
    assert come_back(probe).continues is None


def test_who_took_over_keeps_what_a_former_primary_lacks() -> None:
    probe = DurableProbe()
    probe.become_backup()
    probe.hear(B, prepare(11, 12))
    probe.synced()
    probe.after(1.3)
    probe.synced()
    probe.configure(3, (ME,), nonce=probe.proposal("takeover").nonce, wanted="ab", dead="b")
    probe.synced()
    first = come_back(probe)
    assert first.continues == (10, ((1, 10), (2, 12)))
