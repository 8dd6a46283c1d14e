"""Whose hello is served, and what the others are told."""

from typing import Any

import pytest
from msgspec.structs import replace

from greenroom import wire
from greenroom.identities import IDENTITY_ROLES, Identity
from greenroom.negotiation import hello
from greenroom.proofs import NONCE_BYTES, Challenge, Proof
from greenroom.tokens import new_token
from greenroom_cluster.links.handshake import (
    NOT_ALLOWED,
    SECRET_REQUIRED,
    AwaitProof,
    Door,
    Finish,
    Say,
    Serve,
    Tell,
    stamped,
)
from greenroom_cluster.links.places import BY_SECRET
from greenroom_cluster.shard.state.namespaces import CLIENT_ID_BYTES
from greenroom_cluster.tokens.table import Bearer, TokenTable, Uncertified

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


def test_who_is_served_is_served_before_the_answer_leaves() -> None:
    """What comes after the answer is then decoded by the agreement."""
    serve, say = DOOR.receive(hello("test", wire.ROLE_CLIENT, THEM), 5)
    assert isinstance(serve, Serve)
    assert say == Say(DOOR.welcome(5))


def test_who_is_refused_is_told_why_before_the_end() -> None:
    say, finish = DOOR.receive(hello("another", wire.ROLE_CLIENT, THEM), 5)
    assert isinstance(say, Say)
    assert isinstance(say.greeting, wire.Goodbye)
    assert finish == Finish("wrong-cluster", say.greeting.message)


CROWDED = wire.Goodbye("too-many-connections", "run fewer")


def crowded(role: str, holder: str) -> wire.Goodbye | None:
    return CROWDED if role == wire.ROLE_CLIENT else None


@pytest.mark.parametrize(
    ("cluster", "role", "code"),
    [
        ("test", wire.ROLE_CLIENT, "too-many-connections"),
        # A store with a wrong setting is told of that, which no waiting mends.
        ("another", wire.ROLE_CLIENT, "wrong-cluster"),
        ("test", wire.ROLE_PEER, None),
    ],
)
def test_a_crowd_keeps_only_clients_out(cluster: str, role: str, code: str | None) -> None:
    effects = DOOR.receive(hello(cluster, role, THEM, ME), 5, crowded)
    assert [each.code for each in effects if isinstance(each, Finish)] == ([] if code is None else [code])


def test_a_place_is_asked_for_whom_the_hello_proves_to_be_there() -> None:
    """For the holder of a certificate or token; for one who will prove the secret; else for nobody."""
    asked: list[tuple[str, str]] = []
    greeting = hello("test", wire.ROLE_CLIENT, THEM)
    client = Identity("test", "client", "web")
    kinds: list[tuple[wire.Hello, dict[str, Any]]] = [
        (greeting, {"identity": client}),
        (TOKEN.asking(greeting), {"uncertified": uncertified()}),
        (ASKS.asking(greeting), {"challenge": OURS}),
        (greeting, {}),
        (replace(greeting, cluster="another"), {"identity": client}),
    ]
    for each, proven in kinds:
        DOOR.receive(each, 5, lambda role, holder: asked.append((role, holder)), **proven)
    holders = ("greenroom://test/client/web", HOLDERS["client"].uri, BY_SECRET, "")
    assert asked == [(wire.ROLE_CLIENT, holder) for holder in holders]


ALLOWED = {
    ("node", wire.ROLE_PEER),
    ("node", wire.ROLE_ADMIN),
    ("coordinator", wire.ROLE_ADMIN),
    ("client", wire.ROLE_CLIENT),
    ("operator", wire.ROLE_OPERATOR),
    ("operator", wire.ROLE_ADMIN),
    ("observer", wire.ROLE_ADMIN),
}
ROLES = (wire.ROLE_CLIENT, wire.ROLE_PEER, wire.ROLE_OPERATOR, wire.ROLE_ADMIN)


@pytest.mark.parametrize("kind", IDENTITY_ROLES)
@pytest.mark.parametrize("role", ROLES)
def test_each_certificate_allows_the_roles_in_the_table(kind: Any, role: str) -> None:
    door = Door("test", ME, dict.fromkeys(ROLES, False))
    for cluster in ("test", "another"):
        effects = door.receive(hello("test", role, THEM), 5, identity=Identity(cluster, kind, "n1"))
        if (kind, role) in ALLOWED and cluster == "test":
            assert isinstance(effects[0], Serve)
            continue
        say, finish = effects
        assert say == Say(NOT_ALLOWED)
        assert isinstance(finish, Finish)
        assert finish.code == "not-allowed"
        assert f"greenroom://{cluster}/{kind}/n1" in finish.detail
        assert kind not in NOT_ALLOWED.message, "the other side is not told why"


