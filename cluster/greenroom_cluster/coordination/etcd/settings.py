"""Where etcd is, and who asks it. Pure."""

from urllib.parse import urlsplit

import msgspec

from greenroom.addresses import join_address, parse_address
from greenroom.errors import UsageError

TIMEOUT_SECONDS = 1.0
"""For one request to one member, at most: half of the shortest lease."""
PORT = 2379
_SCHEMES = {"etcd": "http", "etcds": "https"}


class EtcdSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The members' URLs, the prefix of all keys, and who signs in, if somebody does."""

    urls: tuple[str, ...]
    prefix: str = "/greenroom"
    user: str = ""
    timeout_seconds: float = TIMEOUT_SECONDS

    @property
    def secure(self) -> bool:
        """Whether the members are spoken to by TLS."""
        return self.urls[0].startswith("https:")


def etcd_settings(url: str, option: str) -> EtcdSettings:
    """Return the settings in `etcd://host:port,host:port/prefix`, or `etcds://` for TLS.

    Raises UsageError, naming the option.
    """
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"{option} is {url!r}: write etcd://host:2379,host:2379/prefix, or etcds:// with TLS; a user and "
            "password are options of their own"
        )
    hosts = [part.strip() for part in parts.netloc.split(",") if part.strip()]
    if not hosts:
        raise UsageError(f"{option} names no member of etcd: write etcd://host:2379,host:2379")
    urls = tuple(f"{scheme}://{join_address(*_address(host))}" for host in dict.fromkeys(hosts))
    return EtcdSettings(urls=urls, prefix=parts.path.rstrip("/") or "/greenroom")


def _address(text: str) -> tuple[str, int]:
    has_port = text.rpartition(":")[2].isdigit() and not text.endswith("]")
    return parse_address(text if has_port else f"{text}:{PORT}")
