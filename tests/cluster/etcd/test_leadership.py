"""Several coordinators, one etcd, and all in between that can go wrong: drawn at random, and by hand."""

import heapq
import random
from collections.abc import Callable

import msgspec
import pytest

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.etcd import leadership as ls
from greenroom_cluster.coordination.etcd.layout import map_of
from greenroom_cluster.coordination.etcd.leadership import Leadership, LeadershipEffect, LeadershipInput
from greenroom_cluster.coordination.genesis import first_map
from tests.cluster.etcd.fake import Store, carried_out

SECOND = 1_000_000_000
SHARDS = 4


class Member:
    """One coordinator: its part, what it believes to be the map, and whether it is paused."""

    def __init__(self, name: str, begun_ns: int) -> None:
        self.name = name
        self.leadership = Leadership("/greenroom/test", name, begun_ns)
        self.map: ClusterMap | None = None
        self.saving: ClusterMap | None = None
        self.awake_ns = begun_ns
        self.drift = 1.0


class World:
    """Time, the network between members and etcd, and what must hold of all of it.

    A request may get lost on its way there, or its answer on the way back; both are told as `Failed` after a
    while, and a request that was told as failed may still arrive.
    """

    def __init__(self, seed: int, members: int = 3, *, faults: bool = True) -> None:
        self.random = random.Random(seed)
        self.now_ns = 0
        self.faults = faults
        self.away = False
        """Whether etcd answers nobody, and does nothing."""
        self.store = Store(lambda: self.now_ns / SECOND)
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self.applied: list[ClusterMap] = []
        self.saved: list[ClusterMap] = []
        self.terms = 0
        self.members = [Member(f"c{number}", 0) for number in range(members)]
        for member in self.members:
            member.drift = self.random.choice((0.98, 1.0, 1.02)) if faults else 1.0
            self._wake(member)

    # --- time --------------------------------------------------------------------------------------------

    def after(self, delay_ns: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self.events, (self.now_ns + delay_ns, self._order, action))

    def run(self, seconds: float) -> None:
        end_ns = self.now_ns + round(seconds * SECOND)
        while self.events and self.events[0][0] <= end_ns:
            self.now_ns, _, action = heapq.heappop(self.events)
            action()
        self.now_ns = end_ns

    def _clock(self, member: Member) -> int:
        return round(self.now_ns * member.drift)

    def _wake(self, member: Member) -> None:
        """Have a member do what is due, now and again and again."""
        if self.now_ns >= member.awake_ns:
            self._step(member, None)
            if self.faults and self.random.random() < 0.002:
                member.awake_ns = self.now_ns + self.random.randrange(
                    5 * SECOND
                )  # stopped, with all it was at
        self.after(50_000_000, lambda: self._wake(member))

    def _step(self, member: Member, happened: LeadershipInput | None) -> None:
        self._perform(member, member.leadership.step(self._clock(member), happened))

    def _deliver(self, member: Member, happened: LeadershipInput) -> None:
        if self.now_ns < member.awake_ns:  # it waits in the socket
            self.after(member.awake_ns - self.now_ns, lambda: self._deliver(member, happened))
        else:
            self._step(member, happened)

    # --- what a member does ------------------------------------------------------------------------------

    def _perform(self, member: Member, effects: list[LeadershipEffect]) -> None:
        for effect in effects:
            match effect:
                case ls.Lead(map=found):
                    self.terms += 1
                    self._check_begin(found)
                    member.map = found or first_map("test", SHARDS, 2)
                    if found is None:
                        self._save(member, member.map)
                    else:
                        self._decide(member)
                case ls.Saved():
                    assert member.saving is not None
                    self._check_saved(member.saving)
                    member.map, member.saving = member.saving, None
                    self._decide(member)
                case ls.Resign():
                    member.map = member.saving = None
                case ls.Grant() | ls.Renew() | ls.Transact() | ls.Revoke():
                    self._send(member, effect)

    def _decide(self, member: Member) -> None:
        """Have a leader change one shard in a while."""
        before = member.map

        def change() -> None:
            if self.now_ns < member.awake_ns:
                self.after(member.awake_ns - self.now_ns, change)
                return
            if member.map is not before or before is None or not member.leadership.leads:
                return
            shard = self.random.randrange(SHARDS)
            entries = list(before.shards)
            made_by = self.random.randbytes(16)
            entries[shard] = msgspec.structs.replace(
                entries[shard], epoch=entries[shard].epoch + 1, nonce=made_by
            )
            self._save(
                member, msgspec.structs.replace(before, version=before.version + 1, shards=tuple(entries))
            )

        self.after(self.random.randrange(SECOND // 5), change)

    def _save(self, member: Member, cluster_map: ClusterMap) -> None:
        member.saving = cluster_map
        self._perform(member, member.leadership.save(self._clock(member), cluster_map))

    # --- the network and etcd ----------------------------------------------------------------------------

    def _send(self, member: Member, effect: LeadershipEffect) -> None:
        number = getattr(effect, "number", 0)
        there, back = self.random.randrange(20_000_000), self.random.randrange(20_000_000)
        chance = self.random.random() if self.faults else 1.0

        def arrive() -> None:
            if self.away:
                self.after(SECOND, lambda: self._deliver(member, ls.Failed(number)))
                return
            answer = self._asked(effect)
            if number and answer is not None and chance >= 0.05:
                self.after(back, lambda: self._deliver(member, answer))

        if chance < 0.05:
            # Lost one way or the other: the client gives up, and the request may come, even later than that.
            self.after(SECOND // 2, lambda: self._deliver(member, ls.Failed(number)))
            if chance < 0.04:
                self.after(self.random.randrange(2 * SECOND), arrive)
        else:
            self.after(there, arrive)

    def _asked(self, effect: LeadershipEffect) -> LeadershipInput | None:
        answer = carried_out(self.store, effect)
        if isinstance(effect, ls.Transact):
            self._check_applied()
        return answer

    # --- what must hold ----------------------------------------------------------------------------------

    def _check_begin(self, found: ClusterMap | None) -> None:
        """A leader begins with the newest map in etcd."""
        assert found == (self.applied[-1] if self.applied else None)

    def _check_applied(self) -> None:
        """Every version is written once, after the one before it, by who had the key of the leader."""
        root = b"/greenroom/test/map/"
        values = {
            key.removeprefix(root).decode(): held["value"]
            for key, held in self.store.keys.items()
            if key.startswith(root)
        }
        found = map_of(values)
        if found is None or (self.applied and found == self.applied[-1]):
            return
        assert found.version == (self.applied[-1].version + 1 if self.applied else 1)
        assert sum(found.epochs) == found.version - 1, "each version is one decision on the one before"
        self.applied.append(found)

    def _check_saved(self, cluster_map: ClusterMap) -> None:
        """What a leader takes for saved is in etcd, and nobody decided otherwise."""
        assert cluster_map in self.applied
        self.saved.append(cluster_map)

    def leaders(self) -> list[str]:
        return [member.name for member in self.members if member.leadership.leads]


@pytest.mark.parametrize("seed", range(60))
def test_no_decision_is_lost_and_none_is_made_twice(seed: int) -> None:
    world = World(seed)
    world.run(40)
    assert len(world.saved) > 20
    world.faults = False
    world.run(15)
    assert len(world.leaders()) == 1
    before = len(world.saved)
    world.run(5)
    assert len(world.saved) > before, "it decides"


def test_leaders_change_and_answers_get_lost_in_the_drawn_runs() -> None:
    worlds = [World(seed) for seed in range(20)]
    for world in worlds:
        world.run(40)
    assert sum(world.terms for world in worlds) > len(worlds) + 10


def test_without_faults_the_first_leader_stays() -> None:
    world = World(1, faults=False)
    world.run(30)
    assert world.terms == 1
    assert world.leaders() == [world.members[0].leadership.leader]
    assert {member.leadership.leader for member in world.members} == set(world.leaders())


def test_another_leads_within_three_seconds_of_a_death() -> None:
    world = World(2, faults=False)
    world.run(5)
    (dead,) = [member for member in world.members if member.leadership.leads]
    dead.awake_ns = 1 << 62
    world.run(3)
    assert [name for name in world.leaders() if name != dead.name]


def test_a_leader_that_was_paused_writes_nothing_when_it_wakes() -> None:
    world = World(3, faults=False)
    world.run(5)
    (paused,) = [member for member in world.members if member.leadership.leads]
    paused.awake_ns = world.now_ns + 10 * SECOND
    world.run(9)
    assert len(world.leaders()) == 2, "one of them does not know yet"
    world.run(3)
    assert paused.name not in world.leaders()


def leading() -> Leadership:
    """Return one that leads, alone and since its begin."""
    leadership, store = Leadership("/greenroom/test", "c1", 0), Store()
    waiting = leadership.step(0)
    while not leadership.leads:
        (effect,) = waiting
        waiting = leadership.step(0, carried_out(store, effect))
    return leadership


@pytest.mark.parametrize(("silent_ns", "asked"), [(10_000_000, 5), (300_000_000, 4)])
def test_a_write_without_an_answer_is_repeated_at_once_but_not_more_often(silent_ns: int, asked: int) -> None:
    """Who was waited for in vain was waited for long enough; who refuses is left alone for a while."""
    leadership = leading()
    now_ns, tried = 0, 0
    (write,) = leadership.save(now_ns, first_map("test", SHARDS, 2))
    while now_ns < SECOND:
        assert isinstance(write, ls.Transact)
        tried += 1
        now_ns += silent_ns
        again = leadership.step(now_ns, ls.Failed(write.number))
        while not (found := [each for each in again if isinstance(each, ls.Transact)]):
            now_ns = leadership.next_deadline()
            again = leadership.step(now_ns)
        (write,) = found
    assert tried == asked


@pytest.mark.parametrize(("silent_ns", "again_ns"), [(10_000_000, 200_000_000), (300_000_000, 300_000_000)])
def test_a_renewal_without_an_answer_is_repeated_like_a_write(silent_ns: int, again_ns: int) -> None:
    leadership = leading()
    asked_ns = leadership.next_deadline()
    (renewal,) = leadership.step(asked_ns)
    assert isinstance(renewal, ls.Renew)
    leadership.step(asked_ns + silent_ns - 1)
    effects = leadership.step(asked_ns + silent_ns, ls.Failed(renewal.number))
    assert bool(effects) == (silent_ns >= again_ns)
    assert effects or leadership.next_deadline() == asked_ns + again_ns


def test_an_end_that_did_not_arrive_while_etcd_elected_is_asked_for_again() -> None:
    """Who leads etcd next begins all leases anew, and with them that of a coordinator that has resigned."""
    world = World(4, faults=False)
    world.run(5)
    (first,) = world.leaders()
    world.away = True
    world.run(2.5)
    assert world.leaders() == []
    world.away = False
    now = world.store.now()
    world.store.leases = {lease: (ttl, now + ttl) for lease, (ttl, _) in world.store.leases.items()}
    assert world.store.keys[b"/greenroom/test/leader"]["value"] == first.encode()
    world.run(1.25)
    assert len(world.leaders()) == 1