def test_a_server_refuses_some_holders_in_whatever_role() -> None:
    door = Door("test", ME, dict.fromkeys(ROLES, False), frozenset({"coordinator"}))
    kinds: tuple[Any, ...] = ("coordinator", "observer")
    for kind in kinds:
        identity = Identity("test", kind, "n1")
        effects = door.receive(hello("test", wire.ROLE_ADMIN, THEM), 5, identity=identity)
        assert isinstance(effects[0], Serve) is (kind == "observer")
        assert (effects[0] == Say(NOT_ALLOWED)) is (kind == "coordinator")


def test_role_in_a_hello_counts_for_nothing_beside_the_certificate() -> None:
    """A role that is not served there is not told to who may not have it anyway."""
    say, _ = DOOR.receive(hello("test", wire.ROLE_ADMIN, THEM), 5, identity=Identity("test", "client", "web"))
    assert say == Say(NOT_ALLOWED)


OURS = Challenge(b"s" * 43, b"m" * NONCE_BYTES, "127.0.0.1:7400")
ASKS = Challenge(b"s" * 43, b"t" * NONCE_BYTES, "127.0.0.1:7400")


@pytest.mark.parametrize("role", ROLES)
def test_where_a_secret_is_demanded_nobody_is_served_without(role: str) -> None:
    door = Door("test", ME, dict.fromkeys(ROLES, False))
    assert door.receive(hello("test", role, THEM), 5, challenge=OURS) == [
        Say(SECRET_REQUIRED),
        Finish(SECRET_REQUIRED.code, SECRET_REQUIRED.message),
    ]
    assert "--secret-file" in SECRET_REQUIRED.message


@pytest.mark.parametrize("role", ROLES)
def test_who_has_proven_the_secret_is_served_and_nobody_else(role: str) -> None:
    door = Door("test", ME, dict.fromkeys(ROLES, False))
    asked = ASKS.asking(hello("test", role, THEM))
    say, awaited = door.receive(asked, 5, challenge=OURS)
    assert isinstance(say, Say)
    assert isinstance(say.greeting, wire.Hello)
    assert isinstance(awaited, AwaitProof)
    proof = ASKS.proof(asked, say.greeting)
    assert proof is not None
    assert door.proven(awaited, proof) == [Serve(awaited.agreement, holder=BY_SECRET)]
    for mac in (b"", bytes(32), say.greeting.auth[NONCE_BYTES:], proof.mac[:-1]):
        tell, finish = door.proven(awaited, Proof(mac))
        assert tell == Tell(NOT_ALLOWED)
        assert isinstance(finish, Finish)


def test_what_is_wrong_with_a_hello_comes_before_the_secret() -> None:
    """A store with the wrong name of the cluster has no secret of it either."""
    effects = DOOR.receive(hello("another", wire.ROLE_CLIENT, THEM), 5, challenge=OURS)
    (finish,) = effects[1:]
    assert isinstance(finish, Finish)
    assert finish.code == "wrong-cluster"


def test_secret_is_of_no_use_beside_a_certificate() -> None:
    client = Identity("test", "client", "web")
    greeting = ASKS.asking(hello("test", wire.ROLE_CLIENT, THEM))
    serve, say = DOOR.receive(greeting, 5, identity=client, challenge=OURS)
    assert isinstance(serve, Serve)
    assert say == Say(DOOR.welcome(5))


NOW = 1_000_000.0
TOKEN = new_token("web-1", lambda count: b"s" * count)
HOLDERS = {
    "client": Identity("test", "client", "web", "shop"),
    "observer": Identity("test", "observer", "web"),
}


def uncertified(kind: str = "client") -> Uncertified:
    return Uncertified(TokenTable([Bearer("web-1", TOKEN.digest, HOLDERS[kind], NOW + 1)]), NOW)


