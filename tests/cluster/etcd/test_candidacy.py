"""The terms of one coordinator: with what they begin, and what is kept in which order."""

import msgspec
import pytest

from greenroom.cluster_map import ClusterMap, NodeEntry
from greenroom.errors import UsageError
from greenroom_cluster.coordination.etcd import candidacy as ca
from greenroom_cluster.coordination.etcd import leadership as ls
from greenroom_cluster.coordination.etcd.candidacy import Candidacy, CandidacyEffect
from greenroom_cluster.coordination.etcd.gateway import Put
from greenroom_cluster.coordination.etcd.layout import map_of
from greenroom_cluster.coordination.etcd.leadership import Leadership, LeadershipEffect
from greenroom_cluster.coordination.genesis import ClusterOptions
from tests.cluster.etcd.fake import Store, carried_out

SECOND = 1_000_000_000


class Coordinator:
    """A candidacy whose requests are answered at once; unless `answering`, those that write maps wait."""

    def __init__(self, store: Store, shards: int = 4, name: str = "c1") -> None:
        self.store = store
        self.now_ns = 0
        self.answering = True
        self.held: list[ls.Transact] = []
        self.told: list[CandidacyEffect] = []
        leadership = Leadership("/greenroom/test", name, 0)
        self.candidacy = Candidacy(leadership, ClusterOptions("test", shards, 2), bytes(16))

    def step(self, happened: ls.LeadershipInput | None = None) -> None:
        self.perform(self.candidacy.step(self.now_ns, happened))

    def keep(self, term: int, number: int, what: ClusterMap | dict[bytes, int]) -> None:
        self.perform(self.candidacy.keep(self.now_ns, term, number, what))

    def perform(self, effects: list[CandidacyEffect]) -> None:
        for effect in effects:
            match effect:
                case ls.Transact() if not self.answering and _writes_map(effect):
                    self.held.append(effect)
                case ls.Grant() | ls.Renew() | ls.Revoke() | ls.Transact():
                    self.answer(effect)
                case _:
                    self.told.append(effect)

    def answer(self, asked: LeadershipEffect) -> None:
        happened = carried_out(self.store, asked)
        if happened is not None:
            self.step(happened)

    def lose_lease(self) -> None:
        """Have the lease end, and be told of it with the next renewal."""
        for lease in list(self.store.leases):
            self.store.revoke({"ID": lease})
        self.now_ns += SECOND
        self.step()

    def begun(self) -> list[ca.Begin]:
        return [each for each in self.told if isinstance(each, ca.Begin)]

    def kept(self) -> list[int]:
        return [each.number for each in self.told if isinstance(each, ca.Kept)]


def _writes_map(asked: ls.Transact) -> bool:
    return any(b"/map/" in each.key for each in asked.compares)


def test_a_term_begins_once_the_map_of_a_new_cluster_is_kept() -> None:
    coordinator = Coordinator(Store())
    coordinator.answering = False
    coordinator.step()
    assert coordinator.told == []
    coordinator.answer(coordinator.held.pop())
    (begin,) = coordinator.begun()
    assert (begin.term, begin.map.version, begin.marks) == (1, 1, {})
    assert coordinator.candidacy.serves(1)


def test_who_resigns_before_its_first_map_is_kept_has_not_begun() -> None:
    coordinator = Coordinator(Store())
    coordinator.answering = False
    coordinator.step()
    coordinator.lose_lease()
    assert [type(each) for each in coordinator.told] == [ca.Cease]
    coordinator.answering = True
    coordinator.now_ns += SECOND
    coordinator.step()
    assert [begin.term for begin in coordinator.begun()] == [1]


def test_what_is_to_be_kept_waits_for_what_is_being_kept() -> None:
    coordinator = Coordinator(Store())
    coordinator.step()
    (begin,) = coordinator.begun()
    coordinator.answering = False
    coordinator.keep(1, 1, msgspec.structs.replace(begin.map, version=2))
    coordinator.keep(1, 2, {b"d": 7})
    coordinator.keep(1, 3, msgspec.structs.replace(begin.map, version=3))
    assert coordinator.kept() == []
    coordinator.answer(coordinator.held.pop())
    assert coordinator.kept() == [1, 2]
    coordinator.answer(coordinator.held.pop())
    assert coordinator.kept() == [1, 2, 3]


def test_what_a_former_term_wants_is_not_kept() -> None:
    coordinator = Coordinator(Store())
    coordinator.step()
    (begin,) = coordinator.begun()
    coordinator.lose_lease()
    coordinator.now_ns += SECOND
    coordinator.step()
    assert [begin.term for begin in coordinator.begun()] == [1, 2]
    before = dict(coordinator.store.keys)
    coordinator.keep(1, 1, msgspec.structs.replace(begin.map, version=9))
    assert coordinator.store.keys == before
    assert coordinator.kept() == []


def test_options_that_differ_from_the_cluster_in_etcd_are_refused() -> None:
    store = Store()
    Coordinator(store).step()
    for lease in list(store.leases):
        store.revoke({"ID": lease})
    with pytest.raises(UsageError, match="--shards"):
        Coordinator(store, shards=8).step()


@pytest.mark.parametrize("key", ["map/meta", "marks"])
def test_what_is_no_map_is_told_and_led_from_once_it_is_one_again(key: str) -> None:
    store = Store()
    first = Coordinator(store)
    first.step()
    first.keep(1, 1, {bytes(16): 7})
    first.perform(list(first.candidacy.end(first.now_ns)))
    held = store.keys[f"/greenroom/test/{key}".encode()]
    good, held["value"] = held["value"], b"somebody else's"
    second = Coordinator(store, name="c2")
    second.step()
    (ceased,) = second.told
    assert isinstance(ceased, ca.Cease)
    assert "anything else has written there" in ceased.reason
    assert store.leases == {}, "another release may lead meanwhile"
    held["value"] = good
    second.now_ns += 10 * SECOND
    second.step()
    assert [each.marks for each in second.begun()] == [{bytes(16): 7}]


