import pytest

from benchmarks.pairs import ratios_of
from tests.benchmarks.builders import reading


def test_a_ratio_is_of_this_tree_to_the_base_within_one_pair() -> None:
    ours = [reading("greenroom", "update", rate=900.0, server_cpu=2e-5, client_cpu=3e-5)]
    base = [reading("greenroom", "update", rate=1000.0, server_cpu=1e-5, client_cpu=1e-5)]
    faster = [reading("greenroom", "update", rate=1100.0)]
    row, *others = ratios_of([(ours, base), (faster, base)])
    assert not others
    assert (row.work, row.callers) == ("update", 64)
    assert row.rate == pytest.approx([0.9, 1.1])
    assert row.server_cpu == pytest.approx([2.0, 1.0])
    assert row.client_cpu == pytest.approx([3.0, 1.0])


def test_only_what_both_sides_of_every_pair_measured_is_compared() -> None:
    both = [reading("greenroom", "get"), reading("greenroom", "update"), reading("redis_py", "patch")]
    lacking = [reading("greenroom", "get"), reading("redis_py", "patch")]
    assert [row.work for row in ratios_of([(both, both), (both, lacking)])] == ["get"]
