"""The table of proposals, in full product of kind and situation."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom.cluster_map import SuspectRecord
from greenroom.errors import UsageError
from greenroom_cluster.coordination import rules
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.coordination.rules import RULES, Situation, begin_lineage, decide, malformed
from greenroom_cluster.shard.state.records import Record
from greenroom_cluster.shard.state.table import SEQUENCE_BITS, SessionTable
from tests.cluster.coordination.builders import actor, cluster, durable, inc, nonce, shard

P, B, C, D, S = (inc(name) for name in ("primary", "backup", "second", "new", "stranger"))
KEPT, KEPT2, KEPT3, LOST = (inc(name) for name in ("kept", "kept2", "kept3", "lost"))
HEIR, HEIR2, HEIR3 = (inc(name) for name in ("heir", "heir2", "heir3"))
ACTORS = {
    one.incarnation: one
    for one in (
        actor(P, "a/0"),
        actor(B, "b/0"),
        actor(C, "c/0"),
        actor(D, "d/0"),
        actor(S, "s/0"),
        actor(inc("dead"), "x/0", "dead"),
        actor(inc("dead2"), "y/0", "dead"),
        actor(inc("replaced"), "z/0", "replaced"),
        durable(KEPT, "k/0", "k", state="dead"),
        durable(KEPT2, "k/1", "k1", state="dead"),
        durable(KEPT3, "k/2", "k2", state="replaced"),
        durable(LOST, "l/0", "l", state="dead"),
        durable(HEIR, "k/0", "k"),
        durable(HEIR2, "k/1", "k1", mode="interval"),
        durable(HEIR3, "k/2", "k2"),
    )
}
CLAIMS = {HEIR: (6, 3), HEIR2: (5, 9)}
DEAD, DEAD2, REPLACED, UNKNOWN = inc("dead"), inc("dead2"), inc("replaced"), inc("unknown")
WANTED = ("d/0", "a/0")

SITUATIONS = {
    "blank": shard(epoch=7, wanted=WANTED),
    "solo": shard(P, epoch=7, wanted=WANTED),
    "pair": shard(P, (B,), epoch=7, wanted=WANTED),
    "triple": shard(P, (B, C), epoch=7, wanted=WANTED),
    "all dead": shard(DEAD, (DEAD2,), epoch=7, wanted=WANTED),
    "dead or unknown": shard(DEAD, (UNKNOWN,), epoch=7, wanted=WANTED),
    "primary dead": shard(DEAD, (B,), epoch=7, wanted=WANTED),
    "backup dead": shard(P, (DEAD,), epoch=7, wanted=WANTED),
    "replaced left": shard(REPLACED, (DEAD,), epoch=7, wanted=WANTED),
    "kept by one": shard(DEAD, (KEPT,), epoch=7, wanted=WANTED),
    "kept by both": shard(KEPT2, (KEPT,), epoch=7, wanted=WANTED),
    "kept by one forgotten": shard(UNKNOWN, (KEPT2,), epoch=7, wanted=WANTED),
    "kept, another alive": shard(KEPT, (B,), epoch=7, wanted=WANTED),
    "kept, another replaced": shard(KEPT, (REPLACED,), epoch=7, wanted=WANTED),
    "kept, the other's directory away": shard(KEPT, (LOST,), epoch=7, wanted=WANTED),
    "kept by one that may be alive": shard(KEPT3, (), epoch=7, wanted=WANTED),
}
CHANGES = {
    "P alone": (P, ()),
    "B alone": (B, ()),
    "D alone": (D, ()),
    "P+B": (P, (B,)),
    "P+C": (P, (C,)),
    "P+B+C": (P, (B, C)),
    "P+C+B": (P, (C, B)),
    "P+B+D": (P, (B, D)),
    "P+D": (P, (D,)),
    "P+replaced": (P, (REPLACED,)),
    "P+dead": (P, (DEAD,)),
    "dead+P": (DEAD, (P,)),
    "B+P": (B, (P,)),
    "B+P+C": (B, (P, C)),
    "B+C": (B, (C,)),
    "replaced alone": (REPLACED, ()),
    "heir alone": (HEIR, ()),
    "heir2 alone": (HEIR2, ()),
    "heir3 alone": (HEIR3, ()),
    "heir+heir2": (HEIR, (HEIR2,)),
}
PROPOSERS = {"P": P, "B": B, "D": D, "S": S, "dead": DEAD, "dead2": DEAD2, "replaced": REPLACED, "?": UNKNOWN}
PROPOSERS |= {"heir": HEIR, "heir2": HEIR2, "heir3": HEIR3}

ALLOWED = {
    # kind, situation, proposer, change
    ("start", "blank", "D", "D alone"),
    ("start", "all dead", "D", "D alone"),
    ("start", "dead or unknown", "D", "D alone"),
    ("recover", "kept by one", "heir", "heir alone"),
    ("recover", "kept by both", "heir", "heir alone"),
    ("recover", "kept by one forgotten", "heir2", "heir2 alone"),
    ("takeover", "kept, another alive", "B", "B alone"),
    ("takeover", "kept, another replaced", "replaced", "replaced alone"),  # likewise
    ("takeover", "pair", "B", "B alone"),
    ("takeover", "triple", "B", "B alone"),
    ("takeover", "primary dead", "B", "B alone"),
    ("remove", "pair", "P", "P alone"),
    ("remove", "triple", "P", "P alone"),
    ("remove", "triple", "P", "P+B"),
    ("remove", "triple", "P", "P+C"),
    ("remove", "backup dead", "P", "P alone"),
    ("remove", "replaced left", "replaced", "replaced alone"),  # it may well be alive, and is the primary
    ("add", "solo", "P", "P+B"),
    ("add", "solo", "P", "P+C"),
    ("add", "solo", "P", "P+D"),
    ("add", "solo", "P", "P+B+C"),
    ("add", "solo", "P", "P+C+B"),
    ("add", "solo", "P", "P+B+D"),
    ("add", "pair", "P", "P+B+C"),
    ("add", "pair", "P", "P+C+B"),
    ("add", "pair", "P", "P+B+D"),
    ("handover", "pair", "P", "B+P"),
    ("handover", "triple", "P", "B+P+C"),
    ("reaffirm", "solo", "P", "P alone"),
    ("reaffirm", "pair", "P", "P+B"),
    ("reaffirm", "triple", "P", "P+B+C"),
    ("reaffirm", "triple", "P", "P+C+B"),
    ("reaffirm", "backup dead", "P", "P+dead"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("kind", RULES)
def test_exactly_the_listed_changes_are_allowed(kind: str, situation: str) -> None:
    entry = SITUATIONS[situation]
    allowed = set()
    for who, proposer in PROPOSERS.items():
        for change, (primary, backups) in CHANGES.items():
            last = CLAIMS.get(proposer, (0, 0))
            proposal = Proposal(0, 7, nonce(1), kind, primary, backups, last)
            assert malformed(proposal, 1) == ""
            verdict = decide(Situation(entry, proposer, proposal, ACTORS, CLAIMS | {proposer: last}))
            assert verdict.applied == (verdict.entry is not None)
            assert verdict.reason
            if verdict.entry is not None:
                allowed.add((kind, situation, who, change))
                assert verdict.entry == shard(primary, backups, epoch=8, wanted=WANTED, made_by=nonce(1))
                assert verdict.lost == (entry.members if kind == "start" else ())
    assert allowed == {one for one in ALLOWED if one[:2] == (kind, situation)}


@pytest.mark.parametrize("kind", RULES)
def test_another_epoch_is_stale_whatever_the_kind(kind: str) -> None:
    for epoch in (0, 6, 8, 1 << 40, -1):
        proposal = Proposal(0, epoch, nonce(1), kind, P, (B,))
        verdict = decide(Situation(SITUATIONS["pair"], P, proposal, ACTORS))
        assert not verdict.applied
        assert "stale" in verdict.reason


def test_what_applied_already_is_said_to_have_applied_even_of_the_dead() -> None:
    entry = shard(P, epoch=8, made_by=nonce(1))
    again = Proposal(0, 7, nonce(1), "remove", P, ())
    verdict = decide(Situation(entry, P, again, {}))
    assert verdict.applied
    assert verdict.entry is None


def test_a_nonce_is_not_used_for_two_changes() -> None:
    entry = shard(P, (B,), epoch=7, made_by=nonce(1))
    verdict = decide(Situation(entry, P, Proposal(0, 7, nonce(1), "remove", P, ()), ACTORS))
    assert not verdict.applied


def test_the_first_wanted_slot_is_meant_by_its_current_incarnation() -> None:
    entry = shard(wanted=("z/0",))
    proposal = Proposal(0, 0, nonce(1), "start", REPLACED, ())
    assert not decide(Situation(entry, REPLACED, proposal, ACTORS)).applied


def test_without_a_plan_nobody_starts() -> None:
    proposal = Proposal(0, 0, nonce(1), "start", D, ())
    assert not decide(Situation(shard(), D, proposal, ACTORS)).applied


def test_a_claim_to_records_of_a_later_epoch_shows_an_older_map() -> None:
    """It was decided, so the coordinator's map is a copy from before."""
    entry = SITUATIONS["kept by one"]
    claim = Proposal(0, 7, nonce(1), "recover", HEIR, (), (8, 1))
    verdict = decide(Situation(entry, HEIR, claim, ACTORS, {HEIR: (8, 1)}))
    assert not verdict.applied
    assert "older copy" in verdict.reason
    assert not verdict.waits


