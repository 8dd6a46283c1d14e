"""What the coordinator answers, persists and publishes."""

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import ClusterMap, NodeEntry
from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.exchange import Incoming
from tests.cluster.coordination.builders import SECOND, Desk, actor, cluster, inc, node, nonce, shard

A, B, C = inc("a"), inc("b"), inc("c")
PAIR = cluster((shard(A, (B,), epoch=3, wanted=("a/0", "b/0")),) * 2, (actor(A, "a/0"), actor(B, "b/0")))


def test_a_cluster_comes_to_life() -> None:
    """Nodes and actors register, a plan comes, the first wanted starts and adds the second."""
    desk = Desk()
    for name, incarnation in (("a", A), ("b", B)):
        assert desk.node(name) == m.Accepted(1)
        assert desk.actor(incarnation, f"{name}/0") == m.Accepted(2)
    desk.want(0, "a/0", "b/0")
    assert not desk.propose(B, m.Proposal(0, 0, nonce(1), "start", B, ()))[0].applied
    assert desk.propose(A, m.Proposal(0, 0, nonce(2), "start", A, ()))[0].applied
    assert desk.propose(A, m.Proposal(0, 1, nonce(3), "add", A, (B,)))[0].applied
    assert desk.map.shards[0] == shard(A, (B,), epoch=2, wanted=("a/0", "b/0"), made_by=nonce(3))
    assert not desk.warnings


def test_a_batch_is_decided_in_order_and_persisted_once() -> None:
    desk = Desk(PAIR)
    desk.subscribe(A)
    desk.subscribe(B)
    outcome = desk.batch(
        (A, m.Propose(1, A, (m.Proposal(0, 3, nonce(1), "remove", A, ()),))),
        (B, m.Propose(1, B, tuple(m.Proposal(s, 3, nonce(2 + s), "takeover", B, ()) for s in (0, 1)))),
        (C, wire.Subscribe(0, 0)),
    )
    first, second, third = (response.message for response in outcome.responses)
    assert [d.applied for d in first.decisions] == [True]
    assert [d.applied for d in second.decisions] == [False, True]
    assert third == wire.MapFull(desk.map)
    assert [index for index, _ in outcome.delta.shards] == [0, 1]


def test_a_malformed_proposal_spoils_only_itself() -> None:
    desk = Desk(PAIR)
    decisions = desk.propose(
        A, m.Proposal(99, 0, b"", "?", b"", ()), m.Proposal(0, 3, nonce(1), "remove", A, ())
    )
    assert [d.applied for d in decisions] == [False, True]


def test_a_refusal_is_final() -> None:
    """A late copy of a refused message must not apply once what it lacked has come to be."""
    desk = Desk(PAIR)
    add = m.Proposal(0, 3, nonce(1), "add", A, (B, C))
    assert not desk.propose(A, add)[0].applied
    desk.node("c")
    desk.actor(C, "c/0")
    assert not desk.propose(A, add)[0].applied
    assert desk.propose(A, m.Proposal(0, 3, nonce(2), "add", A, (B, C)))[0].applied


def test_nobody_proposes_for_another_or_before_subscribing() -> None:
    desk = Desk(PAIR)
    message = m.Propose(5, A, (m.Proposal(0, 3, nonce(1), "remove", A, ()),))
    assert isinstance(desk.ask(message, sender=B), m.Rejected)
    assert isinstance(desk.ask(message, sender=A), m.Rejected)
    desk.subscribe(A)
    assert isinstance(desk.ask(message, sender=A), m.Decided)


def test_a_lost_shard_that_starts_empty_is_reported() -> None:
    desk = Desk(PAIR)
    desk.actor(C, "a/0")
    desk.ask(m.ReportDead(1, (A,)))
    assert not desk.propose(C, m.Proposal(0, 3, nonce(1), "start", C, ()))[0].applied
    desk.ask(m.ReportDead(2, (B,)))
    assert desk.propose(C, m.Proposal(0, 3, nonce(2), "start", C, ()))[0].applied
    assert any("shard 0" in warning and "lost" in warning for warning in desk.warnings)


