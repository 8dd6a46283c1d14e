"""Who must be at the other end of a connection, by the identity in its certificate."""

import msgspec

from greenroom.identities import Identity, IdentityRole
from greenroom.tls.channel import TlsError


class Demand(msgspec.Struct, frozen=True):
    """The other side is of this cluster, in one of these roles, and has this name unless it is empty."""

    cluster: str
    roles: tuple[IdentityRole, ...]
    name: str = ""

    def refusal(self, identity: Identity) -> str:
        """Return why the holder of a certificate is not meant; empty if it is."""
        is_named = not self.name or identity.name == self.name
        if identity.cluster == self.cluster and identity.role in self.roles and is_named:
            return ""
        wanted = " or ".join(f"greenroom://{self.cluster}/{role}/{self.name or '*'}" for role in self.roles)
        refusal = f"its certificate is that of {identity.uri}, and {wanted} must answer here"
        if identity.cluster != self.cluster:
            refusal += (
                f"; if the cluster {identity.cluster!r} is meant, name it with --cluster "
                "(GREENROOM_CLUSTER), or in a store's URL"
            )
        return refusal

    def check(self, identity: Identity) -> None:
        """Raise TlsError, saying who is there, unless that one is meant."""
        if refusal := self.refusal(identity):
            raise TlsError(refusal)


def node_of(cluster: str, name: str = "") -> Demand:
    """Return the demand that a node answers, and this one if a name is given."""
    return Demand(cluster, ("node",), name)
