"""What an operator says of a node whose directories are lost, or whose processes do not run."""

from collections.abc import Callable

import msgspec
import pytest

from greenroom import wire
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.exchange import Incoming
from tests.cluster.coordination.builders import Desk, durable, inc, node, nonce, shard
from tests.cluster.coordination.heirs import A2, B2, A, B, C, claims, desk_of, powerless


def test_a_claim_is_answered_once_an_operator_gives_up_the_rest() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2) is None
    desk.pass_seconds(5, "a", "c")
    desk.forget("b")
    assert desk.map.shards[0].members == (A2,)


def test_a_forgotten_node_gives_its_directories_up() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2) is None
    desk.pass_seconds(5, "a", "c")
    told = "shard 0 goes on from the directory of a/0, up to record 3/9"
    assert desk.forget("b") == m.Accepted(1, (told,))
    assert inc("db") not in desk.map.floors
    assert claims(desk, A2)


def test_a_lost_directory_is_given_up_while_its_node_runs_again() -> None:
    """Its machine came back with an empty disk, before anybody had said that the former one is gone."""
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    desk.durable(B2, "b/0", "empty", 1)
    assert claims(desk, A2) is None
    assert isinstance(desk.forget("b"), m.Accepted)
    assert desk.map.actors[B2].state == "up"
    assert claims(desk, A2)


def test_a_directory_is_not_given_up_while_its_node_may_be_opening_it() -> None:
    """The node runs again, and an actor registers only once it has read its directory."""
    desk = powerless()
    desk.node("b")
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2) is None
    refused = desk.forget("b")
    assert isinstance(refused, m.Rejected)
    assert "the directory of b/0: " in refused.reason
    assert "stop the node" in refused.reason
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, B2, 3, 10, number=2), "it has the longest log"


def seeker() -> Desk:
    """The host of b is back from a power cut, and until it is silent its former supervisor has the name."""
    desk = desk_of()
    desk.pass_seconds(1, "a", "b", "c")
    desk.pass_seconds(1.75, "a", "c")
    refused = desk.ask(m.RegisterNode(1, node("b")), b"again")
    assert isinstance(refused, m.Rejected)
    assert refused.code == m.NAME_TAKEN
    desk.pass_seconds(0.25, "a", "c")
    return desk


@pytest.mark.parametrize("say", [Desk.forget, Desk.declare_dead])
def test_a_node_that_asks_for_its_name_is_not_gone(say: Callable[[Desk, str], object]) -> None:
    desk = seeker()
    refused = say(desk, "b")
    assert isinstance(refused, m.Rejected)
    assert "node b is being started" in refused.reason
    assert "stop it" in refused.reason
    assert desk.map.actors[B].directory == inc("db")
    assert isinstance(desk.ask(m.RegisterNode(1, node("b")), b"again"), m.Accepted)


def test_a_node_that_asks_in_the_same_batch_is_not_gone() -> None:
    desk = desk_of()
    desk.pass_seconds(3, "a", "c")
    word = Incoming(1, b"operator", m.ForgetNode(1, "b"), wire.ROLE_OPERATOR)
    refused, accepted = desk.decide(word, Incoming(2, b"again", m.RegisterNode(1, node("b")))).responses
    assert isinstance(refused.message, m.Rejected)
    assert isinstance(accepted.message, m.Accepted)
    assert desk.map.actors[B].directory == inc("db")


def test_a_node_that_asked_and_has_ended_is_forgotten() -> None:
    desk = seeker()
    desk.close(b"again", desk.connection(b"again"))
    assert isinstance(desk.forget("b"), m.Accepted)


def test_a_node_that_asked_and_fell_silent_is_forgotten() -> None:
    """Its connection may stand for long, if its host has no power."""
    desk = seeker()
    desk.pass_seconds(2, "a", "c")
    assert isinstance(desk.forget("b"), m.Accepted)


def test_a_node_of_another_cluster_does_not_keep_one_from_being_forgotten() -> None:
    desk = Desk(msgspec.structs.replace(desk_of().map, identity=b"this cluster"))
    desk.pass_seconds(3, "a", "c")
    stranger = Incoming(7, b"again", wire.Subscribe(1, 9, (), b"another cluster"))
    desk.decide(stranger, Incoming(7, b"again", m.RegisterNode(1, node("b"))))
    assert isinstance(desk.forget("b"), m.Accepted)


