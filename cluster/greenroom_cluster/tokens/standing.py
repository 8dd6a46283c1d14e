"""Whether who is at the other end of a connection counts still, by a certificate or by a token. Pure."""

from math import inf
from typing import TypeAlias

import msgspec

from greenroom.tls.standing import Objection, Proven, Trusted
from greenroom_cluster.tokens.table import Bearer, TokenTable

Who: TypeAlias = Proven | Bearer


class Standing(msgspec.Struct, frozen=True):
    """Whom a process trusts now: by certificates, and by tokens if it takes any."""

    trusted: Trusted
    tokens: TokenTable | None = None

    def objection(self, proven: Who, wall_seconds: float) -> Objection | None:
        """Return why a connection must end by now, None if it need not."""
        if isinstance(proven, Proven):
            return self.trusted.objection(proven, wall_seconds)
        # It was let in, so there are tokens.
        reason = "" if self.tokens is None else self.tokens.objection(proven, wall_seconds)
        return Objection(reason) if reason else None

    def next_end(self, wall_seconds: float) -> float:
        """Return when the next token ends, in seconds since 1970."""
        return inf if self.tokens is None else self.tokens.next_end(wall_seconds)
