"""What is made of two readings of an actor's metrics."""

from greenroom_cluster.dashboard.traffic import Times, actors_in, traffic
from tests.cluster.dashboard.looks import told


def test_requests_are_counted_by_the_second_and_looks_are_none() -> None:
    found = traffic(told(100, [], looks=5), told(150, [], looks=90), 2.0)
    assert found is not None
    assert found.requests_per_second == 25.0
    assert found.steps == found.replication == Times()


def test_times_are_of_what_happened_between() -> None:
    """99 of the 100 new steps took 1 µs, which has 10 bits of ns; the slow ones were before."""
    found = traffic(told(0, [9000] * 50), told(0, [9000] * 50 + [1] * 99 + [500]), 1.0)
    assert found is not None
    assert found.steps.count == 100
    assert round(found.steps.mean * 1e9) == 5990
    assert round(found.steps.bound * 1e9) == 1024


def test_one_slow_step_of_fifty_is_above_the_bound_of_the_rest() -> None:
    found = traffic(told(0, []), told(0, [1] * 49 + [1000]), 1.0)
    assert found is not None
    assert round(found.steps.bound * 1e9) == 1 << 20


def test_an_actor_that_was_started_again_is_left_out_once() -> None:
    before = {**told(1000, [5]), **told(10, [], slot="a/1")}
    now = {**told(7, []), **told(30, [], slot="a/1")}
    found = traffic(before, now, 1.0)
    assert found is not None
    assert found.requests_per_second == 20.0


def test_without_an_actor_in_both_nothing_is_known() -> None:
    assert traffic({}, told(1, []), 1.0) is None
    assert traffic(told(5, []), told(1, []), 1.0) is None
    assert traffic({"coordinator": []}, {"coordinator": []}, 1.0) is None
    assert traffic(told(1, []), told(2, []), 0.0) is None


def test_actors_are_those_that_count_requests() -> None:
    assert actors_in({**told(1, []), "coordinator/supervisor": []}) == ["a/0"]
