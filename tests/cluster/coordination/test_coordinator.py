"""What the coordinator answers, persists and publishes."""

import pytest

from greenroom import wire
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.coordinator import NEVER
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
    "entry", [node(""), node("a/b"), node("a", "down"), node("n" * 99), node("a", address="")]
)
def test_unfit_nodes_are_rejected(entry: m.NodeEntry) -> None:
    assert isinstance(Desk(PAIR).ask(m.RegisterNode(1, entry)), m.Rejected)


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
    assert desk.coordinator.next_deadline() == NEVER
    desk.node("a")
    assert 0 < desk.coordinator.next_deadline() <= SECOND
    desk.pass_seconds(3)
    assert desk.coordinator.next_deadline() == NEVER


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
    assert desk.forget("b") == m.Accepted(1)
    assert "b" not in desk.map.nodes
    assert desk.map.actors[B].state == "dead"
    assert isinstance(desk.forget("nobody"), m.Rejected)
    assert desk.beat("b") is None
    assert "b" not in desk.map.nodes


def test_shards_that_wait_for_a_silent_node_are_told_once_and_when_they_no_longer_do() -> None:
    desk = Desk(PAIR)
    desk.ask(m.ReportDead(1, (A,)))
    desk.pass_seconds(5, "a")
    told = [warning for warning in desk.warnings if "wait" in warning]
    assert len(told) == 1
    assert told[0].startswith("2 shards wait for node b, which may hold their sessions: start it, or")
    assert "greenroom forget-node b" in told[0]
    desk.pass_seconds(5, "a", "b")
    assert desk.warnings[-1] == "no shard waits for a node any more"
    assert len([warning for warning in desk.warnings if "wait" in warning]) == 2


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


def test_after_a_start_of_the_coordinator_the_owner_is_given_time_to_be_heard() -> None:
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


def test_a_closed_connection_needs_no_answer_even_when_everything_is_refused() -> None:
    desk = owned()
    desk.ask(wire.Subscribe(9, 9), NEW)
    assert desk.close(OLD, connection=1).responses == ()


# --- lineage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word", [wire.Subscribe(1, 2), wire.Subscribe(2, 0), m.Heartbeat("a", 1, 2), m.Heartbeat("a", 9, 0)]
)
def test_an_older_copy_refuses_everything(word: object) -> None:
    desk = Desk(PAIR)
    desk.subscribe(A)
    outcome = desk.batch(
        (A, m.Propose(7, A, (m.Proposal(0, 3, nonce(1), "remove", A, ()),))),
        (B, word),
        (B, m.ReportDead(8, (A,))),
    )
    assert [type(response.message) for response in outcome.responses] == [
        m.Rejected,
        wire.Goodbye,
        m.Rejected,
    ]
    assert all("--new-lineage" in str(response.message) for response in outcome.responses)
    assert len(outcome.warnings) == 1
    assert desk.map is PAIR
    assert isinstance(desk.subscribe(A), wire.Goodbye)
    assert desk.coordinator.want({0: ("b/0",)}).persist is None
    assert desk.coordinator.next_deadline() == NEVER


def test_whoever_knows_this_map_or_an_older_one_is_welcome() -> None:
    desk = Desk(cluster(PAIR.shards, version=8))
    assert desk.subscribe(A, version=8) == wire.MapFull(desk.map)
    assert desk.subscribe(A, lineage=0, version=500) == wire.MapFull(desk.map)
