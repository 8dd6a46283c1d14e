"""What an operator is advised to do, and by which commands."""

import shlex

import pytest
import typer
from msgspec.structs import replace

from greenroom_cluster.cli.commands import app
from greenroom_cluster.cluster_status import ClusterStatus, NodeStatus, SuspendedStatus
from greenroom_cluster.coordinator_status import AWAY, CoordinatorStatus
from greenroom_cluster.dashboard.advice import Advice, advice
from greenroom_cluster.planning.waiting import MissingDirectories, Waiting
from tests.cluster.dashboard.looks import WHOLE, actor, shard, with_node, with_shards

WHERE = "--coordinator 127.0.0.1:7300 --cluster shop"
STATES = {
    "whole": WHOLE,
    "a node waited for": with_node("b", "down", waiting=(Waiting(("b",), 1),)),
    "a former process waited for": replace(WHOLE, waiting=(Waiting(("a", "b"), 2, running=True),)),
    "a directory waited for": replace(WHOLE, missing_directories=(MissingDirectories(("b/0",), 1),)),
    "a node down": with_node("b", "down"),
    "a node leaving": with_node("b", "leaving"),
    "suspended": with_shards(
        shard(0, backup="", state="suspended", suspended=SuspendedStatus(3, 9, "patch", 70, 1))
    ),
    "alone": with_shards(shard(0, backup="", state="alone")),
    "alone for lack of nodes": with_node("b", "down", shards=(shard(0, backup="", state="alone"),)),
    "no memory": with_shards(
        shard(0, backup="", state="alone", join_refusal="no memory", join_refused_by="b/0", join_bytes=9)
    ),
    "on one node": with_shards(shard(0, backup="a/1", state="same_node")),
    "coordinator away": replace(WHOLE, coordinator=CoordinatorStatus(AWAY, 3.0, address="127.0.0.1:7300")),
    "an actor silent": replace(WHOLE, actors=(actor("a/0"), actor("b/0", reachable=False))),
    "joining": with_shards(shard(0, backup="", state="joining", joiner="b/0", join_progress=(1, 2))),
    "taking over": with_shards(shard(0, state="unavailable")),
}


def only(found: ClusterStatus) -> Advice:
    (one,) = advice(found)
    return one


def test_where_nothing_is_wrong_nothing_is_to_be_done() -> None:
    assert only(WHOLE).level == "none"
    assert "Nothing to do" in only(WHOLE).text


@pytest.mark.parametrize("state", STATES)
def test_all_that_health_warns_of_is_said_first_word_by_word(state: str) -> None:
    found = STATES[state]
    warnings = found.warnings()
    said = advice(found)
    assert [each.text for each in said[: len(warnings)]] == warnings
    assert {each.level for each in said[: len(warnings)]} <= {"act"}


@pytest.mark.parametrize("state", [state for state, found in STATES.items() if not found.healthy])
def test_no_shard_that_is_not_whole_is_passed_over(state: str) -> None:
    assert {each.level for each in advice(STATES[state])} <= {"act", "watch"}


def test_a_lost_node_may_be_started_again_or_forgotten() -> None:
    one = only(STATES["a node down"])
    assert one.level == "act"
    assert one.commands == (f"greenroom node --name b {WHERE}", f"greenroom forget-node b {WHERE}")


def test_a_node_that_shards_wait_for_is_spoken_of_once() -> None:
    one = only(STATES["a node waited for"])
    assert one.commands == (f"greenroom forget-node b {WHERE}",)


def test_a_lack_of_memory_or_nodes_comes_with_the_command_for_another() -> None:
    new = f"greenroom node --name NAME {WHERE}"
    assert new in advice(STATES["no memory"])[0].commands
    assert new in advice(STATES["on one node"])[0].commands
    assert new in advice(STATES["alone for lack of nodes"])[-1].commands


def test_what_goes_on_by_itself_is_watched() -> None:
    for state in ("a node leaving", "an actor silent", "joining", "taking over", "alone"):
        assert only(STATES[state]).level == "watch"
        assert only(STATES[state]).commands == ()


def test_actors_of_a_node_that_is_away_are_not_named_one_by_one() -> None:
    found = with_node("b", "down", actors=(actor("a/0"), actor("b/0", reachable=False)))
    assert [each.text for each in advice(found)] == [only(STATES["a node down"]).text]


def test_a_record_is_dropped_at_a_node_that_is_up() -> None:
    command = advice(STATES["suspended"])[0].commands[0]
    assert command == "greenroom drop-record 0 --connect 127.0.0.1:7400 --cluster shop"


def test_names_are_quoted_for_the_shell() -> None:
    found = replace(STATES["a node down"], cluster="my shop; true")
    for command in only(found).commands:
        assert shlex.split(command)[-2:] == ["--cluster", "my shop; true"]


@pytest.mark.parametrize("state", STATES)
def test_every_command_is_one_that_there_is(state: str) -> None:
    """Its options too: what is copied from the page must not end in a usage error."""
    group = typer.main.get_command(app)
    for command in (each for one in advice(STATES[state]) for each in one.commands):
        program, verb, *words = shlex.split(command)
        assert program == "greenroom"
        context = group.make_context("greenroom", [verb, *words], resilient_parsing=False)
        _, found, rest = group.resolve_command(context, [verb, *words])  # type: ignore[attr-defined]
        assert found.make_context(verb, rest).params["cluster" if verb != "node" else "name"]


def test_a_cluster_that_tells_no_coordinator_is_asked_for_none() -> None:
    found = replace(
        WHOLE, nodes=(*WHOLE.nodes, NodeStatus("c", "h:1", "down", 0)), coordinator=CoordinatorStatus()
    )
    assert "greenroom forget-node c --cluster shop" in only(found).commands
