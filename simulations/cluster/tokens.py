"""Tokens in a simulated cluster: the file that all servers read, and what apps show.

The table, what a token means, and when a connection must end are the product's. What is here knows from the
operator's side which tokens count, and judges who is served by that.
"""

from collections.abc import Callable
from random import Random

from msgspec.structs import replace

from greenroom import wire
from greenroom.identities import Identity
from greenroom.tokens import Token, new_token
from greenroom_cluster.links.handshake import ROLES
from greenroom_cluster.tokens.table import Bearer, TokenTable
from simulations.kernel.timeline import MILLISECOND

LOOK_NS = 100 * MILLISECOND
"""How often a server looks whether the file has changed."""
_NEVER = 1e12


class Known:
    """What a server has read of the file, at one time."""

    def __init__(self, bearers: dict[str, Bearer], texts: dict[bytes, Identity]) -> None:
        self.table = TokenTable(bearers.values())
        self._texts = texts

    def holder(self, shown: bytes) -> Identity | None:
        """Return to whom this token belongs, by what the operator had issued and not revoked then."""
        return self._texts.get(shown)


NOTHING_KNOWN = Known({}, {})


class TokenBook:
    """The tokens of a cluster, and which of them each app has."""

    def __init__(self, random: Random, violate: Callable[[str, str], None]) -> None:
        self.violate = violate
        self._random = random
        self._bearers: dict[str, Bearer] = {}
        self._texts: dict[bytes, Identity] = {}
        self._of: dict[str, Token] = {}
        self.stolen: list[Token] = []
        """What somebody has copied from the hosts of apps."""
        self.known = NOTHING_KNOWN

    def issue(self, holder: Identity) -> Token:
        """Issue a token, whose line is in the file from now on."""
        token = new_token(f"t{len(self._bearers)}", self._random.randbytes)
        self._bearers[token.id] = Bearer(token.id, token.digest, holder, _NEVER)
        self._texts[text_of(token)] = holder
        self._write()
        return token

    def give(self, app: str, token: Token) -> None:
        """Have an app show this token from now on."""
        self._of[app] = token

    def held_by(self, app: str) -> Token | None:
        """Return what an app shows; None for its certificate."""
        return self._of.get(app)

    def revoke(self, token: Token) -> None:
        """Revoke a token in the file."""
        self._bearers[token.id] = replace(self._bearers[token.id], revoked=True)
        self._texts.pop(text_of(token), None)
        self._write()

    def ids(self) -> list[str]:
        """Return the ids of all tokens, which are no secret."""
        return list(self._bearers)

    def _write(self) -> None:
        self.known = Known(self._bearers, dict(self._texts))

    def check_served(
        self, known: Known, greeting: wire.Hello, *, secured: bool, identity: Identity | None
    ) -> None:
        """Judge that a server that has read this serves somebody without a certificate."""
        holder = known.holder(greeting.auth) if secured else None
        if holder is None:
            self.violate("tokens", f"who shows no token that counts is served as {greeting.role}")
        elif greeting.role not in ROLES_OF_TOKENS[holder.role] or identity != holder:
            self.violate("tokens", f"the token of {holder.uri} is served as {greeting.role} of {identity}")


ROLES_OF_TOKENS = {"client": ROLES["client"], "observer": ROLES["observer"]}


def text_of(token: Token) -> bytes:
    """Return what a hello holds of a token."""
    return token.written().strip()
