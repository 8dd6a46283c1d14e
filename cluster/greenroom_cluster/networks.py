"""Networks that an operator names, such as 10.0.0.0/8: whether an address lies in one of them."""

from ipaddress import IPv4Network, IPv6Network, ip_network

from greenroom.addresses import numeric_host
from greenroom.errors import UsageError


class Networks:
    """Some networks. `host in networks` takes a host that is a number; a name lies in none."""

    __slots__ = ("_networks",)

    def __init__(self, networks: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._networks = networks

    def __contains__(self, host: str) -> bool:
        try:
            address = numeric_host(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def __str__(self) -> str:
        return ",".join(map(str, self._networks))


def networks_of(text: str, option: str) -> Networks:
    """Return the networks in a list with commas. Raises UsageError, naming the option."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            network = ip_network(part)
        except ValueError as error:
            raise UsageError(f"{option} takes networks such as 10.0.0.0/8 or 10.0.0.7: {error}") from None
        if not network.prefixlen:
            raise UsageError(f"{option}: {network} is everybody; name the networks of the nodes and apps")
        found.append(network)
    if not found:
        raise UsageError(f"{option} names no network; give one such as 10.0.0.0/8")
    return Networks(tuple(found))
