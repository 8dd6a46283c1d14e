"""Clusters whose coordinators stand on a simulated etcd, which fails in etcd's ways."""

import msgspec
import pytest

from simulations.cluster.candidates import CandidateProcess
from simulations.faults.injection import KINDS, LASTING
from simulations.kernel.etcd_store import EtcdStore, LeaseGoneError, decode_transaction
from simulations.kernel.timeline import SECOND
from simulations.plans.etcd import OF_ETCD
from simulations.plans.plan import Fault, Plan
from simulations.plans.seeds import plan_of
from simulations.runs.batch import run_plan, summarize
from simulations.runs.plan_files import check_plan
from simulations.runs.world import World

PLAN = Plan(seed=1, coordinators=2, shards=2)
OF_MEMBERS = frozenset({"crash etcd member", "member behind", "silent watches"})


def transaction(**parts: list[dict[str, object]]) -> bytes:
    return msgspec.json.encode(parts)


def put(key: bytes, lease: int = 0) -> dict[str, object]:
    return {"request_put": {"key": key, "value": b"v", "lease": lease}}


def created(key: bytes, revision: int) -> dict[str, object]:
    return {"key": key, "target": "CREATE", "create_revision": revision}


@pytest.mark.timeout(170)
def test_seeds_on_etcd_break_no_rule() -> None:
    summary = summarize(range(24), progress=False, profile="etcd")
    assert not summary.violations
    assert summary.answered > 50 * 24, "runs below a minimum load show nothing"
    assert summary.faults["coordinator began to lead"] > 30, "most runs see one leader alone"


def test_every_third_seed_stands_on_etcd() -> None:
    assert [bool(plan_of(seed).coordinators) for seed in range(6)] == [True, False, False] * 2
    assert all(plan_of(seed, "etcd").coordinators for seed in range(6))
    both = plan_of(3, "durable")
    assert (both.coordinators > 1, "none" in both.durability) == (True, False)


def test_drawn_faults_of_etcd_are_all_there() -> None:
    plans = [plan_of(seed, "etcd") for seed in range(150)]
    for plan in plans:
        check_plan(plan, "seed")
    drawn = {fault.kind for plan in plans for fault in plan.faults}
    assert drawn >= OF_ETCD
    assert drawn.isdisjoint({"restore coordinator", "begin anew"})


def test_another_coordinator_leads_soon_after_a_death() -> None:
    world = World(PLAN)
    assert world.begin()
    first = world.coordinator
    world["coordinator"].strike("restart coordinator", seconds=20.0)
    assert not first.alive

    def led() -> bool:
        return isinstance(world.coordinator, CandidateProcess) and world.coordinator.serves

    assert world.timeline.run_until(world.timeline.now + 3 * SECOND, led)
    assert world.coordinator is not first
    before = world.map.version
    world["primary of shard 0"].kill()
    end = world.timeline.now + 3 * SECOND
    assert world.timeline.run_until(end, lambda: world.map.version > before + 1)
    assert world.violations == []


def test_without_etcd_all_serves_and_nothing_is_decided() -> None:
    world = World(PLAN)
    assert world.begin()
    world["coordinator"].strike("etcd away", seconds=4.0, amount=1.0)
    before, answered = world.map.version, world.workload.acknowledged
    world["primary of shard 0"].kill()
    world.timeline.run_until(world.timeline.now + 3 * SECOND)
    assert world.map.version == before
    assert world.workload.acknowledged >= answered
    end = world.timeline.now + 10 * SECOND
    assert world.timeline.run_until(end, lambda: world.map.version > before + 1)
    assert world.violations == []


def test_who_reaches_etcd_and_no_node_lets_another_one_decide() -> None:
    world = World(PLAN)
    assert world.begin()
    first = world.coordinator
    world["coordinator"].strike("cut off from nodes", seconds=60.0)
    world["primary of shard 0"].kill()
    epoch = world.map.shards[0].epoch
    end = world.timeline.now + 6 * SECOND
    assert world.timeline.run_until(end, lambda: world.map.shards[0].epoch > epoch)
    assert world.coordinator is not first
    before = world.network.happened["coordinator began to lead"]
    world.timeline.run_until(world.timeline.now + 30 * SECOND)
    assert world.network.happened["coordinator began to lead"] == before, "it leads on"
    assert world.whole()
    assert world.violations == []


@pytest.mark.parametrize("kind", sorted(OF_ETCD))
def test_each_fault_of_etcd_strikes_and_is_taken_back(kind: str) -> None:
    target = "etcd 0" if kind in OF_MEMBERS else "coordinator"
    faults = (
        Fault(800.0, kind, target, 1.5 if kind in LASTING else 0.0, 1.0),
        Fault(900.0, "kill actor", "primary of shard 0"),
    )
    result, _ = run_plan(msgspec.structs.replace(PLAN, faults=faults))
    assert result.violations == []
    assert result.faults[kind] == 1


def test_faults_of_etcd_spare_a_coordinator_with_a_file() -> None:
    faults = tuple(Fault(500.0, kind, "coordinator", 0.5, 1.0) for kind in sorted(OF_ETCD))
    result, _ = run_plan(Plan(seed=1, shards=2, faults=faults))
    assert result.violations == []
    assert KINDS.keys() >= OF_ETCD
    assert OF_ETCD.isdisjoint(result.faults)


# --- the store --------------------------------------------------------------------------------------------


def test_a_transaction_is_done_whole_if_its_compares_hold() -> None:
    store = EtcdStore()
    asked = decode_transaction(transaction(compare=[created(b"k", 0)], success=[put(b"k"), put(b"l")]))
    first, second = store.transact(asked), store.transact(asked)
    assert (first.succeeded, second.succeeded) == (True, False)
    assert store.keys[b"k"].create_revision == store.keys[b"l"].mod_revision == first.header.revision


def test_a_key_goes_with_its_lease_at_the_next_look() -> None:
    store = EtcdStore()
    lease = store.grant(0, 2).lease
    store.transact(decode_transaction(transaction(success=[put(b"k", lease)])))
    assert store.keep_alive(1 * SECOND, lease).ttl_seconds == 2
    store.expire(2 * SECOND)
    assert b"k" in store.keys
    assert store.keep_alive(3 * SECOND, lease).ttl_seconds == 0
    store.expire(3 * SECOND)
    assert b"k" not in store.keys
    with pytest.raises(LeaseGoneError):
        store.transact(decode_transaction(transaction(success=[put(b"k", lease)])))


def test_leases_begin_anew_when_another_member_leads() -> None:
    store = EtcdStore()
    lease = store.grant(0, 2).lease
    term = store.term
    store.elect(10 * SECOND)
    store.expire(11 * SECOND)
    assert store.keep_alive(11 * SECOND, lease).ttl_seconds == 2
    assert store.term == term + 1