@pytest.mark.parametrize(
    ("count", "named"), [(2, "2 shards (0, 1) "), (6, "6 shards (0, 1, 2, 3 and 2 more) ")]
)
def test_lost_shards_that_start_empty_together_are_one_line(count: int, named: str) -> None:
    desk = Desk(cluster(PAIR.shards[:1] * count, PAIR.actors.values()))
    desk.actor(C, "a/0")
    desk.ask(m.ReportDead(1, (A, B)))
    starts = [m.Proposal(number, 3, nonce(number + 1), "start", C, ()) for number in reversed(range(count))]
    assert all(decision.applied for decision in desk.propose(C, *starts))
    (told,) = desk.warnings
    assert told.startswith(named)
    assert "lost" in told


def test_a_dead_backups_last_words_do_not_make_it_the_only_member() -> None:
    desk = Desk(PAIR)
    desk.ask(m.ReportDead(1, (B,)))
    assert not desk.propose(B, m.Proposal(0, 3, nonce(1), "takeover", B, ()))[0].applied


# --- incarnations ----------------------------------------------------------------------------------------


def test_a_new_incarnation_replaces_but_does_not_bury() -> None:
    desk = Desk(PAIR)
    assert desk.actor(C, "a/0") == m.Accepted(2)
    assert desk.map.actors[A].state == "replaced"
    assert desk.map.actors[C].state == "up"
    desk.ask(m.ReportDead(1, (A,)))
    assert desk.map.actors[A].state == "dead"


def test_registering_again_is_harmless_and_never_revives() -> None:
    desk = Desk(PAIR)
    before = desk.map
    assert desk.actor(A, "a/0") == m.Accepted(2)
    assert desk.map is before
    desk.actor(C, "a/0")
    assert isinstance(desk.actor(A, "a/0"), m.Rejected)
    desk.ask(m.ReportDead(1, (A,)))
    assert isinstance(desk.actor(A, "a/0"), m.Rejected)


def test_a_death_reported_before_the_birth_counts() -> None:
    desk = Desk(PAIR)
    desk.beat("a")
    assert desk.ask(m.ReportDead(1, (C,))) == m.Accepted(1)
    assert isinstance(desk.actor(C, "a/0"), m.Rejected)


def test_actors_that_are_over_go_once_no_shard_names_them() -> None:
    desk = Desk(PAIR)
    desk.ask(m.ReportDead(1, (B,)))
    assert B in desk.map.actors
    for number in (0, 1):
        desk.propose(A, m.Proposal(number, 3, nonce(number), "remove", A, ()))
    assert B not in desk.map.actors
    assert isinstance(desk.actor(B, "b/0"), m.Rejected)


@pytest.mark.parametrize(
    "entry",
    [
        actor(b"short", "a/0"),
        actor(C, "nowhere/0"),
        actor(C, "a/x"),
        actor(C, "a"),
        actor(C, "a/0", "dead"),
        m.ActorEntry(C, "a", "b/0", "x:1", "up", "h", 1, 1),
        m.ActorEntry(C, "a", "a/0", "", "up", "h", 1, 1),
    ],
)
def test_unfit_actors_are_rejected(entry: m.ActorEntry) -> None:
    desk = Desk(PAIR)
    answer = desk.ask(m.RegisterActor(1, entry))
    assert isinstance(answer, m.Rejected)
    assert answer.reason
    assert desk.map is PAIR


# --- nodes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        node(""),
        node("a/b"),
        node("a", "down"),
        node("n" * 99),
        node("a", address=""),
        node("a", zone="x y"),
        node("a", zone="z" * 64),
    ],
)
def test_unfit_nodes_are_rejected(entry: m.NodeEntry) -> None:
    assert isinstance(Desk(PAIR).ask(m.RegisterNode(1, entry)), m.Rejected)


