"""The benchmarks of a map in etcd: what they compare, and what they count."""

from typing import Any

import msgspec
import pytest

from benchmarks.etcd import recovery, single_map
from greenroom_cluster.coordination.etcd.layout import values_of
from greenroom_cluster.demo.verdict import DemoResult, Verdict


def result(actor: float, node: float, **more: Any) -> DemoResult:
    verdict = Verdict()
    verdict.request(node)
    made = verdict.result(
        recover_actor_seconds=actor, recover_node_seconds=node, browsers=1, seed=1, seconds=18.0
    )
    return msgspec.structs.replace(made, **more)


def test_etcd_is_compared_to_the_file_within_a_pair() -> None:
    pairs = [
        (result(0.1, 1.0), result(0.2, 1.0, new_leader_seconds=2.0)),
        (result(1.0, 1.0), result(1.0, 1.1, new_leader_seconds=2.5)),
        (result(0.1, 2.0, user_errors=3), result(0.1, 2.0, new_leader_seconds=3.0)),
    ]
    found = {each.figure: each.ratio for each in recovery.ratios(pairs)}
    assert found["an actor is killed"] == pytest.approx(1.0)
    assert found["a node is killed"] == pytest.approx(1.0)
    table = recovery.table(pairs)
    assert "| an actor is killed | 0.100 s (1.000 s) | 0.200 s (1.000 s) | 1.00 |" in table
    assert "another one leads | | 2.50 s (3.00 s) | |" in table
    assert "| 3 | 0 | |" in table


def test_both_sides_take_turns_at_being_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def demo(store: str, seed: int) -> DemoResult:
        asked.append((store, seed))
        return result(0.1, 1.0, store=store)

    monkeypatch.setattr(recovery, "demo", demo)
    pairs = recovery.in_pairs("etcd://h", 3, 1.0, lambda _: None)
    assert asked == [("", 1), ("etcd://h", 1), ("etcd://h", 2), ("", 2), ("", 3), ("etcd://h", 3)]
    assert [(file.store, etcd.store) for file, etcd in pairs] == [("", "etcd://h")] * 3


def test_a_run_that_fails_costs_its_pair_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def demo(store: str, seed: int) -> DemoResult:
        if store and seed == 2:
            raise recovery.DemoFailedError("lost")
        return result(0.1, 1.0)

    monkeypatch.setattr(recovery, "demo", demo)
    said: list[str] = []
    assert len(recovery.in_pairs("etcd://h", 3, 1.0, said.append)) == 2
    assert "run 2 of 3 is left out: lost" in said
    with pytest.raises(recovery.DemoFailedError):
        recovery.in_pairs("etcd://h", 3, -1.0, said.append)


def test_a_change_writes_its_part_of_the_map_alone() -> None:
    cost, cluster_map = single_map.computed(10, 256)
    values = values_of(cluster_map)
    assert cost.map_bytes == sum(map(len, values.values()))
    assert cost.map_bytes / 64 < cost.change_bytes < cost.map_bytes / 20
    assert cost.failure_fits
    assert cost.failure_shards > 256 // 10
    # Actors are spread over the keys, as those of a real cluster are.
    assert sum(key.startswith("actors/") for key in values) > 5
    assert "too long for one" in single_map.table([msgspec.structs.replace(cost, failure_fits=False)])
