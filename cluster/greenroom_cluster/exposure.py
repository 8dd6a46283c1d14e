"""Whether a process may listen at an address, or be named at it, without TLS."""

from collections.abc import Sequence

from greenroom.loopback import is_loopback

INSECURE_FLAG = "--insecure-plaintext-beyond-loopback"
TLS_FLAGS = "--tls-cert, --tls-key and --tls-ca"


def exposed(where: str, hosts: Sequence[str], option: str, tls_flags: str = TLS_FLAGS) -> str:
    """Return why an address needs TLS, given the numeric hosts that it stands for; empty if it does not.

    One that stands for nothing here may stand for anything elsewhere. `tls_flags` are the options by which
    the process would speak TLS.
    """
    if hosts and all(is_loopback(host) for host in hosts):
        return ""
    return (
        f"{option}: {where} is beyond loopback, and without TLS whoever reaches it may read and change all "
        f"sessions. Give {tls_flags}, or an address such as 127.0.0.1; or, where nobody else is on the "
        f"network, {INSECURE_FLAG}"
    )