def test_a_node_that_registers_with_another_zone_is_in_that() -> None:
    desk = Desk(PAIR)
    for zone in ("x", "y", ""):
        desk.node("a", zone=zone)
        assert desk.map.nodes["a"] == node("a", zone=zone)
    desk.node("a", zone="x")
    desk.pass_seconds(2.5, "b")
    assert desk.map.nodes["a"] == node("a", "down", zone="x")
    desk.beat("a")
    assert desk.map.nodes["a"] == node("a", zone="x")


def test_a_silent_node_is_down_until_it_is_heard_again() -> None:
    desk = Desk(PAIR)
    desk.pass_seconds(1.75)
    assert desk.map.nodes["b"].state == "up"
    desk.beat("a")
    desk.pass_seconds(0.5, "a")
    assert desk.map.nodes["a"].state == "up"
    assert desk.map.nodes["b"].state == "down"
    desk.beat("b")
    assert desk.map.nodes["b"].state == "up"


def test_a_node_that_leaves_stays_leaving_until_it_registers_again() -> None:
    desk = Desk(PAIR)
    desk.node("b", "leaving")
    desk.pass_seconds(5, "a")
    desk.beat("b")
    assert desk.map.nodes["b"].state == "leaving"
    desk.node("b")
    assert desk.map.nodes["b"].state == "up"


def test_a_pause_of_the_coordinator_is_not_silence_of_the_nodes() -> None:
    desk = Desk(PAIR)
    desk.pass_seconds(1, "a", "b")
    desk.now_ns += 60 * SECOND
    desk.coordinator.tick(desk.now_ns)
    assert desk.map.nodes["b"].state == "up"
    desk.pass_seconds(2, "a")
    assert desk.map.nodes["b"].state == "down"


def test_the_deadline_comes_only_while_a_node_may_fall_silent() -> None:
    desk = Desk()
    assert desk.coordinator.next_deadline() == NEVER_NS
    desk.node("a")
    assert 0 < desk.coordinator.next_deadline() <= SECOND
    desk.pass_seconds(3)
    assert desk.coordinator.next_deadline() == NEVER_NS


def test_a_node_is_removed_only_once_nothing_names_it() -> None:
    desk = Desk(PAIR)
    answer = desk.ask(m.RemoveNode(1, "b"))
    assert isinstance(answer, m.Rejected)
    assert "forget-node" in answer.reason
    for number in (0, 1):
        desk.propose(A, m.Proposal(number, 3, nonce(number), "remove", A, ()))
    assert desk.ask(m.RemoveNode(1, "b")) == m.Accepted(1)
    assert desk.ask(m.RemoveNode(1, "b")) == m.Accepted(1)
    assert "b" not in desk.map.nodes
    assert B not in desk.map.actors


def test_forgetting_takes_a_silent_node_and_declares_its_actors_dead() -> None:
    desk = Desk(PAIR)
    assert isinstance(desk.forget("b"), m.Rejected)
    desk.pass_seconds(3, "a")
    assert isinstance(desk.forget("b"), m.Accepted)
    assert "b" not in desk.map.nodes
    assert desk.map.actors[B].state == "dead"
    assert isinstance(desk.forget("nobody"), m.Rejected)
    assert desk.beat("b") is None
    assert "b" not in desk.map.nodes


def test_shards_that_wait_for_a_silent_node_are_reported_once() -> None:
    """It is reported too when they stop waiting."""
    desk = Desk(PAIR)
    desk.ask(m.ReportDead(1, (A,)))
    desk.pass_seconds(5, "a")
    told = [warning for warning in desk.warnings if "wait" in warning]
    assert len(told) == 1
    assert told[0].startswith("2 shards wait for node b, which may hold their sessions: start it, or")
    assert "greenroom forget-node b" in told[0]
    desk.pass_seconds(5, "a", "b")
    assert desk.warnings[-1] == "no shard waits for a node any longer"
    assert len([warning for warning in desk.warnings if "wait" in warning]) == 2


