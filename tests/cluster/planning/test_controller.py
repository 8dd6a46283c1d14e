"""When the controller plans, told as stories with a coordinator."""

from collections.abc import Iterable

from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.planning.controller import Controller, ControllerSettings
from greenroom_cluster.planning.placement import node_of
from tests.cluster.coordination.builders import SECOND, Desk, inc


class Stage:
    """A coordinator and a controller that plans for it, under one clock."""

    def __init__(self) -> None:
        self.desk = Desk(first_map("test", 16, 2))
        self.controller = Controller(ControllerSettings())
        self.alive: set[str] = set()
        self.births = 0
        self.plans = 0

    def step(self) -> None:
        plan = self.controller.step(self.desk.now_ns, self.desk.map)
        if plan:
            self.plans += 1
            self.desk.coordinator.want(plan)
            assert self.controller.step(self.desk.now_ns, self.desk.map) == {}

    def start(self, *names: str, actors: int = 1) -> None:
        for name in names:
            self.desk.node(name)
            self.alive.add(name)
            self.step()
            for index in range(actors):
                self.start_actor(f"{name}/{index}")

    def start_actor(self, slot: str) -> None:
        self.births += 1
        self.desk.actor(inc(str(self.births)), slot)
        self.step()

    def kill_actor(self, slot: str) -> None:
        for one in self.desk.map.actors.values():
            if one.slot == slot and one.state == "up":
                self.desk.ask(m.ReportDead(1, (one.incarnation,)))
        self.step()

    def wait(self, seconds: float) -> None:
        """Let time pass in steps of 50 ms, stepping the controller whenever it is due or the map changed."""
        for _ in range(round(seconds * 20)):
            self.desk.now_ns += SECOND // 20
            for name in sorted(self.alive):
                self.desk.beat(name)
            self.desk.coordinator.tick(self.desk.now_ns)
            self.step()

    def wanted(self) -> set[str]:
        return {slot for entry in self.desk.map.shards for slot in entry.wanted}

    def nodes(self) -> set[str]:
        return {node_of(slot) for slot in self.wanted()}


def running(names: Iterable[str], actors: int = 1) -> Stage:
    stage = Stage()
    stage.start(*names, actors=actors)
    stage.wait(1)
    assert stage.nodes() == set(names)
    stage.plans = 0
    return stage


def test_three_nodes_that_start_together_are_planned_together() -> None:
    stage = Stage()
    for name in "abc":
        stage.start(name)
        stage.wait(0.2)
        assert stage.plans == 0
    stage.wait(0.2)
    assert stage.nodes() == {"a", "b", "c"}
    assert stage.plans == 1


def test_a_single_node_alone_becomes_usable() -> None:
    stage = Stage()
    stage.start("a", actors=2)
    stage.wait(0.5)
    assert stage.wanted() == {"a/0", "a/1"}


def test_a_node_whose_actors_still_start_is_waited_for_but_not_for_ever() -> None:
    stage = Stage()
    stage.desk.node("b")
    stage.alive.add("b")
    stage.start("a")
    stage.wait(2)
    assert stage.plans == 0
    stage.wait(2)
    assert stage.nodes() == {"a"}
    stage.start_actor("b/0")
    stage.wait(0.5)
    assert stage.nodes() == {"a", "b"}


def test_an_actor_that_restarts_keeps_its_place() -> None:
    stage = running("abc")
    stage.kill_actor("b/0")
    stage.wait(0.5)
    stage.start_actor("b/0")
    stage.wait(10)
    assert stage.plans == 0


def test_an_actor_that_stays_away_is_replaced() -> None:
    stage = running("abc")
    stage.kill_actor("b/0")
    stage.wait(2.9)
    assert stage.plans == 0
    stage.wait(0.2)
    assert stage.nodes() == {"a", "c"}
    assert stage.plans == 1


def test_a_node_that_is_down_is_replaced_and_taken_back() -> None:
    stage = running("abc")
    stage.alive.discard("b")
    stage.wait(4.9)
    assert stage.plans == 0
    stage.wait(0.3)
    assert stage.nodes() == {"a", "c"}
    stage.alive.add("b")
    stage.wait(0.5)
    assert stage.nodes() == {"a", "b", "c"}
    assert stage.plans == 2


def test_a_leaving_node_is_avoided_at_once() -> None:
    stage = running("abc")
    stage.desk.node("b", "leaving")
    stage.step()
    assert stage.nodes() == {"a", "c"}


def test_a_leaving_node_that_is_the_only_one_stays_wanted() -> None:
    stage = running("a")
    stage.desk.node("a", "leaving")
    stage.wait(5)
    assert stage.nodes() == {"a"}


def test_a_forgotten_node_is_replaced_at_once() -> None:
    stage = running("abc")
    stage.alive.discard("b")
    stage.wait(2.5)
    assert stage.desk.forget("b") == m.Accepted(1)
    stage.step()
    assert stage.nodes() == {"a", "c"}


def test_a_whole_cluster_that_is_away_stays_as_planned() -> None:
    stage = running("ab")
    stage.alive.clear()
    stage.wait(10)
    assert stage.nodes() == {"a", "b"}


def test_a_restarted_controller_changes_nothing_and_still_replaces() -> None:
    stage = running("abc")
    stage.kill_actor("b/0")
    stage.controller = Controller(ControllerSettings())
    stage.wait(2)
    assert stage.plans == 0
    stage.wait(1.5)
    assert stage.nodes() == {"a", "c"}


def test_a_quiet_cluster_needs_no_wake_up() -> None:
    stage = running("ab")
    assert stage.controller.next_deadline() == NEVER_NS
    stage.kill_actor("a/0")
    assert stage.controller.next_deadline() == stage.desk.now_ns + 3 * SECOND
