"""Which addresses are of this host alone."""

import pytest

from greenroom import ClusterStore, UsageError, store_from_url
from greenroom.loopback import is_loopback, surely_beyond

OPTION = "insecure_plaintext_beyond_loopback"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.1"])
def test_is_loopback(host: str) -> None:
    assert is_loopback(host)
    assert not surely_beyond([f"[{host}]:1" if ":" in host else f"{host}:1"])


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "10.0.0.1",
        "128.0.0.1",
        "126.255.255.255",
        "::",
        "::2",
        "::ffff:10.0.0.1",
        "::ffff:0.0.0.0",
        "::127.0.0.1",
        "fe80::1",
        "fe80::1%lo",
        "fd00::1",
    ],
)
def test_is_beyond(host: str) -> None:
    assert not is_loopback(host)
    address = f"[{host}]:1" if ":" in host else f"{host}:1"
    assert surely_beyond([address, "127.0.0.1:1"]) == [address]


@pytest.mark.parametrize("host", ["localhost", "db.example", "127.1", "0x7f000001", "127.0.0.1.example"])
def test_a_name_is_neither(host: str) -> None:
    """It may be looked up to anything, so it is judged by what it is then."""
    assert not is_loopback(host)
    assert not surely_beyond([f"{host}:1"])


@pytest.mark.parametrize(
    "seeds", ["10.0.0.1:7400", "127.0.0.1:7400,[fd00::1]:7400", "[::ffff:10.0.0.1]:7400", "0.0.0.0:7400"]
)
def test_a_store_without_tls_refuses_addresses_beyond(seeds: str) -> None:
    for make in (ClusterStore, lambda seeds: store_from_url(f"greenroom://{seeds}")):
        with pytest.raises(UsageError, match="beyond loopback") as caught:
            make(seeds)
        assert seeds.rpartition(",")[2] in str(caught.value)
        assert f"?{OPTION}=true" in str(caught.value)
        assert "greenrooms://" in str(caught.value)


def test_the_one_override() -> None:
    assert "10.0.0.1:7400" in repr(ClusterStore("10.0.0.1:7400", insecure_plaintext_beyond_loopback=True))
    assert "10.0.0.1:7400" in repr(store_from_url(f"greenroom://10.0.0.1:7400/shop?{OPTION}=true"))
    for url in (
        f"greenroom://10.0.0.1:7400?{OPTION}=false",
        f"greenroom://10.0.0.1:7400?{OPTION}=1",
        f"greenrooms://10.0.0.1:7400?{OPTION}=true",
    ):
        with pytest.raises(UsageError):
            store_from_url(url)
