"""Who a certificate belongs to: one URI in its alternative names, `greenroom://CLUSTER/ROLE/NAME`.

A host name is no identity: addresses move, and a certificate of a node is valid wherever the node runs.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from greenroom.errors import GreenroomError, UsageError

IdentityRole: TypeAlias = Literal["node", "coordinator", "client", "operator", "observer"]
IDENTITY_ROLES: tuple[IdentityRole, ...] = get_args(IdentityRole)
NAME_CHARACTERS_MAX = 63
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_URI = re.compile(rf"greenroom://({_NAME})/({'|'.join(IDENTITY_ROLES)})/({_NAME})", re.ASCII)


class IdentityError(GreenroomError):
    """A certificate does not say who its holder is."""


class Identity(msgspec.Struct, frozen=True):
    """The holder of a certificate: in which cluster, in which role, by which name.

    The name of a node is the one in the cluster map; that of a client is its app's.
    """

    cluster: str
    role: IdentityRole
    name: str

    @property
    def uri(self) -> str:
        """The URI that a certificate holds."""
        return f"greenroom://{self.cluster}/{self.role}/{self.name}"


def parse_identity(uri: str) -> Identity:
    """Return the identity that a URI names. Raises UsageError."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise UsageError(
            f"{uri!r} is no identity; write greenroom://CLUSTER/ROLE/NAME, where ROLE is one of "
            f"{', '.join(IDENTITY_ROLES)}, and names have at most {NAME_CHARACTERS_MAX} letters, digits, "
            "'.', '_' and '-', a letter or a digit first"
        )
    cluster, role, name = match.groups()
    return Identity(cluster, role, name)  # type: ignore[arg-type]  # the pattern has the roles only


def identity_of(certificate: Mapping[str, Any]) -> Identity:
    """Return the identity in a verified certificate, as `ssl.SSLObject.getpeercert` returns it.

    Raises IdentityError unless it holds exactly one URI, which names an identity. Other alternative names, of
    hosts for example, mean nothing here.
    """
    uris = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        raise IdentityError(
            f"the certificate holds {len(uris) or 'no'} URIs, and must hold one, "
            "greenroom://CLUSTER/ROLE/NAME; issue another with `greenroom certs`"
        )
    try:
        return parse_identity(uris[0])
    except UsageError as error:
        raise IdentityError(f"the certificate names nobody: {error}") from None