def test_a_start_says_nothing_of_nodes_that_are_on_their_way() -> None:
    desk = Desk(PAIR)
    desk.ask(m.ReportDead(1, (A,)))
    desk.pass_seconds(4.5, "a")
    assert not [warning for warning in desk.warnings if "wait" in warning]
    desk.pass_seconds(0.6, "a")
    assert [warning for warning in desk.warnings if "wait for node b" in warning]


# --- names -----------------------------------------------------------------------------------------------

OLD, NEW = b"old supervisor", b"new supervisor"
HERE, THERE = "10.0.0.1:7", "10.0.0.9:7"


def named(address: str = HERE) -> m.RegisterNode:
    return m.RegisterNode(1, node("n", address=address))


def owned() -> Desk:
    """A coordinator at which OLD has registered node n."""
    desk = Desk()
    assert desk.ask(named(), OLD, connection=1) == m.Accepted(1)
    return desk


def assert_taken(answer: object) -> None:
    assert isinstance(answer, m.Rejected)
    assert answer.code == m.NAME_TAKEN
    assert HERE in answer.reason
    assert "--name" in answer.reason


@pytest.mark.parametrize("address", [HERE, THERE])
def test_a_name_whose_owner_is_alive_is_refused(address: str) -> None:
    desk = owned()
    before = desk.map
    assert_taken(desk.ask(named(address), NEW, connection=2))
    assert_taken(desk.ask(m.RegisterActor(1, actor(A, "n/0")), NEW, connection=2))
    assert_taken(desk.ask(m.RemoveNode(1, "n"), NEW, connection=2))
    assert desk.map is before
    assert desk.ask(m.RegisterActor(1, actor(A, "n/0")), OLD, connection=1) == m.Accepted(1)
    assert desk.ask(named(THERE), OLD, connection=1) == m.Accepted(1)


def test_a_name_is_free_at_once_when_its_owners_connection_has_closed() -> None:
    desk = owned()
    desk.close(OLD, connection=1)
    assert desk.ask(named(THERE), NEW, connection=2) == m.Accepted(1)
    assert desk.map.nodes["n"].address == THERE
    assert isinstance(desk.ask(named(), OLD, connection=3), m.Rejected)


def test_the_end_of_a_former_connection_frees_no_name() -> None:
    desk = owned()
    desk.ask(m.Heartbeat("n", 1, 0), OLD, connection=2)
    desk.close(OLD, connection=1)
    assert_taken(desk.ask(named(THERE), NEW, connection=3))


def test_an_owner_that_comes_back_keeps_its_name() -> None:
    desk = owned()
    desk.close(OLD, connection=1)
    desk.ask(m.Heartbeat("n", 1, 0), OLD, connection=2)
    assert_taken(desk.ask(named(THERE), NEW, connection=3))


def test_a_name_is_free_once_its_owner_fell_silent() -> None:
    desk = owned()
    for _ in range(8):
        desk.now_ns += SECOND // 4
        # What others say of the name is no life sign of its owner.
        desk.ask(m.Heartbeat("n", 1, 0), NEW, connection=2)
    assert desk.map.nodes["n"].state == "down"
    assert desk.ask(named(THERE), NEW, connection=2) == m.Accepted(1)


def test_after_a_start_the_owner_of_a_name_has_time_to_be_heard() -> None:
    restarted = Desk(cluster(PAIR.shards, PAIR.actors.values(), (node("a", address=HERE), node("b"))))
    wait = restarted.ask(m.RegisterNode(1, node("a", address=THERE)), NEW, connection=2)
    assert isinstance(wait, m.Rejected)
    assert wait.code == "", "nobody may conclude from it that the name is taken"
    assert restarted.ask(m.Heartbeat("a", 1, 0), OLD, connection=1) is None
    taken = restarted.ask(m.RegisterNode(1, node("a", address=THERE)), NEW, connection=2)
    assert_taken(taken)
    # The same address was free to listen on again.
    assert restarted.ask(m.RegisterNode(1, node("b")), NEW, connection=2) == m.Accepted(1)