def test_a_recovery_keeps_the_record_that_ended_the_primary() -> None:
    suspect = SuspectRecord(KEPT, 7, 3)
    entry = msgspec.structs.replace(SITUATIONS["kept by one"], suspect=suspect)
    claim = Proposal(0, 7, nonce(1), "recover", HEIR, (), (7, 3))
    verdict = decide(Situation(entry, HEIR, claim, ACTORS, {HEIR: (7, 3)}))
    assert verdict.entry.suspect == suspect
    assert verdict.lost == ()


def test_versions_never_repeat_below_the_limit_of_epochs() -> None:
    create = wire.Create(1, 1, 0, 0, bytes(32), None, 1, 9, None, "", b"\x80")
    first, last = (
        SessionTable().apply(Record(epoch, 9, 1, b"c" * 16, create)) for epoch in (0, rules.EPOCH_LIMIT - 1)
    )
    assert isinstance(first, wire.Written)
    assert isinstance(last, wire.Written)
    assert last.version - first.version == (rules.EPOCH_LIMIT - 1) << SEQUENCE_BITS


def test_epochs_end_below_their_limit() -> None:
    entry = shard(P, (B,), epoch=rules.EPOCH_LIMIT - 2)
    last = decide(Situation(entry, P, Proposal(0, entry.epoch, nonce(1), "remove", P, ()), ACTORS))
    assert not last.applied or last.entry.epoch < rules.EPOCH_LIMIT
    full = shard(P, (B,), epoch=rules.EPOCH_LIMIT - 1)
    over = decide(Situation(full, P, Proposal(0, full.epoch, nonce(1), "remove", P, ()), ACTORS))
    assert not over.applied
    assert "epochs" in over.reason


