"""Settings of a host that would break a promise are refused."""

import pytest

from greenroom.errors import UsageError
from greenroom_cluster.shard.settings import HostSettings

SECOND_US = 1_000_000


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"grace_seconds": 1.1}, "raise grace_seconds"),
        ({"lease_seconds": 1.2}, "lower lease_seconds"),
        ({"beacon_seconds": 0.51}, "beacon_seconds"),
        ({"near_seconds": 1.1}, "lower near_seconds"),
        *(({name: 0}, name) for name in HostSettings.__struct_fields__ if name != "near_seconds"),
    ],
)
def test_settings_that_would_break_a_promise_are_refused(names: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        HostSettings(**names)


def test_the_defaults_hold_together() -> None:
    settings = HostSettings()
    assert settings.forget_us == 50 * SECOND_US
