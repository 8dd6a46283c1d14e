"""How uneven counts are."""

from greenroom_cluster.dashboard.skew import Skew, skew


def test_even_counts_have_the_ratio_one() -> None:
    assert skew("node", {"a": 5, "b": 5}) == Skew("node", 2, 5.0, 5, "a", 1.0)


def test_the_fullest_is_named_with_how_many_times_the_mean_it_is() -> None:
    assert skew("shard", {"0": 10, "1": 80, "2": 0}) == Skew("shard", 3, 30.0, 80, "1", 2.67)


def test_where_nothing_is_nothing_is_uneven() -> None:
    assert skew("actor", {"a/0": 0, "b/0": 0}) == Skew("actor", 2)
    assert skew("actor", {}) == Skew("actor", 0)
