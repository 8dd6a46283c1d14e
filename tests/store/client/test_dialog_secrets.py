"""What a dialog says on a connection on which a secret is to be proven."""

import msgspec
import pytest

from greenroom import wire
from greenroom.errors import UsageError
from greenroom.framing import FrameBuffer, encode_greeting, messages_decoder
from greenroom.negotiation import hello
from greenroom.proofs import NONCE_BYTES, Challenge, Proof
from tests.store.client.harness import SEEDS, Script

SECRET = b"s" * 43
OURS = Challenge(SECRET, b"c" * NONCE_BYTES, "127.0.0.1:1")
THEIRS = Challenge(SECRET, b"a" * NONCE_BYTES, "127.0.0.1:1")
NODE = b"n" * 16
_hello = msgspec.msgpack.Decoder(wire.Hello).decode
_proof = msgspec.msgpack.Decoder(Proof).decode
_messages = messages_decoder(wire.ClientMessage).decode


def asked(script: Script, address: str, challenge: Challenge = OURS) -> tuple[int, wire.Hello]:
    """A connection is established on which that is to be proven; return our hello."""
    number = script.number_of(address)
    script.open[number] = script.opening.pop(number)
    script.dialog.opened(script.now, number, challenge)
    [payload] = written(script, number)
    return number, _hello(payload)


def written(script: Script, number: int) -> list[bytes]:
    """Return the frames that are to be written on a connection."""
    data = b"".join(data for link, data in script.dialog.board.take_writes() if link == number)
    return FrameBuffer().feed(data)


def answer(script: Script, number: int, greeting: wire.Hello) -> None:
    script.dialog.received(script.now, number, encode_greeting(greeting))


def started(seeds: tuple[str, ...] = SEEDS) -> tuple[Script, int]:
    script = Script(seeds)
    return script, script.submit("update")


def test_proof_goes_before_the_first_request() -> None:
    script, _ = started()
    number, ours = asked(script, SEEDS[0])
    assert ours.auth == OURS.nonce
    welcome = THEIRS.answering(ours, hello("greenroom", wire.ROLE_PEER, NODE))
    answer(script, number, welcome)
    proof, subscription = written(script, number)
    assert THEIRS.accepts(ours, welcome, _proof(proof))
    assert [type(each) for each in _messages(subscription)] == [wire.Subscribe]


@pytest.mark.parametrize("auth", [b"", bytes(64), OURS.nonce * 2])
def test_who_proves_nothing_is_told_nothing(auth: bytes) -> None:
    """Nor is waited for: the caller is told whose mistake it is."""
    script, token = started(SEEDS[:1])
    number, _ = asked(script, SEEDS[0])
    answer(script, number, msgspec.structs.replace(hello("greenroom", wire.ROLE_PEER, NODE), auth=auth))
    assert written(script, number) == []
    script.settle()
    assert script.aborted == [number]
    error = script.outcome(token)
    assert isinstance(error, UsageError)
    assert "secret_file" in str(error)


def test_another_node_may_know_the_secret() -> None:
    """One address that somebody else has taken keeps nobody from the others."""
    script, token = started()
    number, _ = asked(script, SEEDS[0])
    answer(script, number, hello("greenroom", wire.ROLE_PEER, NODE))
    script.settle()
    assert token not in script.outcomes
    number, ours = asked(script, SEEDS[1])
    answer(script, number, THEIRS.answering(ours, hello("greenroom", wire.ROLE_PEER, NODE)))
    assert len(written(script, number)) == 2


def test_node_that_asks_for_a_secret_is_named() -> None:
    script, token = started(SEEDS[:1])
    number = script.establish(SEEDS[0])
    script.send(number, wire.Goodbye("secret-required", "name --secret-file"))
    error = script.outcome(token)
    assert isinstance(error, UsageError)
    assert "name --secret-file" in str(error)


def test_secret_that_cannot_be_read_ends_the_connection_unsaid() -> None:
    script, token = started(SEEDS[:1])
    number = script.number_of(SEEDS[0])
    script.dialog.unproven(script.now, number, "chmod 600 it")
    assert written(script, number) == []
    script.settle()
    assert script.aborted == [number]
    assert "chmod 600 it" in str(script.outcome(token))
