"""Addresses of this host alone. Beyond them everything that is said in plaintext can be heard and changed."""

from collections.abc import Iterable

from greenroom.addresses import numeric_host, parse_address

INSECURE_OPTION = "insecure_plaintext_beyond_loopback"
BEYOND_LOOPBACK = "beyond-loopback"
"""The code of a connection that was not made, because it would have left this host in plaintext."""
REASON = "it is beyond loopback, where a store speaks TLS only"
SAFE_PLAINTEXT = (
    "Give the store a greenrooms:// URL with tls_cert, tls_key and tls_ca; or, where nobody else is on the "
    f"network, {INSECURE_OPTION}=True, in a URL ?{INSECURE_OPTION}=true"
)


def is_loopback(host: str) -> bool:
    """Return whether a numeric address is on loopback. A name is not: it may stand for anything.

    IPv6 may have an address of IPv4 in it (`::ffff:127.0.0.1`), and name the interface (`fe80::1%eth0`).
    """
    try:
        return numeric_host(host).is_loopback
    except ValueError:
        return False


def surely_beyond(addresses: Iterable[str]) -> list[str]:
    """Return those of these `host:port` whose host is a number beyond loopback.

    What a name stands for shows when it is connected to.
    """
    hosts = ((address, parse_address(address)[0]) for address in addresses)
    return [address for address, host in hosts if _is_number(host) and not is_loopback(host)]


def _is_number(host: str) -> bool:
    try:
        numeric_host(host)
    except ValueError:
        return False
    return True
