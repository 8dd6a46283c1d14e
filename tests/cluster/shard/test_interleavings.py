"""Orders of events that are rare in practice, each of which could lose, repeat or resurrect something."""

import msgspec
import pytest

from greenroom import wire
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import Beacon, BeaconOk, PrepareOk, SnapshotOk, SnapshotRefused
from greenroom_cluster.shard.roles.role import Role
from tests.cluster.shard.probe import ALICE, ME, B, Probe, chunk, create, prepare


def reopened() -> tuple[Probe, int]:
    """A primary whose pair with B was closed with a batch in flight and opened again; that batch's number."""
    probe = Probe()
    probe.become_primary()
    probe.ask(create(1))
    (sent,) = probe.prepares()
    probe.after(1.3)  # B is silent, so its removal is proposed
    probe.configure(3, (ME,), nonce=probe.proposal("remove").nonce, wanted="a")
    probe.after(0.3)
    assert B not in probe.host._pairs.outgoing
    probe.configure(3, (ME,), wanted="ab")
    probe.connect(B)
    return probe, sent.batch


def test_an_acknowledgement_of_a_closed_pair_does_not_count() -> None:
    """Not for the next pair."""
    probe, batch = reopened()
    probe.hear(B, SnapshotOk(0, 3, probe.chunks()[0].join, 0))
    probe.effects = []
    probe.configure(4, (ME, B), wanted="ab")
    probe.ask(create(2, b"b" * 32))
    (sent,) = probe.prepares()
    assert sent.batch != batch
    probe.hear(B, PrepareOk(batch))
    assert probe.recipient.acknowledged < probe.replica.log.appended


def test_a_beacon_answered_to_a_closed_pair_hides_no_refusals() -> None:
    """The next pair still learns of them."""
    probe = Probe()
    probe.become_primary()
    beacon_ns = probe.now_ns
    probe.after(1.3)
    probe.configure(3, (ME,), nonce=probe.proposal("remove").nonce, wanted="a")
    probe.after(0.3)
    probe.configure(3, (ME,), wanted="ab")
    # The former pair had taken in five refusals; the new one knows none and must ask for all.
    probe.hear(B, BeaconOk(beacon_ns, 5, ()))
    assert probe.pair().refusals_seen == 0


def test_acknowledgements_of_a_broken_connection_do_not_count() -> None:
    """They are not taken for those of the next one."""
    probe = Probe()
    probe.become_primary()
    probe.ask(create(1))
    (first,) = probe.prepares()
    probe.step(ins.LinkDown(B, bulk=False))
    probe.step(ins.LinkUp(B, bulk=False))
    (second,) = probe.prepares()
    probe.hear(B, PrepareOk(first.batch))
    assert probe.recipient.acknowledged == 0
    probe.hear(B, PrepareOk(second.batch))
    assert probe.recipient.acknowledged == 1


def test_a_backup_removed_unknowingly_is_not_added_before_it_knows() -> None:
    """Why a jump over a removal and an addition never meets a stale backup: it refuses to join meanwhile."""
    for role in ("backup", "fenced"):
        probe = Probe()
        probe.become_backup()
        if role == "fenced":
            probe.after(1.3)
        (answer,) = probe.hear(B, chunk(epoch=3, join=9))
        assert isinstance(answer, SnapshotRefused), role
        assert "already" in answer.reason
        probe.configure(3, (B,), wanted="ba")
        assert probe.replica is None
        (answer,) = probe.hear(B, chunk(epoch=3, join=10))
        assert isinstance(answer, SnapshotOk)


def test_a_superseded_primary_refuses_to_join_before_it_knows() -> None:
    probe = Probe()
    probe.become_primary()
    (answer,) = probe.hear(B, chunk(epoch=3))
    assert isinstance(answer, SnapshotRefused)
    assert probe.replica.role is Role.PRIMARY


def test_a_joiner_made_primary_between_two_maps_serves_its_log() -> None:
    """It was added in between too."""
    probe = Probe()
    probe.join()
    probe.hear(B, prepare(11, 12, epoch=1))
    probe.configure(3, (ME, B), wanted="ab")
    assert probe.replica.role is Role.PRIMARY
    assert probe.replica.committed == 12


def quiet(probe: Probe, seconds: int) -> list[fx.HostEffect]:
    """Time passes second by second, with beacons and prompt acknowledgements."""
    effects: list[fx.HostEffect] = []
    for _ in range(seconds):
        effects += probe.after(1)
        probe.grant(B)
        settle(probe)
    return effects


def settle(probe: Probe) -> None:
    """B acknowledges all that is in flight."""
    while probe.pair().flights:
        probe.hear(B, PrepareOk(probe.pair().flights[0].batch))


