"""What a server makes of a token, from the bytes that it gets and the time that it is given."""

import hmac
from math import inf

import pytest
from msgspec.structs import replace

from greenroom.identities import Identity
from greenroom.tokens import Token, new_token
from greenroom_cluster.tokens import table as table_module
from greenroom_cluster.tokens.table import PLAINTEXT, Bearer, Denied, TokenTable, Uncertified

WEB = Identity("shop", "client", "web")
NOW = 1_000_000.0


def token(token_id: str, fill: int = 1) -> Token:
    return new_token(token_id, lambda count: bytes([fill]) * count)


def bearer(token_id: str, fill: int = 1, ends_at: float = NOW + 60) -> Bearer:
    return Bearer(token_id, token(token_id, fill).digest, WEB, ends_at)


def shown(token_id: str, fill: int = 1) -> bytes:
    return token(token_id, fill).written().strip()


GONE = replace(bearer("gone", 3), revoked=True)
TABLE = TokenTable([bearer("a"), bearer("b", 2), GONE, bearer("old", 4, NOW)])


def test_who_shows_a_token_is_whose_it_is() -> None:
    assert TABLE.judge(shown("a"), NOW) == bearer("a")


@pytest.mark.parametrize(
    ("attempt", "reason", "guessed"),
    [
        (b"", "neither a certificate nor a token", True),
        (b"gt1.a.short", "is no token", True),
        (shown("nobody"), "its token nobody is unknown", True),
        (shown("a", 2), "the secret of its token a is wrong", True),
        # The secret of another, under a known id.
        (shown("b", 2).replace(b"gt1.b.", b"gt1.a."), "the secret of its token a is wrong", True),
        (shown("gone", 3), "its token gone is revoked", False),
        (shown("gone", 1), "the secret of its token gone is wrong", True),
        (shown("old", 4), "its token old has ended", False),
    ],
)
def test_anything_else_is_denied_and_only_a_guess_is_one(attempt: bytes, reason: str, guessed: bool) -> None:
    denied = TABLE.judge(attempt, NOW)
    assert isinstance(denied, Denied)
    assert reason in denied.reason
    assert denied.guessed is guessed


def test_no_reason_shows_a_secret() -> None:
    for attempt in (shown("nobody"), shown("a", 2), shown("gone", 3), b"gt1.a." + b"x" * 42):
        denied = TABLE.judge(attempt, NOW)
        assert isinstance(denied, Denied)
        assert attempt[-20:].decode() not in denied.reason


def test_digests_are_compared_in_constant_time_for_unknown_ids_too(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    original = hmac.compare_digest

    def compare(ours: bytes, theirs: bytes) -> bool:
        compared.append((len(ours), len(theirs)))
        return original(ours, theirs)

    monkeypatch.setattr(table_module.hmac, "compare_digest", compare)
    for attempt in (b"", shown("nobody"), shown("a", 2), shown("a")):
        TABLE.judge(attempt, NOW)
    assert compared == [(32, 32)] * 4


def test_bearer_counts_until_something_is_against_it() -> None:
    known = bearer("a")
    assert TABLE.objection(known, NOW) == ""
    assert TABLE.objection(known, NOW + 59.9) == ""
    assert TABLE.objection(known, NOW + 60) == "its token a has ended"
    for changed in (
        [],
        [bearer("b", 2)],
        [replace(known, revoked=True)],
        [replace(known, digest=token("a", 9).digest)],
        [replace(known, identity=Identity("shop", "client", "web", "other"))],
    ):
        assert TokenTable(changed).objection(known, NOW) == "its token a is revoked"
    assert TokenTable([replace(known, ends_at=NOW + 90)]).objection(known, NOW + 60) == ""


def test_next_end_is_that_of_the_first_that_counts_still() -> None:
    assert TABLE.next_end(NOW) == NOW + 60
    assert TABLE.next_end(NOW - 1) == NOW
    assert TABLE.next_end(NOW + 60) == inf


def test_token_in_plaintext_is_refused_and_nothing_else_is() -> None:
    denied = PLAINTEXT.judge(shown("a"))
    assert denied == Denied("its token a came in plaintext: revoke it", guessed=False)
    assert replace(Uncertified(TABLE, NOW), secured=False).judge(shown("a")) == denied
    assert PLAINTEXT.judge(b"") is None
    assert PLAINTEXT.judge(bytes(32)) is None, "that is the nonce of who proves a secret"
    assert Uncertified(TABLE, NOW).judge(shown("a")) == bearer("a")
