"""Which requests an HTTP port answers, and whom it shows the state of the cluster. Pure.

A browser of this host reaches the port too. A page of another origin must not read what the browser may, so a
request that such a page caused is refused, and one for a host that a name server may have made ours. A host
that is a number is nobody's to redirect.
"""

import hmac

import msgspec

from greenroom.addresses import numeric_host
from greenroom.identities import Identity
from greenroom_cluster.tokens.table import Denied, Uncertified

METHODS = frozenset({"GET", "HEAD"})
DASHBOARD_PATH = "/dashboard"
LOOKERS = frozenset({"operator", "observer"})
"""The roles of those who are shown the state of the cluster."""

_BEARER = "bearer "
_OWN_SITES = frozenset({"", "none", "same-origin"})


class Asked(msgspec.Struct, frozen=True):
    """What of a request decides whether it is answered: its method, and headers, empty where they lack.

    `site` is what a browser says of who caused it. No repr shows the authorization.
    """

    method: str
    host: str
    site: str = ""
    origin: str = ""
    authorization: str = ""

    def __repr__(self) -> str:
        return f"<Asked {self.method} of {self.host}>"

    @property
    def token(self) -> str:
        """The token that it shows; empty if none."""
        kind = self.authorization[: len(_BEARER)]
        return self.authorization[len(_BEARER) :].strip() if kind.lower() == _BEARER else ""


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not answered. `guessed`: it may have been looking for a token."""

    status: int
    reason: str
    guessed: bool = False


def objection(asked: Asked, own_host: str, *, secured: bool) -> Refusal | None:
    """Return why a request is answered by nothing, whatever it asks for; None if it may be.

    `own_host` is the one that the port was given; `secured`: the connection is one of TLS.
    """
    if asked.method not in METHODS:
        return Refusal(405, "this port is read only: GET and HEAD")
    if not secured and not _is_ours(_host_of(asked.host), own_host):
        return Refusal(421, "the host of the request is not this port's: give its number, or localhost")
    if asked.site not in _OWN_SITES:
        return Refusal(403, "a page of another origin caused this request")
    if asked.origin and asked.origin.partition("://")[2] != asked.host:
        return Refusal(403, "a page of another origin caused this request")
    return None


def _host_of(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header


def _is_ours(host: str, own_host: str) -> bool:
    if host.lower() in {"localhost", own_host.lower()}:
        return True
    try:
        numeric_host(host)
    except ValueError:
        return False
    return True


def objection_in_plaintext(asked: Asked, token: str | None) -> Refusal | None:
    """Return why the state of the cluster is not shown to who shows no certificate, and need not."""
    if token is None or hmac.compare_digest(token.encode(), asked.token.encode()):
        return None
    if not asked.token:
        told = "show the token that `greenroom http-token` prints: Authorization: Bearer TOKEN"
        return Refusal(401, told)
    return Refusal(403, "this is not the token of this cluster", guessed=True)


def objection_in_tls(
    asked: Asked, identity: Identity | None, cluster: str, uncertified: Uncertified
) -> Refusal | None:
    """Return why the state of the cluster is not shown to who has this identity, or shows a token instead."""
    if identity is None:
        bearer = uncertified.judge(asked.token.encode())
        if bearer is None or isinstance(bearer, Denied):
            if asked.token:
                return Refusal(403, "the token does not count here", guessed=bearer is None or bearer.guessed)
            return Refusal(401, "show the certificate of an operator or observer, or an observer's token")
        identity = bearer.identity
    if identity.cluster != cluster or identity.role not in LOOKERS:
        return Refusal(403, "this is shown to operators and observers of this cluster")
    return None
