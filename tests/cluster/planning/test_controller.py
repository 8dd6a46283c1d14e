"""When the controller plans, told as stories with a coordinator."""

from collections.abc import Iterable

from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.planning.controller import Controller, ControllerSettings
from greenroom_cluster.planning.placement import node_of
from tests.cluster.coordination.builders import SECOND, Desk, inc, nonce


class Stage:
    """A coordinator and a controller that plans for it, under one clock."""

    def __init__(self, *, durable: bool = False) -> None:
        self.desk = Desk(first_map("test", 16, 2))
        self.durable = durable
        self.controller = Controller(ControllerSettings(), self.desk.coordinator.connected)
        self.alive: set[str] = set()
        self.births = 0
        self.plans = 0

    def step(self) -> None:
        plan = self.controller.step(self.desk.now_ns, self.desk.map)
        if plan:
            self.plans += 1
            self.desk.coordinator.want(plan)
            assert self.controller.step(self.desk.now_ns, self.desk.map) == {}

    def start(self, *names: str, actors: int = 1, zone: str = "") -> None:
        for name in names:
            self.desk.node(name, zone=zone)
            self.alive.add(name)
            self.step()
            for index in range(actors):
                self.start_actor(f"{name}/{index}")

    def start_actor(self, slot: str) -> None:
        self.births += 1
        if self.durable:
            self.desk.durable(inc(str(self.births)), slot, f"of {slot}", 1)
        else:
            self.desk.actor(inc(str(self.births)), slot)
        self.desk.subscribe(inc(str(self.births)))
        self.step()

    def kill_actor(self, slot: str) -> None:
        for one in self.desk.map.actors.values():
            if one.slot == slot and one.state == "up":
                self.desk.ask(m.ReportDead(1, (one.incarnation,)))
        self.step()

    def propose(self, kind: str, shard: int, slot: str, *backups: str) -> bool | None:
        """Have a slot's actor propose; return whether that was applied, None while it waits."""
        up = {one.slot: key for key, one in self.desk.map.actors.items() if one.state == "up"}
        others = tuple(up[each] for each in backups)
        self.births += 1
        epoch = self.desk.map.shards[shard].epoch
        proposal = m.Proposal(shard, epoch, nonce(self.births), kind, up[slot], others, (epoch, 1))
        decisions = self.desk.propose(up[slot], proposal)
        self.step()
        return decisions[0].applied if decisions else None

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


def running(names: Iterable[str], actors: int = 1, *, durable: bool = False) -> Stage:
    stage = Stage(durable=durable)
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


def apart(stage: Stage, zones: dict[str, str]) -> bool:
    """Whether each shard is wanted in two of these zones."""
    entries = stage.desk.map.shards
    return all(len({zones[node_of(slot)] for slot in entry.wanted}) == 2 for entry in entries)


ZONES = {"a": "x", "b": "x", "c": "y"}


def zoned() -> Stage:
    stage = Stage()
    for name, zone in ZONES.items():
        stage.start(name, zone=zone)
    stage.wait(1)
    assert apart(stage, ZONES)
    stage.plans = 0
    return stage


def test_zones_that_are_told_together_are_planned_together() -> None:
    stage = running("abc")
    assert not apart(stage, ZONES)
    for name, zone in ZONES.items():
        stage.desk.node(name, zone=zone)
        stage.wait(0.2)
        assert stage.plans == 0
    stage.wait(0.2)
    assert apart(stage, ZONES)
    assert stage.plans == 1
    stage.wait(5)
    assert stage.plans == 1


def test_a_zone_of_one_node_alone_is_not_kept_from_the_others() -> None:
    stage = running("abc")
    stage.desk.node("a", zone="x")
    stage.wait(5)
    assert stage.plans == 0


def test_a_node_that_changes_its_zone_is_planned_anew() -> None:
    stage = zoned()
    stage.desk.node("b", zone="y")
    stage.wait(1)
    assert apart(stage, {**ZONES, "b": "y"})
    assert stage.plans == 1


def test_a_lost_zone_is_done_without_and_taken_back() -> None:
    stage = zoned()
    stage.alive.discard("c")
    stage.wait(4.9)
    assert stage.plans == 0
    stage.wait(0.3)
    assert stage.nodes() == {"a", "b"}
    stage.alive.add("c")
    stage.wait(0.5)
    assert apart(stage, ZONES)
    assert stage.plans == 2


def test_a_zone_whose_actor_restarts_keeps_its_place() -> None:
    stage = zoned()
    stage.kill_actor("c/0")
    stage.wait(0.5)
    stage.start_actor("c/0")
    stage.wait(10)
    assert stage.plans == 0


def test_a_zone_that_was_forgotten_leaves_two_nodes_of_the_other() -> None:
    stage = zoned()
    stage.alive.discard("c")
    stage.wait(2.5)
    assert stage.desk.forget("c") == m.Accepted(1)
    stage.wait(0.1)
    assert stage.nodes() == {"a", "b"}


def test_a_restarted_controller_knows_zones_from_the_map() -> None:
    stage = zoned()
    stage.controller = Controller(ControllerSettings())
    stage.wait(5)
    assert stage.plans == 0


def powerless() -> Stage:
    """Shards on three nodes that keep them on disk, and that have lost power all at once."""
    stage = running("abc", durable=True)
    for shard, entry in enumerate(stage.desk.map.shards):
        assert stage.propose("start", shard, entry.wanted[0])
        assert stage.propose("add", shard, *entry.wanted)
    stage.alive.clear()
    for actor in stage.desk.map.actors:
        stage.desk.close(actor, stage.desk.connection(actor))
    stage.wait(6)
    assert stage.plans == 0
    return stage


def test_shards_that_are_only_on_disk_stay_planned_where_they_are() -> None:
    """Else the first host that boots would be to have all of them, and they would be copied to and fro."""
    stage = powerless()
    before = [entry.wanted for entry in stage.desk.map.shards]
    for name in "abc":
        stage.start(name)
        stage.wait(10)
    for shard, wanted in enumerate(before):
        assert stage.propose("recover", shard, wanted[1]) is None
        assert stage.propose("recover", shard, wanted[0])
    stage.wait(10)
    assert [entry.wanted for entry in stage.desk.map.shards] == before
    assert stage.plans == 0


def test_once_they_serve_again_they_are_planned_with_what_is_there() -> None:
    stage = powerless()
    before = [entry.wanted for entry in stage.desk.map.shards]
    for name in "ab":
        stage.start(name)
    stage.wait(10)
    assert stage.plans == 0
    stage.desk.forget("c")
    stage.wait(1)
    assert [entry.wanted for entry in stage.desk.map.shards] == before, "they still are on disk only"
    for shard, wanted in enumerate(before):
        heirs = [slot for slot in wanted if slot != "c/0"]
        assert [stage.propose("recover", shard, slot) for slot in reversed(heirs)][-1]
    stage.wait(1)
    assert stage.nodes() == {"a", "b"}


def test_shards_whose_directories_were_all_given_up_are_planned_at_once() -> None:
    stage = powerless()
    stage.start("a")
    stage.wait(10)
    for name in "bc":
        stage.desk.forget(name)
    stage.wait(1)
    given_up = {
        shard
        for shard, entry in enumerate(stage.desk.map.shards)
        if all(stage.desk.map.actors[one].slot != "a/0" for one in entry.members)
    }
    assert given_up
    for shard in given_up:
        assert stage.desk.map.shards[shard].wanted == ("a/0",)
