"""What one measurement yields."""

import pytest

from benchmarks.samples import DISTRIBUTION, quantile, sample_of
from benchmarks.work.scaling import together
from tests.benchmarks.builders import sample


def test_quantiles_of_a_measurement() -> None:
    taken = sample_of([value / 1000 for value in range(1000, 0, -1)], seconds=2.0, client_cpu=0.5)
    assert taken.rate == 500
    assert taken.p50 == pytest.approx(0.501)
    assert taken.p99 == pytest.approx(0.991)
    assert taken.worst == 1.0
    assert taken.client_cpu == 0.0005
    assert len(taken.distribution) == len(DISTRIBUTION)
    assert taken.distribution == sorted(taken.distribution)


def test_a_measurement_in_which_nothing_was_answered() -> None:
    taken = sample_of([], seconds=1.0, client_cpu=0.5, errors=3)
    assert (taken.operations, taken.rate, taken.worst, taken.errors) == (0, 0, 0, 3)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 2.0), (0.9999, 3.0), (1.0, 3.0)])
def test_quantile(share: float, expected: float) -> None:
    assert quantile([1.0, 2.0, 3.0], share) == expected


def test_several_clients_together_do_more_and_are_as_slow_as_the_slowest() -> None:
    both = together([sample(1000, p99=0.01, client_cpu=1.0), sample(3000, p99=0.02, client_cpu=2.0)], 40.0)
    assert both.rate == 4000
    assert both.p99 == 0.02
    assert both.client_cpu == 1.75
    assert both.server_cpu == 0.01
