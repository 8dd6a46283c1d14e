"""Whose tokens are: what a server makes of the one in a hello, and whether it counts still. Pure.

Whoever shows an unknown token, a wrong secret, or none at all may be guessing. Whoever shows one that has
ended or is revoked had it once: that is a mistake, and no guess.
"""

import hmac
from collections.abc import Iterable
from math import inf

import msgspec

from greenroom.identities import Identity, IdentityRole
from greenroom.tokens import digest_of, id_in

TOKEN_ROLES: tuple[IdentityRole, ...] = ("client", "observer")
"""Who may have a token. Nodes, the coordinator and operators have certificates."""

_NOBODYS = bytes(32)


class Bearer(msgspec.Struct, frozen=True):
    """The holder of a token, by its entry in the file of tokens; the token ends at that time."""

    token_id: str
    digest: bytes
    identity: Identity
    ends_at: float
    revoked: bool = False


class Denied(msgspec.Struct, frozen=True):
    """Why a hello is not that of a bearer; `guessed`: it may be an attempt to find a token."""

    reason: str
    guessed: bool


class TokenTable:
    """All tokens that a server knows, by their ids."""

    def __init__(self, bearers: Iterable[Bearer] = ()) -> None:
        self._bearers = {each.token_id: each for each in bearers}

    def __len__(self) -> int:
        return len(self._bearers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}>"

    def judge(self, shown: bytes, wall_seconds: float) -> Bearer | Denied:
        """Return who has shown this in a hello, on a connection of TLS without a certificate."""
        token_id = id_in(shown)
        known = self._bearers.get(token_id)
        # Unknown ids take as long as known ones.
        is_right = hmac.compare_digest(digest_of(shown), _NOBODYS if known is None else known.digest)
        if known is None or not is_right:
            return Denied(_guess(shown, token_id, known), guessed=True)
        if objection := self.objection(known, wall_seconds):
            return Denied(objection, guessed=False)
        return known

    def objection(self, bearer: Bearer, wall_seconds: float) -> str:
        """Return why a token that was judged once counts no more, as a clause; empty if it does."""
        now = self._bearers.get(bearer.token_id)
        if now is None or now.revoked or (now.digest, now.identity) != (bearer.digest, bearer.identity):
            return f"its token {bearer.token_id} is revoked"
        if now.ends_at <= wall_seconds:
            return f"its token {bearer.token_id} has ended"
        return ""

    def next_end(self, wall_seconds: float) -> float:
        """Return when the next token ends, in seconds since 1970."""
        ends = (each.ends_at for each in self._bearers.values())
        return min((each for each in ends if each > wall_seconds), default=inf)


class Uncertified(msgspec.Struct, frozen=True):
    """A connection whose other side shows no certificate, and the tokens of which it may show one instead.

    `secured`: it is of TLS, so it must. A token that comes in plaintext is known to others, whoever sent it.
    """

    tokens: TokenTable
    wall_seconds: float
    secured: bool = True

    def judge(self, shown: bytes) -> Bearer | Denied | None:
        """Return who has shown this in a hello; None in plaintext, where nobody has to."""
        if self.secured:
            return self.tokens.judge(shown, self.wall_seconds)
        if token_id := id_in(shown):
            return Denied(f"its token {token_id} came in plaintext: revoke it", guessed=False)
        return None


PLAINTEXT = Uncertified(TokenTable(), 0.0, secured=False)


def _guess(shown: bytes, token_id: str, known: Bearer | None) -> str:
    if known is not None:
        return f"the secret of its token {token_id} is wrong"
    if token_id:
        return f"its token {token_id} is unknown"
    return "it shows neither a certificate nor a token" if not shown else "what it shows is no token"
