"""Who a certificate belongs to: one URI in its alternative names, `greenroom://CLUSTER/ROLE/NAME`.

That of a client may end in `?ns=NAMESPACE`, see `Identity.namespace`.

A host name is no identity: addresses move, and a certificate of a node is valid wherever the node runs.

Which roles an authority may certify is in its name, which every certificate of it carries as its issuer. An
authority that `greenroom certs` made is called O=greenroom, OU=PURPOSE, CN=CLUSTER, dnQualifier=KEY, where
KEY is the id of its key. Once a chain is verified, that name is true: only who has the key of an authority in
the trusted file can issue under its name, and its path length is 0, so that it can make no other authority.
One of another name, such as a company's own, may certify any role.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from greenroom.errors import GreenroomError, UsageError

IdentityRole: TypeAlias = Literal["node", "coordinator", "client", "operator", "observer"]
IDENTITY_ROLES: tuple[IdentityRole, ...] = get_args(IdentityRole)
Purpose: TypeAlias = Literal["all", "servers", "clients"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
ORGANIZATION = "greenroom"
ROLES_OF: Mapping[str, frozenset[IdentityRole]] = MappingProxyType(
    {
        "all": frozenset(IDENTITY_ROLES),
        "servers": frozenset(IDENTITY_ROLES) - {"client"},
        "clients": frozenset({"client"}),
    }
)
"""By the purpose of an authority, whom it may certify: that of clients makes no operator either."""
DEFAULT_NAMESPACE = "default"
NAME_CHARACTERS_MAX = 63
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_ROLES = "|".join(IDENTITY_ROLES)
_URI = re.compile(
    rf"greenroom://({NAME_PATTERN})/({_ROLES})/({NAME_PATTERN})(?:\?ns=({NAME_PATTERN}))?", re.ASCII
)


class IdentityError(GreenroomError):
    """A certificate does not say who its holder is."""


def held_as(namespace: str) -> str:
    """Return a namespace as keys hold it: `default` is empty there."""
    return "" if namespace == DEFAULT_NAMESPACE else namespace


class Identity(msgspec.Struct, frozen=True):
    """The holder of a certificate: in which cluster, in which role, by which name.

    The name of a node is the one in the cluster map; that of a client is its app's. `issued_for` is a
    client's namespace if that is not called like the app.
    """

    cluster: str
    role: IdentityRole
    name: str
    issued_for: str = ""

    @property
    def uri(self) -> str:
        """The URI that a certificate holds."""
        issued = f"?ns={self.issued_for}" if self.issued_for else ""
        return f"greenroom://{self.cluster}/{self.role}/{self.name}{issued}"

    @property
    def namespace(self) -> str:
        """The namespace of a client's sessions: the one it was issued for, else its name.

        Empty for `default`, in which all are who prove nothing, and for other roles.
        """
        if self.role != "client":
            return ""
        namespace = self.issued_for or self.name
        return held_as(namespace)


class Issuer(msgspec.Struct, frozen=True):
    """An authority made by `greenroom certs`; its purpose is one of `PURPOSES`, or of a later release."""

    cluster: str
    purpose: str
    key_id: str


def parse_identity(uri: str) -> Identity:
    """Return the identity that a URI names. Raises UsageError."""
    match = _URI.fullmatch(uri)
    if match is None or (match[4] and match[2] != "client"):
        raise UsageError(
            f"{uri!r} is no identity; write greenroom://CLUSTER/ROLE/NAME, or for a client "
            "greenroom://CLUSTER/client/NAME?ns=NAMESPACE, where ROLE is one of "
            f"{', '.join(IDENTITY_ROLES)}, and names have at most {NAME_CHARACTERS_MAX} letters, digits, "
            "'.', '_' and '-', a letter or a digit first"
        )
    cluster, role, name, issued_for = match.groups(default="")
    return Identity(cluster, role, name, issued_for)  # type: ignore[arg-type]  # the pattern has the roles only


def identity_of(certificate: Mapping[str, Any]) -> Identity:
    """Return the identity in a verified certificate, as `ssl.SSLObject.getpeercert` returns it.

    Raises IdentityError unless it holds exactly one URI, which names an identity that its issuer may certify.
    Other alternative names, of hosts for example, mean nothing here.
    """
    uris = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        raise IdentityError(
            f"the certificate holds {len(uris) or 'no'} URIs, and must hold one, "
            "greenroom://CLUSTER/ROLE/NAME; issue another with `greenroom certs`"
        )
    try:
        identity = parse_identity(uris[0])
    except UsageError as error:
        raise IdentityError(f"the certificate names nobody: {error}") from None
    _check_issuer(issuer_of(certificate), identity)
    return identity


def issuer_of(certificate: Mapping[str, Any]) -> Issuer | None:
    """Return who issued a verified certificate, as `ssl.SSLObject.getpeercert` returns it.

    None: an authority that `greenroom certs` did not make.
    """
    names = [pair for relative in certificate.get("issuer", ()) for pair in relative]
    if ("organizationName", ORGANIZATION) not in names:
        return None
    found = dict(names)
    return Issuer(
        cluster=found.get("commonName", ""),
        purpose=found.get("organizationalUnitName", ""),
        key_id=found.get("dnQualifier", ""),
    )


def _check_issuer(issuer: Issuer | None, identity: Identity) -> None:
    """Raise IdentityError unless this authority may certify this identity."""
    if issuer is None:
        return
    if issuer.cluster != identity.cluster:
        raise IdentityError(
            f"the certificate names {identity.uri}, but its authority is that of cluster {issuer.cluster!r}"
        )
    if identity.role not in ROLES_OF.get(issuer.purpose, ()):
        raise IdentityError(
            f"the certificate names {identity.uri}, but its authority is for {issuer.purpose!r} and may not "
            f"certify the role {identity.role}"
        )