def test_after_a_start_of_the_coordinator_a_name_nobody_claims_is_free() -> None:
    restarted = Desk(cluster(PAIR.shards, PAIR.actors.values(), (node("a", address=HERE), node("b"))))
    restarted.pass_seconds(2, "b")
    assert restarted.ask(m.RegisterNode(1, node("a", address=THERE)), NEW, connection=2) == m.Accepted(1)


def test_a_closed_connection_gets_no_answer_from_one_that_refuses() -> None:
    """A coordinator that refuses everything does not answer it either."""
    desk = owned()
    desk.ask(wire.Subscribe(9, 9), NEW)
    assert isinstance(desk.node("n"), m.Rejected)
    assert desk.close(OLD, connection=1).responses == ()


# --- lineage ---------------------------------------------------------------------------------------------


LATER = (wire.Subscribe(1, 2), wire.Subscribe(2, 0), m.Heartbeat("a", 1, 2), m.Heartbeat("a", 9, 0))


def later(**changes: object) -> ClusterMap:
    """The map after one more decision."""
    shards = (shard(A, epoch=4, wanted=("a/0", "b/0")), PAIR.shards[1])
    return msgspec.structs.replace(PAIR, **{"version": 2, "shards": shards, **changes})


@pytest.mark.parametrize("word", LATER)
def test_a_claim_of_a_later_map_has_the_nodes_asked_and_stops_nothing(word: object) -> None:
    desk = Desk(PAIR)
    desk.subscribe(A)
    outcome = desk.batch((B, word), (A, m.Propose(7, A, (m.Proposal(0, 3, nonce(1), "remove", A, ()),))))
    assert outcome.ask == tuple(PAIR.nodes[name].address for name in ("a", "b"))
    [decided] = [one.message for one in outcome.responses if isinstance(one.message, m.Decided)]
    assert decided.decisions[0].applied


@pytest.mark.parametrize("role", [wire.ROLE_ADMIN, wire.ROLE_OPERATOR])
def test_who_only_looks_or_acts_as_an_operator_claims_nothing(role: str) -> None:
    desk = Desk(PAIR)
    incoming = Incoming(1, b"looks", wire.Subscribe(1 << 20, 1), role)
    outcome = desk.decide(incoming)
    assert outcome.ask == ()
    assert outcome.responses[0].message == wire.MapFull(PAIR)


def test_impossible_numbers_are_no_claim() -> None:
    desk = Desk(PAIR)
    for known in ((1 << 62, 1), (1, 1 << 63), (-1, 5), (1 << 40, -(1 << 63))):
        assert desk.decide(Incoming(1, B, wire.Subscribe(*known))).ask == ()


def test_claims_are_looked_into_once_a_second_however_many_there_are() -> None:
    desk = Desk(PAIR)
    asked = 0
    for number in range(400):
        desk.now_ns += SECOND // 100
        outcome = desk.decide(Incoming(number, number.to_bytes(16), wire.Subscribe(2, 1)))
        asked += bool(outcome.ask)
        if outcome.ask:
            desk.warnings += desk.coordinator.shown(desk.now_ns, [PAIR, PAIR]).warnings
    assert asked == 4
    [told] = [warning for warning in desk.warnings if "claim" in warning]
    assert "none of the 2 nodes" in told


def test_a_claimant_is_not_given_a_map_that_may_be_older() -> None:
    desk = Desk(PAIR)
    answer = desk.ask(wire.Subscribe(1, 2), A)
    assert isinstance(answer, wire.Goodbye)
    assert answer.code == "older-map"
    assert isinstance(desk.ask(m.Propose(1, A, ()), A), m.Rejected)
    assert desk.ask(wire.Subscribe(1, 1), A) == wire.MapFull(PAIR)


