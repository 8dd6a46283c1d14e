"""Where the HTTP ports of a local cluster are, and why there are none."""

import importlib.util

import pytest

from greenroom.errors import UsageError
from greenroom_cluster.http.addresses import HttpAddresses


def any_address(host: str, option: str) -> str:
    return f"{host}:9"


@pytest.fixture
def _without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


@pytest.mark.usefixtures("_without_the_extra")
def test_a_port_that_nobody_asked_for_is_left_out_and_that_is_said() -> None:
    addresses = HttpAddresses("127.0.0.1:0", any_address, optional=True)
    assert addresses.of("n1", 0) == ""
    assert "the extra `http`" in addresses.missing


@pytest.mark.usefixtures("_without_the_extra")
def test_a_port_that_was_asked_for_is_not_left_out() -> None:
    with pytest.raises(UsageError, match="the extra `http`"):
        HttpAddresses("127.0.0.1:0", any_address, optional=False)


def test_nothing_is_missing_where_it_is_installed_or_declined() -> None:
    assert HttpAddresses("", any_address, optional=True).missing == ""
    addresses = HttpAddresses("127.0.0.1:0", any_address, optional=True)
    assert addresses.missing == ""
    assert addresses.of("n1", 0) == "127.0.0.1:9"