def test_a_client_that_wrote_just_before_it_is_forgotten_keeps_its_result() -> None:
    """Its new write stands in the log before the decision to forget it, so that must not concern it."""
    probe = Probe()
    probe.become_primary()
    probe.ask(create(1))
    settle(probe)
    quiet(probe, 49)
    probe.ask(create(2, b"b" * 32))  # not acknowledged by B before the sweep
    probe.after(1)
    probe.grant(B)
    settle(probe)
    assert probe.replica.committed == probe.replica.log.appended
    (again,) = probe.ask(create(2, b"b" * 32))
    assert isinstance(again, wire.Written)


def test_a_silent_client_is_forgotten() -> None:
    probe = Probe()
    probe.become_primary()
    probe.ask(create(1))
    settle(probe)
    quiet(probe, 52)
    assert len(probe.replica.table.clients) == 0


def test_a_paused_primary_answers_a_repeat_from_the_kept_result() -> None:
    """While it was paused the client seemed silent, but its repeat may have arrived meanwhile."""
    probe = Probe()
    probe.start_alone()
    (first,) = probe.ask(create(1))
    probe.after(60)
    assert probe.ask(create(1)) == [first]


def test_a_request_that_was_held_long_is_answered_from_the_kept_result() -> None:
    probe = Probe()
    probe.become_primary()
    probe.ask(create(1))
    settle(probe)
    probe.configure(2, (ME, B), wanted="ba")
    probe.refuse(probe.proposal("handover"))
    reaffirm = probe.proposal("reaffirm")
    probe.ask(create(2, b"b" * 32))
    for _ in range(70):
        probe.after(1)
    probe.grant(B)
    probe.configure(3, (ME, B), nonce=reaffirm.nonce, wanted="ab")
    quiet(probe, 2)
    (again,) = probe.ask(create(1))
    assert isinstance(again, wire.Written)


def test_an_old_request_of_a_client_that_went_on_is_not_applied() -> None:
    probe = Probe()
    probe.start_alone()
    probe.ask(create(8, b"b" * 32, low=8))
    (reply,) = probe.ask(create(7, low=7), connection=2)
    assert isinstance(reply, wire.Unknowable)
    assert ALICE not in probe.replica.table.sessions


def held_at_hand_over(probe: Probe) -> Proposal:
    """A primary whose proposal to hand over was refused; return the proposal that settles it."""
    probe.hand_over()
    probe.refuse(probe.proposal("handover"))
    return probe.proposal("reaffirm")


def test_a_held_request_is_dropped_with_its_connection() -> None:
    """It may come again on another."""
    probe = Probe()
    reaffirm = held_at_hand_over(probe)
    assert probe.ask(create(1), connection=1) == []
    probe.step(ins.ConnectionClosed(1))
    assert probe.ask(create(1), connection=2) == []
    probe.configure(3, (ME, B), nonce=reaffirm.nonce, wanted="ab")
    settle(probe)
    assert probe.replica.log.appended == 1
    replies = [effect for effect in probe.effects if isinstance(effect, fx.ReplyToClient)]
    assert [effect.connection for effect in replies] == [2]


def test_a_request_held_twice_takes_effect_once() -> None:
    probe = Probe()
    reaffirm = held_at_hand_over(probe)
    probe.ask(create(1), connection=1)
    probe.ask(create(1), connection=2)
    probe.configure(3, (ME, B), nonce=reaffirm.nonce, wanted="ab")
    settle(probe)
    assert probe.replica.log.appended == 1


def test_a_refused_proposal_is_settled_by_a_later_epoch_first() -> None:
    probe = Probe()
    probe.become_primary()
    probe.after(1.3)
    removal = probe.proposal("remove")
    probe.refuse(removal)
    reaffirm = probe.proposal("reaffirm")
    assert reaffirm.nonce != removal.nonce
    # The removal may still apply, late; until the epoch moves nothing else is proposed.
    probe.after(0.3)
    assert probe.proposals() == []
    assert not probe.serves()


def test_a_backup_whose_removal_is_undecided_is_obeyed() -> None:
    """It came back meanwhile, and is obeyed until the removal is decided."""
    probe = Probe()
    probe.become_primary()
    probe.after(1.3)
    removal = probe.proposal("remove")
    probe.grant(B)
    assert probe.serves()
    assert probe.ask(create(1)) == []
    assert probe.replica.committed == 0
    probe.configure(3, (ME,), nonce=removal.nonce, wanted="ab")
    assert probe.replica.committed == 1


def test_while_an_addition_is_undecided_both_configurations_hold() -> None:
    probe = Probe()
    probe.start_alone()
    probe.configure(1, (ME,), wanted="ab")
    probe.connect(B)
    assert probe.ask(create(1))  # not proposed yet: alone is enough
    probe.hear(B, SnapshotOk(0, 1, probe_join(probe), 0))
    settle(probe)
    assert probe.replica.primary.opened.proposal.kind == "add"
    assert probe.ask(create(2, b"b" * 32)) == []
    probe.after(1.1)
    assert not probe.serves()


