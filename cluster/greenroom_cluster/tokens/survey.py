"""What an operator is told of tokens: whose, up to when, and what is to be done. Pure."""

from collections.abc import Iterable

import msgspec

from greenroom_cluster.tokens.entries import end_text
from greenroom_cluster.tokens.table import Bearer

DAY_SECONDS = 86_400.0
SOON_DAYS = 14
"""How long before its end a token is to be followed by another."""


class TokenShown(msgspec.Struct, frozen=True):
    """One token; `state` is valid, ended or revoked, and `problem` what is to be done, or empty."""

    id: str
    identity: str
    role: str
    namespace: str
    ends: str
    state: str
    problem: str = ""


def shown(bearer: Bearer, wall_seconds: float) -> TokenShown:
    """Return what is told of a token. The namespace is empty for `default`, and for observers."""
    left_days = (bearer.ends_at - wall_seconds) / DAY_SECONDS
    state, problem = "valid", ""
    if bearer.revoked:
        state = "revoked"
    elif left_days <= 0:
        state, problem = "ended", "it has ended: remove its line"
    elif left_days < SOON_DAYS:
        problem = f"it ends within {SOON_DAYS} days: issue another, and give that to the app"
    identity = bearer.identity
    return TokenShown(
        bearer.token_id,
        identity.uri,
        identity.role,
        identity.namespace,
        end_text(bearer.ends_at),
        state,
        problem,
    )


def valid_for_the_same(bearers: Iterable[Bearer], bearer: Bearer, wall_seconds: float) -> list[str]:
    """Return the ids of other tokens of the same holder that count still."""
    return [
        each.token_id
        for each in bearers
        if each.identity == bearer.identity
        and each.token_id != bearer.token_id
        and shown(each, wall_seconds).state == "valid"
    ]