@pytest.mark.parametrize(
    "proposal",
    [
        Proposal(4, 0, nonce(1), "add", P, (B,)),
        Proposal(-1, 0, nonce(1), "add", P, (B,)),
        Proposal(1 << 60, 0, nonce(1), "add", P, (B,)),
        Proposal(0, 0, b"", "add", P, (B,)),
        Proposal(0, 0, b"x" * 4096, "add", P, (B,)),
        Proposal(0, 0, nonce(1), "seize", P, (B,)),
        Proposal(0, 0, nonce(1), "add", b"", (B,)),
        Proposal(0, 0, nonce(1), "add", P, (b"short",)),
        Proposal(0, 0, nonce(1), "add", P, (B, B)),
        Proposal(0, 0, nonce(1), "add", P, (P,)),
        Proposal(0, 0, nonce(1), "add", P, tuple(inc(str(n)) for n in range(100))),
        Proposal(0, 0, nonce(1), "recover", P, (), (-1, 0)),
        Proposal(0, 0, nonce(1), "recover", P, (), (rules.EPOCH_LIMIT, 0)),
        Proposal(0, 0, nonce(1), "recover", P, (), (0, 1 << SEQUENCE_BITS)),
        Proposal(0, 0, nonce(1), "add", P, (B,), marks=((B, -1),)),
        Proposal(0, 0, nonce(1), "add", P, (B,), marks=((B, rules.MARK_MAX + 1),)),
    ],
)
def test_malformed_proposals_are_named_as_such(proposal: Proposal) -> None:
    assert malformed(proposal, 4).startswith("malformed")


@given(
    st.builds(
        Proposal,
        shard=st.integers(),
        epoch=st.integers(),
        nonce=st.binary(max_size=40),
        kind=st.sampled_from([*RULES, "", "x"]),
        primary=st.sampled_from([P, B, D, b""]) | st.binary(max_size=20),
        backups=st.lists(st.sampled_from([P, B, C, D, DEAD, b""]), max_size=10).map(tuple),
        last=st.tuples(st.integers(), st.integers()),
        marks=st.lists(st.tuples(st.sampled_from([P, B, b""]), st.integers()), max_size=9).map(tuple),
    ),
    st.sampled_from(sorted(SITUATIONS)),
    st.sampled_from(sorted(PROPOSERS)),
)
def test_nothing_a_peer_sends_raises(proposal: Proposal, situation: str, who: str) -> None:
    if not malformed(proposal, 4):
        claims = CLAIMS | {PROPOSERS[who]: proposal.last}
        decide(Situation(SITUATIONS[situation], PROPOSERS[who], proposal, ACTORS, claims))


def test_a_new_lineage_raises_every_epoch() -> None:
    old = cluster((shard(epoch=0), shard(P, (B,), epoch=9)), version=5)
    new = begin_lineage(old)
    assert (new.lineage, new.version) == (2, 6)
    assert [entry.epoch for entry in new.shards] == [65536, 65545]
    assert new.newer_than(old)
    later = begin_lineage(old, above=6)
    assert later.lineage == 7
    assert later.shards[0].epoch == 6 * 65536


def test_lineages_end_before_epochs_do() -> None:
    with pytest.raises(UsageError, match="new cluster"):
        begin_lineage(cluster((shard(epoch=rules.EPOCH_LIMIT - 65536),)))