def probe_join(probe: Probe) -> int:
    return probe.replica.primary.membership.transfer.join


def test_a_joiner_is_proposed_once_it_has_logged_everything() -> None:
    """Else it would be a member without them: the primary's death, or a hand-over, would lose them."""
    probe = Probe()
    probe.start_alone()
    probe.configure(1, (ME,), wanted="ab")
    probe.connect(B)
    join = probe_join(probe)
    for number in range(1, 4):
        assert probe.ask(create(number, bytes([number]) * 32))  # acknowledged alone
    probe.hear(B, SnapshotOk(0, 1, join, 0))
    (sent,) = probe.prepares()
    assert probe.proposals() == []
    # From here on nothing is committed without it any more, so that it can catch up under load.
    assert probe.ask(create(4, b"4" * 32)) == []
    probe.hear(B, PrepareOk(sent.batch))
    assert probe.proposal("add").backups == (B,)
    assert probe.recipient.acknowledged >= probe.replica.committed == 3


def test_a_joiner_lost_while_it_catches_up_holds_nothing_up() -> None:
    probe = Probe()
    probe.start_alone()
    probe.configure(1, (ME,), wanted="ab")
    probe.connect(B)
    probe.ask(create(1))
    probe.hear(B, SnapshotOk(0, 1, probe_join(probe), 0))
    assert probe.ask(create(2, b"b" * 32)) == []
    probe.after(1.3)
    assert probe.replica.committed == 2


def test_a_late_decision_about_another_proposal_changes_nothing() -> None:
    probe = Probe()
    probe.become_primary()
    probe.after(1.3)
    opened = probe.replica.primary.opened
    probe.refuse(msgspec.structs.replace(opened.proposal, nonce=b"x" * 12))
    assert probe.replica.primary.opened is opened
    assert probe.ignored() == ["no such proposal is open"]


def test_a_refusal_that_comes_before_its_epoch_holds_afterwards() -> None:
    """B took part in an epoch that this actor has still to hear of, and left it already."""
    probe = Probe()
    probe.become_primary()
    probe.grant(B, (0, 3), refusal=1)
    assert not probe.serves()
    probe.configure(3, (ME, B), wanted="ab")
    probe.grant(B, refusal=1)
    assert not probe.serves()
    probe.configure(4, (ME, B), wanted="ab")
    assert probe.serves()


def test_an_added_member_learns_the_commit_point_it_missed() -> None:
    """It missed it while it joined."""
    probe = Probe()
    probe.become_primary()
    probe.after(0.3)
    commits = [effect.message.commits for effect in probe.effects if isinstance(effect, fx.Send)]
    assert [entry[:3] for entry in commits[0]] == [(0, 2, 0)]


def test_a_commit_point_that_a_backup_let_pass_is_told_again_in_time() -> None:
    probe = Probe()
    probe.become_primary()
    probe.ask(create(1))
    settle(probe)

    def times_told(seconds: int) -> int:
        told = 0
        for _ in range(seconds):
            effects = quiet(probe, 1) + probe.after(0.3)
            sent = [effect.message for effect in effects if isinstance(effect, fx.Send)]
            told += sum(isinstance(message, Beacon) and bool(message.commits) for message in sent)
        return told

    # Once because it is news; then again soon, since the configuration is, and then more and more seldom.
    assert 3 <= times_told(5) <= 4
    assert 2 <= times_told(35) <= 4
    assert times_told(60) <= 3


def test_a_commit_point_lost_with_a_connection_is_told_again() -> None:
    probe = Probe()
    probe.become_primary()
    probe.ask(create(1))
    settle(probe)
    probe.after(0.3)  # the beacon with the commit point is lost
    probe.step(ins.LinkDown(B, bulk=False))
    probe.step(ins.LinkUp(B, bulk=False))
    commits = [effect.message.commits for effect in probe.effects if isinstance(effect, fx.Send)]
    assert [entry[:3] for entry in commits[0]] == [(0, 2, 1)]


@pytest.mark.parametrize("last", [True, False])
def test_a_late_snapshot_of_the_dead_is_kept_out_of_a_new_start(last: bool) -> None:
    """It may be older than what its sender acknowledged last: what was deleted would return."""
    probe = Probe()
    probe.configure(3, (B,), wanted="a", dead="b")
    start = probe.proposal("start")
    probe.hear(B, chunk(epoch=3, join=7, last=last))
    probe.configure(4, (ME,), nonce=start.nonce, wanted="a", dead="b")
    assert probe.replica.primary is not None
    assert probe.replica.committed == 0
    assert not probe.replica.table.sessions