def test_one_of_two_directories_is_given_up_once_both_actors_are_there() -> None:
    actors = (durable(A, "b/1", "da", 5), durable(B, "b/0", "db", 5))
    desk = desk_of(actors=actors)
    desk.ask(m.ReportDead(1, (A, B)))
    desk.durable(B2, "b/0", "empty", 1)
    refused = desk.forget("b")
    assert isinstance(refused, m.Rejected)
    assert "the directory of b/1: " in refused.reason
    assert desk.map.actors[B].directory == inc("db")
    desk.durable(A2, "b/1", "da", 6)
    assert isinstance(desk.forget("b"), m.Accepted)
    assert desk.map.actors[B].directory == b""
    assert claims(desk, A2)


def test_who_never_comes_back_is_forgotten_once_its_node_is_stopped() -> None:
    desk = powerless()
    desk.durable(A2, "a/0", "da", 6)
    assert claims(desk, A2) is None
    assert isinstance(desk.forget("b"), m.Rejected)
    desk.pass_seconds(3, "a", "c")
    assert isinstance(desk.forget("b"), m.Accepted)
    assert claims(desk, A2)


def test_when_all_directories_were_given_up_the_shard_starts_empty() -> None:
    desk = desk_of(shard(A, (B,), epoch=3, wanted=("c/0", "a/0")))
    desk.pass_seconds(5, "c")
    told = [desk.forget(name) for name in ("a", "b")]
    lost = "shard 0 starts empty: the sessions that only these members held are lost"
    assert told == [m.Accepted(1), m.Accepted(1, (lost,))], "while b may be alive, nothing is lost"
    [started] = desk.propose(C, m.Proposal(0, 3, nonce(1), "start", C, ()))
    assert started.applied


def test_a_directory_that_runs_elsewhere_is_not_given_up() -> None:
    desk = powerless()
    desk.durable(A2, "c/1", "da", 6)
    desk.pass_seconds(5, "b", "c")
    assert isinstance(desk.forget("a"), m.Accepted)
    assert claims(desk, A2) is None
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, B2, 3, 8, number=2) is None
    assert claims(desk, A2)


def test_who_is_declared_dead_leaves_the_directories() -> None:
    desk = desk_of()
    desk.durable(A2, "a/0", "da", 6)
    desk.pass_seconds(5, "a", "c")
    assert claims(desk, A2) is False
    answer = desk.declare_dead("b")
    assert answer == m.Accepted(1, ("shard 0 waits for the directory of b/0",))
    assert desk.map.actors[B].state == "dead"
    assert "b" in desk.map.nodes
    assert "node b was declared dead by an operator, with 1 actors" in desk.warnings
    assert isinstance(desk.durable(B, "b/0", "db", 7), m.Rejected), "that is final"
    assert claims(desk, A2, number=2) is None
    desk.pass_seconds(5, "a", "c")
    held = "shard 0 waits for the directory of b/0; the best that is there is that of a/0, up to record 3/9"
    assert desk.declare_dead("b") == m.Accepted(1, (held,))
    desk.durable(B2, "b/0", "db", 6)
    assert claims(desk, B2, number=3) is None
    assert claims(desk, A2, number=2)


def test_only_a_silent_node_is_declared_dead() -> None:
    desk = desk_of()
    desk.pass_seconds(1, "a", "b", "c")
    for name in ("b", "nobody"):
        assert isinstance(desk.declare_dead(name), m.Rejected)
    assert desk.map.actors[B].state == "up"
    desk.pass_seconds(5, "a", "c")
    assert isinstance(desk.ask(m.DeclareDead(1, "b"), b"somebody"), m.Rejected), (
        "an operator's word is needed"
    )
    assert desk.map.actors[B].state == "up"


@pytest.mark.parametrize(("count", "last"), [(20, 19), (64, None)])
def test_what_becomes_of_many_shards_is_told_in_few_lines(count: int, last: int | None) -> None:
    shards = tuple(shard(A if number % 2 else C, epoch=3) for number in range(count))
    desk = desk_of(*shards)
    desk.pass_seconds(5, "b")
    desk.declare_dead("a")
    desk.forget("c")
    told = desk.forget("a").told
    assert len(told) == (10 if last else 21)
    assert told[0].startswith("shard 1 starts empty")
    if last is None:
        assert told[-1] == "and so on: of 32 shards, 32 start empty"