@pytest.mark.parametrize("kind", HOLDERS)
@pytest.mark.parametrize("role", ROLES)
def test_token_allows_what_the_certificate_of_its_holder_would(kind: Any, role: str) -> None:
    door = Door("test", ME, dict.fromkeys(ROLES, False))
    greeting = TOKEN.asking(hello("test", role, THEM))
    effects = door.receive(greeting, 5, uncertified=uncertified(kind))
    if (kind, role) in ALLOWED:
        serve, say = effects
        assert isinstance(serve, Serve)
        assert serve.bearer is not None
        assert serve.bearer.identity == HOLDERS[kind]
        assert say == Say(door.welcome(5)), "a token is answered by no proof, and is not sent back"
        return
    say, finish = effects
    assert say == Say(NOT_ALLOWED)
    assert isinstance(finish, Finish)
    assert not finish.guessed
    assert f"the token web-1 of greenroom://test/{kind}/web" in finish.detail


@pytest.mark.parametrize("role", ROLES)
def test_who_shows_neither_certificate_nor_token_is_refused(role: str) -> None:
    door = Door("test", ME, dict.fromkeys(ROLES, False))
    say, finish = door.receive(hello("test", role, THEM), 5, uncertified=uncertified())
    assert say == Say(NOT_ALLOWED)
    assert finish == Finish(NOT_ALLOWED.code, "it shows neither a certificate nor a token", guessed=True)


def test_token_of_another_cluster_is_refused() -> None:
    elsewhere = Bearer("web-1", TOKEN.digest, Identity("mall", "client", "web"), NOW + 1)
    greeting = TOKEN.asking(hello("test", wire.ROLE_CLIENT, THEM))
    say, finish = DOOR.receive(greeting, 5, uncertified=Uncertified(TokenTable([elsewhere]), NOW))
    assert say == Say(NOT_ALLOWED)
    assert isinstance(finish, Finish)
    assert "is for another cluster" in finish.detail


@pytest.mark.parametrize("challenge", [None, OURS])
def test_token_in_plaintext_is_refused_before_a_secret_counts(challenge: Challenge | None) -> None:
    greeting = TOKEN.asking(hello("test", wire.ROLE_CLIENT, THEM))
    for plaintext in ({}, {"uncertified": replace(uncertified(), secured=False)}):
        say, finish = DOOR.receive(greeting, 5, challenge=challenge, **plaintext)  # type: ignore[arg-type]
        assert say == Say(NOT_ALLOWED)
        assert finish == Finish(NOT_ALLOWED.code, "its token web-1 came in plaintext: revoke it")


def test_token_is_of_no_use_beside_a_certificate() -> None:
    observer = Identity("test", "observer", "grafana")
    greeting = TOKEN.asking(hello("test", wire.ROLE_CLIENT, THEM))
    say, finish = DOOR.receive(greeting, 5, identity=observer, uncertified=uncertified())
    assert say == Say(NOT_ALLOWED)
    assert isinstance(finish, Finish)
    assert "the certificate of greenroom://test/observer/grafana" in finish.detail


def test_client_is_known_by_its_holder_whatever_it_shows() -> None:
    """So a token may be replaced, or a certificate follow it, while requests are repeated."""
    greeting = TOKEN.asking(hello("test", wire.ROLE_CLIENT, THEM))
    serve, _ = DOOR.receive(greeting, 5, uncertified=uncertified())
    assert isinstance(serve, Serve)
    assert serve.bearer is not None
    certified = hello("test", wire.ROLE_CLIENT, THEM)
    assert stamped(greeting, serve.bearer.identity) == stamped(certified, HOLDERS["client"])
    assert stamped(greeting, serve.bearer.identity)[1] == "shop"


def test_client_is_known_by_its_identity_and_its_own_id() -> None:
    """Whoever shows the id of another gets nothing that is kept for that one: not even in its namespace."""
    greeting = hello("test", wire.ROLE_CLIENT, THEM)
    identities = [
        None,
        Identity("test", "client", "shop"),
        Identity("test", "client", "api", "shop"),
        Identity("test", "client", "shop", "default"),
        Identity("test", "client", "news"),
        Identity("other", "client", "shop"),
    ]
    known = [stamped(greeting, identity) for identity in identities]
    assert known[0] == (THEM, "")
    assert [namespace for _, namespace in known] == ["", "shop", "shop", "", "news", "shop"]
    assert len({client for client, _ in known}) == len(identities)
    assert {len(client) for client, _ in known} == {CLIENT_ID_BYTES}
    for identity in identities:
        assert stamped(hello("test", wire.ROLE_CLIENT, bytes(16)), identity) != stamped(greeting, identity)
