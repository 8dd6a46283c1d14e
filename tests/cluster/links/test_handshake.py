"""Whose hello is served, and what the others are told."""

from typing import Any

import pytest
from msgspec.structs import replace

from greenroom import wire
from greenroom.negotiation import hello
from greenroom_cluster.links.handshake import Door

ME = b"m" * 16
THEM = b"t" * 16
DOOR = Door("test", ME, {wire.ROLE_CLIENT: False, wire.ROLE_PEER: True})


@pytest.mark.parametrize(
    ("role", "changes", "code"),
    [
        (wire.ROLE_CLIENT, {}, None),
        (wire.ROLE_CLIENT, {"target": ME}, None),
        (wire.ROLE_CLIENT, {"target": THEM}, "wrong-target"),
        (wire.ROLE_PEER, {"target": ME}, None),
        (wire.ROLE_PEER, {}, "wrong-target"),
        (wire.ROLE_PEER, {"target": THEM}, "wrong-target"),
        (wire.ROLE_ADMIN, {}, "wrong-role"),
        (wire.ROLE_CLIENT, {"cluster": "another"}, "wrong-cluster"),
        (wire.ROLE_CLIENT, {"routing": wire.ROUTING_VERSION + 1}, "wrong-routing"),
        (wire.ROLE_CLIENT, {"protocol": 99}, "wrong-protocol"),
        (wire.ROLE_CLIENT, {"sender": b"short"}, "wrong-sender"),
        # What is wrong for good comes before what a map tells.
        (wire.ROLE_PEER, {"cluster": "another", "target": THEM}, "wrong-cluster"),
    ],
)
def test_a_hello_is_served_or_told_what_is_wrong_with_it(
    role: str, changes: dict[str, Any], code: str | None
) -> None:
    judged = DOOR.judge(replace(hello("test", role, THEM), **changes))
    assert (judged.code if isinstance(judged, wire.Goodbye) else None) == code


def test_the_answer_tells_who_it_is_and_what_its_clock_says() -> None:
    answer = DOOR.welcome(clock_us=5)
    assert (answer.role, answer.sender, answer.cluster, answer.clock_us) == (wire.ROLE_PEER, ME, "test", 5)