def test_a_leaders_key_that_no_coordinator_made_is_told() -> None:
    """It goes with no lease, so it would never go, and nobody lead, without a word."""
    store = Store()
    carried_out(store, ls.Transact(1, (), (Put(b"/greenroom/test/leader", b"somebody"),), ()))
    waiting = Coordinator(store)
    waiting.step()
    (ceased,) = waiting.told
    assert isinstance(ceased, ca.Cease)
    assert "/greenroom/test/leader" in ceased.reason
    assert waiting.candidacy.next_deadline() == 10 * SECOND
    del store.keys[b"/greenroom/test/leader"]
    waiting.now_ns += 10 * SECOND
    waiting.step()
    assert len(waiting.begun()) == 1


# --- who hears no nodes -----------------------------------------------------------------------------------


class Several:
    """Coordinators on one etcd and one clock."""

    def __init__(self, count: int) -> None:
        self.now_ns = 0
        store = Store(lambda: self.now_ns / SECOND)
        self.members = [Coordinator(store, name=f"c{number}") for number in range(count)]
        self.hears: dict[str, set[str]] = {}
        """The nodes that reach each coordinator, by its name."""
        self.leaving: set[str] = set()
        self.terms: list[str] = []

    def run(self, seconds: float) -> None:
        """Let time pass; whoever serves notices who is silent and who is back every half second."""
        end_ns = self.now_ns + round(seconds * SECOND)
        looks_ns = self.now_ns
        while True:
            due_ns = min(looks_ns, *(each.candidacy.next_deadline() for each in self.members))
            if due_ns > end_ns:
                break
            self.now_ns = max(due_ns, self.now_ns)
            for number, member in enumerate(self.members):
                member.now_ns = self.now_ns
                before = len(member.begun())
                member.step()
                self.terms += [f"c{number}"] * (len(member.begun()) - before)
            if self.now_ns >= looks_ns:
                looks_ns += SECOND // 2
                self._look()
        self.now_ns = end_ns

    def _look(self) -> None:
        member = self.serving()
        if member is None:
            return
        kept = self._kept()
        heard = self.hears.get(self.leader(), set())
        states = {name: "up" if name in heard else "down" for name in {*kept.nodes, *heard}}
        states |= dict.fromkeys(self.leaving, "leaving")
        if states != {name: node.state for name, node in kept.nodes.items()}:
            nodes = {name: NodeEntry(name, f"{name}:1", state) for name, state in states.items()}
            later = msgspec.structs.replace(kept, version=kept.version + 1, nodes=nodes)
            member.keep(member.begun()[-1].term, later.version, later)

    def _kept(self) -> ClusterMap:
        root = b"/greenroom/test/map/"
        keys = self.members[0].store.keys
        values = {key.removeprefix(root).decode(): held["value"] for key, held in keys.items() if root in key}
        found = map_of(values)
        assert found is not None
        return found

    def serving(self) -> Coordinator | None:
        for member in self.members:
            if (begun := member.begun()) and member.candidacy.serves(begun[-1].term):
                return member
        return None

    def leader(self) -> str:
        member = self.serving()
        return "" if member is None else f"c{self.members.index(member)}"


NODES = {"n1", "n2", "n3", "n4"}


def test_who_no_longer_hears_the_nodes_lets_another_one_lead() -> None:
    several = Several(2)
    several.hears = {"c0": NODES, "c1": NODES}
    several.run(60)
    assert several.leader() == "c0"
    several.hears["c0"] = set()
    several.run(4)
    assert several.leader() == "c1"
    several.run(120)
    assert several.terms == ["c0", "c1"], "it hears them, and leads on"


def test_a_node_on_its_own_host_is_not_enough() -> None:
    several = Several(2)
    several.hears = {"c0": NODES, "c1": NODES}
    several.run(60)
    several.hears["c0"] = {"n1"}
    several.run(4)
    assert several.leader() == "c1"


def test_half_of_the_nodes_are_enough() -> None:
    several = Several(2)
    several.hears = {"c0": NODES}
    several.run(60)
    several.hears["c0"] = {"n1", "n2"}
    several.run(120)
    assert several.terms == ["c0"]


def test_who_was_the_only_one_leads_again_with_the_nodes_that_are_left() -> None:
    several = Several(1)
    several.hears = {"c0": NODES}
    several.run(60)
    several.hears["c0"] = {"n1"}
    several.run(6)
    assert several.leader() == "c0"
    several.run(120)
    assert several.terms == ["c0", "c0"]


def test_nodes_that_are_gone_for_all_change_the_leader_ever_more_rarely() -> None:
    several = Several(2)
    several.hears = {"c0": NODES}
    several.run(60)
    several.hears = {}
    several.run(900)
    assert 4 < len(several.terms) < 18
    several.hears = {"c0": NODES, "c1": NODES}
    several.run(3)
    before = len(several.terms)
    several.run(120)
    assert len(several.terms) == before
    several.hears[several.leader()] = set()
    several.run(4)
    assert len(several.terms) == before + 1, "it is as quick as at first"


def test_a_cluster_that_has_no_nodes_yet_is_led_on() -> None:
    several = Several(2)
    several.run(120)
    assert several.terms == ["c0"]


def test_nodes_that_are_drained_are_not_missed() -> None:
    several = Several(2)
    several.hears = {"c0": NODES}
    several.run(60)
    several.hears["c0"] = {"n1"}
    several.leaving = NODES - {"n1"}
    several.run(120)
    assert several.terms == ["c0"]
