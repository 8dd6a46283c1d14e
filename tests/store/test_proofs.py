"""What a proof that both sides know one secret is worth, and what it is bound to."""

from typing import Any

import pytest
from msgspec.structs import replace

from greenroom import wire
from greenroom.negotiation import hello
from greenroom.proofs import NONCE_BYTES, Challenge, NotProvenError, Proof, asks

SECRET = b"s" * 43
DIALS = Challenge(SECRET, b"c" * NONCE_BYTES, "127.0.0.1:7400")
ANSWERS = Challenge(SECRET, b"a" * NONCE_BYTES, "127.0.0.1:7400")
ASKED = DIALS.asking(hello("test", wire.ROLE_CLIENT, b"t" * 16, b"m" * 16))
WELCOME = hello("test", wire.ROLE_PEER, b"m" * 16)
ANSWER = ANSWERS.answering(ASKED, WELCOME)


def test_both_sides_prove_that_they_know_the_secret() -> None:
    proof = DIALS.proof(ASKED, ANSWER)
    assert proof is not None
    assert ANSWERS.accepts(ASKED, ANSWER, proof)


def test_neither_the_secret_nor_a_part_of_it_is_said() -> None:
    said = [ASKED.auth, ANSWER.auth, getattr(DIALS.proof(ASKED, ANSWER), "mac", b"")]
    assert not any(SECRET[:8] in each for each in said)
    assert "ssss" not in repr(DIALS)


@pytest.mark.parametrize("auth", [b"", b"x", ANSWERS.nonce, ANSWERS.nonce + bytes(32), ASKED.auth * 2])
def test_who_answers_proves_itself_first(auth: bytes) -> None:
    with pytest.raises(NotProvenError):
        DIALS.proof(ASKED, replace(ANSWER, auth=auth))


def test_who_answers_may_prove_nothing_where_that_is_accepted() -> None:
    lenient = replace(DIALS, required=False)
    assert lenient.proof(ASKED, WELCOME) is None
    with pytest.raises(NotProvenError):
        lenient.proof(ASKED, replace(WELCOME, auth=bytes(64)))


def test_own_proof_is_worth_nothing_when_it_comes_back() -> None:
    """In either direction: neither who dials nor who answers can show the other's proof as its own."""
    assert not ANSWERS.accepts(ASKED, ANSWER, Proof(ANSWER.auth[NONCE_BYTES:]))
    proof = DIALS.proof(ASKED, ANSWER)
    assert proof is not None
    with pytest.raises(NotProvenError):
        DIALS.proof(ASKED, replace(ANSWER, auth=ANSWERS.nonce + proof.mac))


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": b"t" * 43},
        # Who listens on another port cannot pass on what it is sent.
        {"address": "127.0.0.1:7401"},
        # Nor who listens on that port elsewhere on this host: what a name stands for may be either.
        {"address": "[::1]:7400"},
        {"address": "127.0.0.2:7400"},
    ],
)
def test_proof_of_another_secret_or_address_is_none(changes: dict[str, Any]) -> None:
    other = replace(ANSWERS, **changes)
    with pytest.raises(NotProvenError):
        DIALS.proof(ASKED, other.answering(ASKED, WELCOME))
    proof = DIALS.proof(ASKED, ANSWER)
    assert proof is not None
    assert not other.accepts(ASKED, ANSWER, proof)


@pytest.mark.parametrize(
    "changes",
    [
        {"auth": b"d" * NONCE_BYTES},
        {"cluster": "another"},
        {"role": wire.ROLE_OPERATOR},
        {"sender": b"u" * 16},
        {"target": b""},
        {"features": ()},
        {"protocol_max": 0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_proof_counts_for_the_hello_that_was_said(changes: dict[str, Any]) -> None:
    proof = DIALS.proof(ASKED, ANSWER)
    assert proof is not None
    assert not ANSWERS.accepts(replace(ASKED, **changes), ANSWER, proof)


def test_proof_of_another_connection_is_none() -> None:
    """Each answer has a nonce of its own, so what was overheard once opens nothing."""
    proof = DIALS.proof(ASKED, ANSWER)
    assert proof is not None
    later = replace(ANSWERS, nonce=b"b" * NONCE_BYTES)
    assert not later.accepts(ASKED, later.answering(ASKED, WELCOME), proof)


@pytest.mark.parametrize("mac", [b"", b"x", bytes(32), bytes(31), bytes(1000)])
def test_nonsense_is_no_proof(mac: bytes) -> None:
    assert not ANSWERS.accepts(ASKED, ANSWER, Proof(mac))


def test_a_hello_asks_for_a_proof_by_a_nonce() -> None:
    assert asks(ASKED)
    assert not asks(WELCOME)
    assert not asks(replace(WELCOME, auth=bytes(31)))