@pytest.mark.parametrize("epochs", [(4, 3), (3, 4), (99, 0)])
def test_a_later_epoch_is_a_claim_whatever_the_version(epochs: tuple[int, ...]) -> None:
    """An older copy counts its versions anew, and so may have passed those of the newest."""
    desk = Desk(msgspec.structs.replace(PAIR, version=500))
    assert desk.decide(Incoming(1, B, wire.Subscribe(1, 7, epochs))).ask
    assert not desk.decide(Incoming(2, C, wire.Subscribe(1, 7, (3, 3)))).ask


@pytest.mark.parametrize("shown", [later(), later(version=1), later(lineage=2), later(version=1 << 40)])
def test_once_a_node_has_a_later_map_everything_is_refused(shown: ClusterMap) -> None:
    desk = Desk(PAIR)
    desk.subscribe(A)
    desk.ask(wire.Subscribe(1, 2), B)
    told = desk.coordinator.shown(desk.now_ns, [PAIR, shown])
    assert len(told.warnings) == 1
    outcome = desk.batch(
        (A, m.Propose(7, A, (m.Proposal(0, 3, nonce(1), "remove", A, ()),))),
        (B, wire.Subscribe(1, 1)),
        (B, m.ReportDead(8, (A,))),
    )
    assert [type(response.message) for response in outcome.responses] == [
        m.Rejected,
        wire.Goodbye,
        m.Rejected,
    ]
    assert all("--new-lineage" in str(response.message) for response in outcome.responses)
    assert desk.map is PAIR
    assert isinstance(desk.subscribe(A), wire.Goodbye)
    assert desk.coordinator.want({0: ("b/0",)}).persist is None
    assert desk.coordinator.next_deadline() == NEVER_NS


@pytest.mark.parametrize(
    "shown",
    [
        later(cluster="another"),
        later(shards=PAIR.shards * 2),
        later(lineage=1 << 40),
        later(nodes={"a": NodeEntry("a", "\x1b", "up")}),
        later(lineage=0),
        later(shards=PAIR.shards, version=1 << 50),
    ],
)
def test_a_map_that_cannot_be_compared_or_is_impossible_proves_nothing(shown: ClusterMap) -> None:
    desk = Desk(PAIR)
    assert desk.coordinator.shown(desk.now_ns, [shown]).persist is None
    assert desk.subscribe(A) == wire.MapFull(PAIR)


def test_versions_go_on_after_those_under_which_nothing_was_decided() -> None:
    """The newest directory was put back, after an older copy had run and named other nodes down."""
    desk = Desk(PAIR)
    forked = msgspec.structs.replace(PAIR, version=40)
    assert isinstance(desk.subscribe(B, version=40), wire.Goodbye)
    outcome = desk.coordinator.shown(desk.now_ns, [PAIR, forked])
    assert desk.map == msgspec.structs.replace(PAIR, version=41)
    assert PAIR.apply(outcome.delta) == desk.map
    assert desk.subscribe(B, version=40) == wire.MapFull(desk.map)


def test_a_fresh_coordinator_waits_while_later_maps_are_claimed() -> None:
    """Its directory was emptied, and it knows no node to ask. Once the claims end, so does the waiting."""
    desk = Desk()
    for _ in range(8):
        desk.now_ns += SECOND
        assert isinstance(desk.ask(wire.Subscribe(1, 700), A), wire.Goodbye)
        assert isinstance(desk.node("a"), m.Rejected)
    assert len(desk.warnings) == 1
    assert "--new-lineage" in desk.warnings[0]
    assert desk.coordinator.next_deadline() == desk.now_ns + 10 * SECOND
    desk.now_ns += 11 * SECOND
    assert desk.node("a") == m.Accepted(1)


def test_whoever_knows_this_map_or_an_older_one_is_welcome() -> None:
    desk = Desk(cluster(PAIR.shards, version=8))
    assert desk.subscribe(A, version=8) == wire.MapFull(desk.map)
    assert desk.subscribe(A, lineage=0, version=500) == wire.MapFull(desk.map)
