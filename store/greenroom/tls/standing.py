"""Whether a certificate that was verified once counts still. Pure.

A connection lasts, and what it was verified by changes: a certificate ends, its serial number comes onto the
deny list, its authority is trusted no more. The standard library shows no chain of a peer before Python 3.13,
but a leaf names its issuer. Where no authority has that name, one between has issued it, and any authority
may have certified that; then the connection ends as soon as one of them is gone. Whoever is still trusted
connects again.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from greenroom.identities import Identity

Name: TypeAlias = tuple[Any, ...]
"""The subject of an authority or the issuer of a certificate, as `ssl` tells it."""
Authorities: TypeAlias = Mapping[Name, frozenset[bytes]]
"""By their names, the fingerprints of authorities: during a renewal two may have one name."""


def anchors_of(certificate: Mapping[str, Any], authorities: Authorities) -> frozenset[bytes]:
    """Return those of the authorities that may have certified a verified certificate."""
    named = authorities.get(certificate.get("issuer", ()))
    return frozenset().union(*authorities.values()) if named is None else named


class Proven(msgspec.Struct, frozen=True):
    """Who is at the other end, by which certificate, which ends at that time; who may have certified it."""

    identity: Identity
    serial: int
    ends_at: float
    anchors: frozenset[bytes]


class Trusted(msgspec.Struct, frozen=True):
    """Whom a process trusts now: fingerprints of authorities, and not these serial numbers."""

    authorities: frozenset[bytes]
    revoked: frozenset[int]

    def objection(self, proven: Proven, wall_seconds: float) -> str:
        """Return why a certificate counts no more, as a clause; empty if it does."""
        if proven.serial in self.revoked:
            return f"its certificate is revoked (serial {proven.serial:X})"
        if proven.ends_at <= wall_seconds:
            return "its certificate has ended"
        if not proven.anchors <= self.authorities:
            return "the authority of its certificate is trusted no more"
        return ""
