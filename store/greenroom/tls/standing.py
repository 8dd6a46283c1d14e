"""Whether a certificate that was verified once counts still. Pure.

A connection lasts, and what it was verified by changes: a certificate ends, its serial number comes onto the
deny list, its authority is trusted no more. The standard library shows no chain of a peer before Python 3.13,
but a leaf names its issuer. Where no authority has that name, one between has issued it, and any authority
may have certified that; then the connection ends as soon as one of them is gone. Whoever is still trusted
connects again.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from greenroom.identities import Identity

Name: TypeAlias = tuple[Any, ...]
"""The subject of an authority or the issuer of a certificate, as `ssl` tells it."""
PATIENCE_SWEEPS = 60
"""For how many sweeps connections may go on whose authority is trusted no more."""
Authorities: TypeAlias = Mapping[Name, frozenset[bytes]]
"""By their names, the fingerprints of authorities: during a renewal two may have one name."""


def anchors_of(certificate: Mapping[str, Any], authorities: Authorities) -> frozenset[bytes]:
    """Return those of the authorities that may have certified a verified certificate."""
    named = authorities.get(certificate.get("issuer", ()))
    return frozenset().union(*authorities.values()) if named is None else named


class Proven(msgspec.Struct, frozen=True):
    """Who is at the other end, by which certificate, which ends at that time; who may have certified it.

    `shown` is the serial number of ours, if a newer one is to be shown as soon as there is one; else 0.
    """

    identity: Identity
    serial: int
    ends_at: float
    anchors: frozenset[bytes]
    shown: int = 0


class Objection(msgspec.Struct, frozen=True):
    """Why a connection must end, as a clause, and for how many sweeps it may go on.

    0: it ends at once. Infinity: it is replaced if it can be, and never ended.
    """

    reason: str
    patience_sweeps: float = 0

    @property
    def waits(self) -> bool:
        """Whether the connection may go on for a while."""
        return self.patience_sweeps > 0


class Trusted(msgspec.Struct, frozen=True):
    """Whom a process trusts now: fingerprints of authorities, and not these serial numbers.

    `shown` is the serial number of its own certificate.
    """

    authorities: frozenset[bytes]
    revoked: frozenset[int]
    shown: int = 0

    def objection(self, proven: Proven, wall_seconds: float) -> Objection | None:
        """Return why a connection must end by now, None if it need not."""
        if proven.serial in self.revoked:
            return Objection(f"its certificate is revoked (serial {proven.serial:X})")
        if proven.ends_at <= wall_seconds:
            return Objection("its certificate has ended")
        if not proven.anchors <= self.authorities:
            return Objection("the authority of its certificate is trusted no more", PATIENCE_SWEEPS)
        if proven.shown not in (0, self.shown):
            return Objection("our certificate was renewed", math.inf)
        return None
