"""Networks that an operator names."""

import pytest

from greenroom.errors import UsageError
from greenroom_cluster.networks import networks_of


@pytest.mark.parametrize(
    ("text", "host", "within"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7", "10.0.0.8", False),
        ("127.0.0.0/8, fd00::/8", "fd00::1", True),
        ("fd00::/8", "fd00::1%eth0", True),
        ("127.0.0.0/8", "::ffff:127.0.0.1", True),
        ("127.0.0.0/8", "::1", False),
        ("127.0.0.0/8", "localhost", False),
    ],
)
def test_an_address_lies_in_a_network_or_not(text: str, host: str, within: bool) -> None:
    assert (host in networks_of(text, "--plaintext-from")) is within


@pytest.mark.parametrize("text", ["10.0.0.1/8", "shop.example", "0.0.0.0/0", "::/0", ",", "10.0.0.0/33"])
def test_what_is_no_network_is_refused_and_the_option_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--plaintext-from"):
        networks_of(text, "--plaintext-from")


def test_networks_are_told_as_they_were_given() -> None:
    assert str(networks_of("10.0.0.0/8, 127.0.0.1", "x")) == "10.0.0.0/8,127.0.0.1/32"
