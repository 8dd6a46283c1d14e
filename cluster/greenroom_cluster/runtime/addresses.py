"""Addresses as users and the cluster map write them: `host:port`, IPv6 as `[::1]:port`."""

from greenroom.errors import UsageError

PORT_MAX = 65535


def split_address(address: str) -> tuple[str, int]:
    """Return (host, port).

    Raises UsageError if `address` is not of the form host:port.
    """
    host, separator, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not (separator and host and port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
        raise UsageError(
            f"{address!r} is not an address; write host:port (for example 10.0.0.5:7400, or [::1]:7400)"
        )
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
