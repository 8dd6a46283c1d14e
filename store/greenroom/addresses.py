"""Addresses as users and the cluster map write them: `host:port`, IPv6 as `[::1]:port`."""

from ipaddress import IPv4Address, IPv6Address, ip_address

from greenroom.errors import UsageError

PORT_MAX = 65_535


def parse_address(text: str, *, any_port: bool = False) -> tuple[str, int]:
    """Return (host, port). `any_port`: to listen at, where port 0 stands for any. Raises UsageError."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not (colon and host and port.isascii() and port.isdigit()):
        raise UsageError(
            f"{text!r} is not an address; write host:port, for example 10.0.0.5:7400, or [host]:port for IPv6"
        )
    least = 0 if any_port else 1
    if len(port) > len(str(PORT_MAX)) or not least <= int(port) <= PORT_MAX:
        raise UsageError(
            f"the port of {text!r} is out of range in host:port; ports are {least} to {PORT_MAX}"
        )
    return host, int(port)


def parse_addresses(text: str) -> tuple[str, ...]:
    """Return the addresses of a comma-separated list, in order and once each. Raises UsageError."""
    if not isinstance(text, str):
        raise UsageError(
            f'addresses are one str, "host:port,host:port", not {type(text).__name__}; join them with commas'
        )
    addresses = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not addresses:
        raise UsageError("no node address was given; write at least one, as host:port,host:port")
    for address in addresses:
        parse_address(address)
    return addresses


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def numeric(host: str, port: int) -> str:
    """Return the one form of an address whose host is a number. Raises ValueError if that is a name."""
    return join_address(str(numeric_host(host)), port)


def numeric_host(host: str) -> IPv4Address | IPv6Address:
    """Return a host that is a number: IPv4 in IPv6 as IPv4, without a zone. Raises ValueError for a name."""
    found = ip_address(host)
    if isinstance(found, IPv6Address):
        return found.ipv4_mapped or IPv6Address(int(found))
    return found
