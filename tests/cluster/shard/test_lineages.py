"""A new lineage begins from a copy of the map, which may be older than what the actors have lived through."""

from greenroom import wire
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.messages import Beacon, PrepareOk, SnapshotOk
from greenroom_cluster.shard.roles.role import Role
from tests.cluster.shard.probe import ALICE, ME, NONCE, B, C, Probe, chunk, create, prepare

RAISED = 1 << 16


def test_a_lineage_with_the_same_members_changes_only_the_epoch() -> None:
    probe = Probe()
    probe.become_primary()
    nonce = probe.host.map.shards[0].nonce
    probe.ask(create(1))
    recipient = probe.recipient
    probe.configure(RAISED + 2, (ME, B), wanted="ab", nonce=nonce, lineage=2)
    assert probe.recipient is recipient
    assert probe.serves()
    probe.hear(B, PrepareOk(probe.pair().flights[0].batch))
    assert probe.replica.committed == 1
    backup = Probe()
    backup.become_backup()
    backup.configure(RAISED + 2, (B, ME), wanted="ba", nonce=NONCE, lineage=2)
    assert backup.replica.role is Role.BACKUP
    (answer,) = backup.hear(B, prepare(11, epoch=RAISED + 2))
    assert answer.refused == ()


def test_a_primary_that_an_old_map_calls_backup_joins_anew() -> None:
    """It has other records than the older primary under the same numbers."""
    probe = Probe()
    probe.fence()
    probe.configure(3, (ME,), nonce=probe.replica.proposal.proposal.nonce, wanted="a")
    probe.ask(create(1))
    assert ALICE in probe.replica.table.sessions
    probe.configure(RAISED + 2, (B, ME), wanted="ba", nonce=b"o" * 12, lineage=2)
    assert probe.replica is None
    (answer,) = probe.hear(B, prepare(11, epoch=RAISED + 2))
    assert answer.refused == ((0, RAISED + 2),)
    (answer,) = probe.hear(B, Beacon(5, 0))
    assert (0, RAISED + 2) in answer.refused
    (answer,) = probe.hear(B, chunk(epoch=RAISED + 3))
    assert isinstance(answer, SnapshotOk)


def test_a_backup_of_a_later_configuration_joins_anew() -> None:
    probe = Probe()
    probe.become_backup()
    probe.configure(3, (B, ME), wanted="ba", nonce=b"l" * 12)
    probe.configure(RAISED + 2, (B, ME), wanted="ba", nonce=NONCE, lineage=2)
    assert probe.replica is None


def test_a_primary_does_not_count_backups_of_an_older_configuration() -> None:
    """It went on alone meanwhile: the backup lacks what it acknowledged, and must not take over."""
    probe = Probe()
    probe.become_primary()
    older = probe.host.map.shards[0].nonce
    probe.ask(create(1))
    probe.after(1.3)
    probe.configure(3, (ME,), nonce=probe.proposal("remove").nonce, wanted="a")
    assert probe.replica.committed == 1
    probe.configure(RAISED + 2, (ME, B), wanted="ab", nonce=older, lineage=2)
    assert not probe.serves()
    probe.ask(create(2, b"b" * 32))
    probe.grant(B)
    assert not probe.serves()
    assert probe.replica.committed == 1
    probe.after(0.3)
    removal = probe.replica.primary.opened.proposal
    assert (removal.kind, removal.backups) == ("remove", ())
    probe.configure(RAISED + 3, (ME,), nonce=removal.nonce, wanted="ab", lineage=2)
    assert probe.serves()
    assert probe.replica.committed == 2


def test_an_older_copy_of_the_map_makes_nobody_serve_a_shard() -> None:
    """The actor does not have the shard."""
    probe = Probe()
    probe.configure(3, (C,), wanted="ca")
    probe.configure(RAISED + 2, (ME, C), wanted="ac", lineage=2)
    assert probe.replica is None
    (reply,) = probe.ask(create(1))
    assert isinstance(reply, wire.Redirect)


def test_a_backup_that_an_old_map_calls_primary_lost_nothing() -> None:
    """The shard was handed over since the copy: whatever its primary acknowledged is in our log."""
    probe = Probe()
    probe.become_backup()
    probe.hear(B, prepare(11, 12))
    probe.configure(RAISED + 1, (ME, B), wanted="ab", nonce=b"o" * 12, lineage=2)
    assert probe.replica.committed == 12
    assert not probe.serves()
    probe.configure(RAISED + 2, (ME,), wanted="ab", nonce=b"p" * 12, lineage=2)
    assert not probe.serves()
    probe.after(1.5)
    assert probe.serves()


def test_an_older_copy_of_the_map_makes_no_joiner_a_primary() -> None:
    probe = Probe()
    probe.join()
    probe.configure(RAISED + 1, (ME, B), wanted="ab", nonce=b"o" * 12, lineage=2)
    assert probe.replica is None


def made_primary_by_an_older_copy() -> Probe:
    """Back B, which is primary by a configuration that the copy does not know, and be the copy's primary."""
    probe = Probe()
    probe.become_backup()
    probe.hear(B, prepare(11, 12))
    probe.configure(RAISED + 1, (ME,), wanted="a", nonce=b"o" * 12, lineage=2)
    return probe


def test_a_backup_of_another_primary_answers_once_that_has_stopped() -> None:
    """B has not heard of the new lineage and serves for as long as our last promise to it holds."""
    probe = made_primary_by_an_older_copy()
    appended = probe.replica.log.appended
    assert probe.ask(create(12)) == []  # prepared by B, where it may not be committed yet
    assert probe.ask(create(20, b"b" * 32), wire.Get(21, 0, ALICE)) == []
    for _ in range(4):
        probe.after(0.25)
        assert not probe.serves()
        assert probe.replica.log.appended == appended
    effects = probe.after(0.25)
    assert probe.serves()
    answered = {effect.message.request_id for effect in effects if isinstance(effect, ReplyToClient)}
    assert answered == {12, 20, 21}


def test_it_does_not_hand_over_or_let_others_join_before_either() -> None:
    probe = made_primary_by_an_older_copy()
    probe.configure(RAISED + 1, (ME,), wanted="ba", nonce=b"o" * 12, lineage=2)
    probe.after(0.3)
    assert B not in probe.host._pairs.outgoing
    assert not probe.serves()
    probe.after(1.2)
    assert B in probe.host._pairs.outgoing
    assert probe.serves()
