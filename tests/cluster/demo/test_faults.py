"""A kill hits what it should, and the recovery time is that of the slowest shard, never too short."""

import signal
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import greenroom
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry
from greenroom.ids import point_of
from greenroom_cluster.demo import faults

SHARDS = 4


@pytest.fixture
def autojump_clock() -> MockClock:
    """Waiting takes no time."""
    return MockClock(autojump_threshold=0)


async def wait(seconds: float) -> None:
    with trio.move_on_after(seconds):
        await trio.Event().wait()


class KilledStore(greenroom.MemoryStore):
    """Answers in 1 ms, or shard n in `latency[n]` seconds.

    From `killed_at` on, shard n is silent for `silence[n]` seconds. A patch that comes meanwhile is held
    until the shard is back; with `refuse` it is refused after 0.1 s.
    """

    def __init__(
        self, silence: dict[int, float], *, latency: dict[int, float] | None = None, refuse: bool = False
    ) -> None:
        super().__init__()
        self.latency = latency or {}
        self.silence = silence
        self.refuse = refuse
        self.killed_at = float("inf")
        self.begun_before_the_kill = 0

    def kill(self) -> None:
        self.killed_at = trio.current_time()

    async def patch(self, session_id: str, **more: Any) -> greenroom.SessionData:
        shard = point_of(session_id) * SHARDS >> 16
        begun = trio.current_time()
        await wait(self.latency.get(shard, 0.001))
        back_at = self.killed_at + self.silence.get(shard, 0)
        if begun < self.killed_at <= trio.current_time():
            self.begun_before_the_kill += 1  # its answer was on its way
        elif self.killed_at <= trio.current_time() < back_at:
            if self.refuse:
                await wait(0.1)
                raise greenroom.UnavailableError("no primary in time")
            await wait(back_at - trio.current_time())
        return await super().patch(session_id, **more)


class StoreVictim(faults.Victim):
    """Kills a store in place of processes."""

    store: KilledStore

    def kill(self) -> None:
        self.store.kill()


def victim_of(store: KilledStore) -> faults.Victim:
    victim = StoreVictim("store", (), ())
    victim.store = store
    return victim


@pytest.mark.trio
async def test_recovery_is_that_of_the_slowest_shard(autojump_clock: MockClock) -> None:
    store = KilledStore({0: 0.2, 1: 0.0, 2: 0.7, 3: 0.4})
    recovery = await faults.kill_and_measure(victim_of(store), store, range(SHARDS), SHARDS)
    assert recovery.seconds is not None
    assert 0.7 <= recovery.seconds < 0.7 + 2 * faults.PROBE_PAUSE_SECONDS
    assert (recovery.shards, recovery.probe_errors) == (SHARDS, 0)


@pytest.mark.trio
async def test_an_answer_that_was_on_its_way_at_the_kill_does_not_count(autojump_clock: MockClock) -> None:
    """The kill comes when shard 3 answers, after 35 ms; shard 0's second patch is then under way."""
    store = KilledStore({0: 0.5}, latency={0: 0.01, 3: 0.035})
    recovery = await faults.kill_and_measure(victim_of(store), store, [0, 3], SHARDS)
    assert store.begun_before_the_kill == 1
    assert recovery.seconds is not None
    assert recovery.seconds >= 0.5


@pytest.mark.trio
async def test_refusals_are_counted_and_tried_again(autojump_clock: MockClock) -> None:
    store = KilledStore({1: 1.0}, refuse=True)
    recovery = await faults.kill_and_measure(victim_of(store), store, [1], SHARDS)
    assert recovery.seconds is not None
    assert 1.0 <= recovery.seconds < 1.2
    assert recovery.probe_errors >= 8


@pytest.mark.trio
async def test_a_shard_that_never_answers_again_is_not_a_recovery(autojump_clock: MockClock) -> None:
    store = KilledStore({3: 1e6})
    recovery = await faults.kill_and_measure(victim_of(store), store, range(SHARDS), SHARDS)
    assert recovery.seconds is None


@pytest.mark.parametrize("shard_count", [1, 2, 64, 4096])
def test_a_probe_s_session_lies_on_its_shard(shard_count: int) -> None:
    for shard in {0, shard_count // 2, shard_count - 1}:
        probe = faults.Probe(shard, shard_count)
        assert point_of(probe._session_id) * shard_count >> 16 == shard
        assert probe._session_id not in repr(probe)


def actor(node: str, index: int, state: str = "up") -> ActorEntry:
    number = int(node[1:]) * 10 + index
    return ActorEntry(bytes([number]) * 16, node, f"{node}/{index}", "", state, "here", 1000 + number, 7)


@pytest.fixture
def cluster_map() -> ClusterMap:
    """Two nodes of two actors; n2 is primary of two shards of three, and has a dead predecessor."""
    actors = [actor("n1", 0), actor("n1", 1), actor("n2", 0), actor("n2", 1), actor("n2", 5, "dead")]
    one, two, three, four = (entry.incarnation for entry in actors[:4])
    shards = (
        ShardEntry(1, one, (three,), b"", ()),
        ShardEntry(1, three, (two,), b"", ()),
        ShardEntry(1, four, (two,), b"", ()),
    )
    nodes = {name: NodeEntry(name, "", "up") for name in ("n1", "n2")}
    return ClusterMap("c", 1, 1, 2, nodes, {entry.incarnation: entry for entry in actors}, shards)


def test_a_node_dies_with_its_supervisor_first_and_its_living_actors(cluster_map: ClusterMap) -> None:
    assert faults.busiest_node(cluster_map) == "n2"
    victim = faults.node_victim(cluster_map, "n2", 77)
    assert victim.pids == (77, 1020, 1021)
    assert faults.shards_on(cluster_map, victim) == [0, 1, 2]


def test_the_shards_of_an_actor_are_those_it_is_primary_or_backup_of(cluster_map: ClusterMap) -> None:
    assert faults.shards_on(cluster_map, faults.actor_victim(actor("n2", 0))) == [0, 1]
    assert faults.shards_on(cluster_map, faults.actor_victim(actor("n1", 1))) == [1, 2]


def test_everything_is_all_processes_in_the_order_given(cluster_map: ClusterMap) -> None:
    victim = faults.everything_victim([5, 6, 77, 1020], cluster_map)
    assert victim.pids == (5, 6, 77, 1020)
    assert faults.shards_on(cluster_map, victim) == [0, 1, 2]


@pytest.mark.trio
async def test_recovery_is_waited_for_no_longer_than_told(autojump_clock: MockClock) -> None:
    store = KilledStore({0: 20.0})
    victim, shards = victim_of(store), range(SHARDS)
    assert (await faults.kill_and_measure(victim, store, shards, SHARDS)).seconds is None
    again = KilledStore({0: 20.0})
    recovery = await faults.kill_and_measure(victim_of(again), again, shards, SHARDS, seconds_max=60.0)
    assert recovery.seconds is not None
    assert recovery.seconds == pytest.approx(20.0, abs=0.1)


@pytest.mark.trio
async def test_a_kill_reaches_every_process_though_one_is_gone_already() -> None:
    processes = [await trio.lowlevel.open_process(["sleep", "60"]) for _ in range(2)]
    processes[0].kill()
    await processes[0].wait()
    faults.Victim("two", tuple(process.pid for process in processes), ()).kill()
    with trio.fail_after(5):
        assert await processes[1].wait() == -signal.SIGKILL
