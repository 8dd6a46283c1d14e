"""Simulated clusters whose apps show tokens, while somebody has copied these."""

import pytest
from msgspec.structs import replace

from greenroom import wire
from greenroom.identities import Identity
from simulations.cluster.connections import hello, identity_of, token_of
from simulations.mutants.stories import STOLEN
from simulations.plans.generation import make_plan
from simulations.runs.batch import run_plan
from simulations.runs.world import World

WEB = Identity("simulated", "client", "client1", "default")


def test_apps_with_tokens_go_on_while_these_are_replaced() -> None:
    """All calls are answered; who has copied a token is served until it is revoked, and refused then."""
    result = run_plan(STOLEN)[0]
    assert result.violations == []
    assert result.answered == result.operations == len(STOLEN.actions)
    assert result.faults["replace token"] == 2
    assert result.faults["served by a token"] > 10
    assert result.faults["bearer was cut off"] > 2
    assert result.faults["goodbye not-allowed"] > 50


def test_every_second_client_shows_a_token_and_no_certificate() -> None:
    world = World(STOLEN)
    first, second = world.clients
    assert (token_of(first), identity_of(first)) == (None, first.holder)
    assert token_of(second) is not None
    assert identity_of(second) is None
    assert second.holder == WEB


@pytest.mark.parametrize("way", ["right", "revoked", "guessed", "plaintext", "as a peer", "as another"])
def test_the_book_judges_by_itself_who_may_be_served(way: str) -> None:
    """Not by what the product decides, which is what the mutants break."""
    world = World(STOLEN)
    book, token = world.network.tokens, token_of(world.clients[1])
    assert token is not None
    if way == "revoked":
        book.revoke(token)
    greeting = token.asking(hello(wire.ROLE_PEER if way == "as a peer" else wire.ROLE_CLIENT, b"t" * 16))
    if way == "guessed":
        greeting = replace(greeting, auth=greeting.auth[:-4] + b"AAAA")
    identity = replace(WEB, name="another") if way == "as another" else WEB
    book.check_served(book.known, greeting, secured=way != "plaintext", identity=identity)
    assert [each.rule for each in world.violations] == ([] if way == "right" else ["tokens"])


def test_seeds_draw_tokens_and_when_they_are_replaced() -> None:
    plans = [plan for plan in map(make_plan, range(120)) if plan.tokens]
    assert 5 <= len(plans) <= 30
    for plan in plans:
        assert not plan.secret
        assert any(fault.kind == "replace token" for fault in plan.faults)
