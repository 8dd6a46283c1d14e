"""Who may say what of whom at the coordinator, and how large what they say may be."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom import wire
from greenroom.cluster_map import SHARDS_MAX, ActorEntry, NodeEntry
from greenroom.framing import FRAME_BYTES_MAX, encode_frames, messages_decoder
from greenroom_cluster.access import AT_COORDINATOR
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination.bounds import MAP_BYTES_MAX, is_address
from greenroom_cluster.coordination.draft import Draft
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.coordination.rules import EPOCH_LIMIT
from tests.cluster.coordination.builders import Desk, actor, cluster, inc, nonce, shard

A, B, C = inc("a"), inc("b"), inc("c")
PAIR = cluster((shard(A, (B,), epoch=3, wanted=("a/0", "b/0")),) * 2, (actor(A, "a/0"), actor(B, "b/0")))
OURS, THEIRS = b"supervisor of a", b"supervisor of b"


def settled() -> Desk:
    """Two nodes whose supervisors were heard."""
    desk = Desk(PAIR)
    for name, sender in (("a", OURS), ("b", THEIRS)):
        assert desk.ask(m.RegisterNode(1, PAIR.nodes[name]), sender) == m.Accepted(1)
    return desk


# --- a node speaks for its own ---------------------------------------------------------------------------


@pytest.mark.parametrize("reported", [(B,), (A, B), (C, B)])
def test_deaths_on_another_node_are_not_believed(reported: tuple[bytes, ...]) -> None:
    desk = settled()
    answer = desk.ask(m.ReportDead(1, reported), OURS)
    assert isinstance(answer, m.Rejected)
    assert desk.map is PAIR
    desk.actor(C, "a/0")
    assert C not in desk.map.actors or desk.map.actors[C].state == "up", "nothing of it was remembered"


def test_a_node_reports_its_own_deaths_and_those_of_whom_nobody_knows() -> None:
    desk = settled()
    assert desk.ask(m.ReportDead(1, (A, C)), OURS) == m.Accepted(1)
    assert desk.map.actors[A].state == "dead"
    assert isinstance(desk.ask(m.RegisterActor(2, actor(C, "a/0")), OURS), m.Rejected)


def test_a_stranger_reports_no_deaths() -> None:
    desk = settled()
    for reported in ((A, B), (A,), (C,)):
        assert isinstance(desk.ask(m.ReportDead(1, reported), b"stranger"), m.Rejected)
    assert desk.map is PAIR
    assert desk.ask(m.RegisterActor(2, actor(C, "a/0")), OURS) == m.Accepted(2)


def test_a_new_supervisor_reports_its_predecessors_deaths() -> None:
    """It does so once it has the name."""
    desk = settled()
    desk.close(OURS, desk.connection(OURS))
    assert isinstance(desk.ask(m.ReportDead(1, (A,)), b"successor"), m.Rejected)
    assert desk.ask(m.RegisterNode(1, PAIR.nodes["a"]), b"successor") == m.Accepted(1)
    assert desk.ask(m.ReportDead(1, (A,)), b"successor") == m.Accepted(1)
    assert desk.map.actors[A].state == "dead"


def test_after_a_start_deaths_may_come_before_anything_else() -> None:
    """A supervisor sends what was not answered before its next heartbeat."""
    desk = Desk(PAIR)
    assert desk.ask(m.ReportDead(1, (A,)), OURS) == m.Accepted(1)
    assert isinstance(desk.ask(m.ReportDead(1, (A,)), THEIRS), m.Rejected)
    assert desk.ask(m.ReportDead(1, (B,)), THEIRS) == m.Accepted(1)


def test_nobody_registers_actors_for_a_node_that_is_anothers() -> None:
    desk = settled()
    assert isinstance(desk.ask(m.RegisterActor(1, actor(C, "a/1")), THEIRS), m.Rejected)
    desk.close(OURS, desk.connection(OURS))
    for _ in range(12):
        desk.pass_seconds(0.25, "b")
    assert isinstance(desk.ask(m.RegisterActor(1, actor(C, "a/1")), THEIRS), m.Rejected), (
        "it is silent, not gone"
    )
    assert isinstance(desk.ask(m.RemoveNode(1, "a"), THEIRS), m.Rejected)
    assert C not in desk.map.actors


def test_an_incarnation_cannot_be_registered_away_from_its_node() -> None:
    desk = settled()
    assert isinstance(desk.ask(m.RegisterActor(1, actor(A, "b/1")), THEIRS), m.Rejected)
    assert desk.map.actors[A] == PAIR.actors[A]


@pytest.mark.parametrize("role", [wire.ROLE_PEER, wire.ROLE_ADMIN])
def test_only_an_operator_forgets(role: str) -> None:
    desk = Desk(PAIR)
    desk.pass_seconds(3, "a")
    before = desk.map
    answer = desk.ask(m.ForgetNode(1, "b"), b"somebody", role=role)
    assert isinstance(answer, m.Rejected)
    assert "operator" in answer.reason
    assert desk.map is before
    assert isinstance(desk.forget("b"), m.Accepted)


def test_who_subscribed_on_another_connection_does_not_propose_on_this() -> None:
    desk = Desk(PAIR)
    desk.ask(wire.Subscribe(0, 0), A, connection=1)
    removal = m.Propose(1, A, (m.Proposal(0, 3, nonce(1), "remove", A, ()),))
    assert isinstance(desk.ask(removal, A, connection=2), m.Rejected)
    desk.close(A, connection=1)
    assert isinstance(desk.ask(removal, A, connection=1), m.Rejected)


# --- patterns and bounds ---------------------------------------------------------------------------------

GOOD = (
    "a:1",
    "127.0.0.1:7400",
    "[::1]:7400",
    "[fe80::1%eth0]:1",
    "node-3.greenroom.svc.cluster.local.:65535",
    "_x:1",
)
BAD = (
    "", "a", ":1", "a:", "a:0", "a:65536", "a:1 ", " a:1", "a b:1", "a:1\n", "\x1b[2J:1", "a\x1b:1",
    "::1:7400", "[::1]", "[::1:7400", "[x]:1", "a:-1", "a:\u0661", "\xe9:1", "-a:1", "a" * 255 + ":1",
    "a:1:2", "[]:1",
)  # fmt: skip


def test_an_address_has_a_strict_pattern() -> None:
    assert [text for text in GOOD if not is_address(text)] == []
    assert [text for text in BAD if is_address(text)] == []


@pytest.mark.parametrize("address", BAD)
def test_a_malformed_address_is_not_registered(address: str) -> None:
    desk = settled()
    before = desk.map
    assert isinstance(desk.ask(m.RegisterNode(1, NodeEntry("a", address, "up")), OURS), m.Rejected)
    entry = ActorEntry(C, "a", "a/1", address, "up", "host", 1, 1)
    assert isinstance(desk.ask(m.RegisterActor(1, entry), OURS), m.Rejected)
    assert desk.map is before


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "H" * 600_000},
        {"host": "a host"},
        {"host": "\x1b[31m"},
        {"pid": -1},
        {"pid": 1 << 40},
        {"started_ticks": -1},
        {"started_ticks": (1 << 64) - 1},
        {"slot": "a/01"},
        {"slot": "a/10000"},
        {"slot": "b/0"},
        {"state": "replaced"},
        {"incarnation": b"x" * 17},
    ],
)
def test_what_an_actor_says_of_itself_is_bounded(changes: dict[str, object]) -> None:
    desk = settled()
    entry = msgspec.structs.replace(ActorEntry(C, "a", "a/1", "h:1", "up", "host", 1, 1), **changes)
    assert isinstance(desk.ask(m.RegisterActor(1, entry), OURS), m.Rejected)
    assert desk.map is PAIR


@pytest.mark.parametrize(
    "message",
    [
        m.ReportDead(1, (b"x" * 15,)),
        m.ReportDead(1, (b"x" * 16,) * 65_537),
        m.Propose(1, A, (m.Proposal(0, 1, nonce(1), "start", A, ()),) * 4097),
        m.Propose(1, b"x" * 17, ()),
        m.Propose(1, A, (m.Proposal(0, 1, nonce(1), "k" * 17, A, ()),)),
        m.Propose(1, A, (m.Proposal(0, 1, b"x" * 17, "start", A, ()),)),
        m.Propose(1, A, (m.Proposal(0, 1, nonce(1), "start", A, (B,) * 9),)),
        m.RemoveNode(1, "n" * 257),
        m.Heartbeat("n" * 257, 1, 1),
    ],
)
def test_what_nobody_means_honestly_is_not_decoded(message: object) -> None:
    decoder = messages_decoder(AT_COORDINATOR[wire.ROLE_PEER])
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(msgspec.msgpack.encode([message]))


def test_the_longest_answer_to_proposals_fits_into_a_frame() -> None:
    desk = Desk(PAIR)
    odd = m.Proposal((1 << 63) - 1, 1, b"n" * 16, "takeover", A, ())
    desk.subscribe(A)
    answer = desk.ask(m.Propose(1, A, (odd,) * m.PROPOSALS_MAX), A)
    assert isinstance(answer, m.Decided)
    assert len(encode_frames([answer])) < FRAME_BYTES_MAX


# --- the map fits into a frame, whatever is decided ------------------------------------------------------


def longest(replicas: int, name_length: int, durability: str) -> int:
    """Fill a map with all that may be registered, decide all that makes it longer; return its length."""
    draft = Draft(first_map("c" * 63, SHARDS_MAX, replicas))
    number = 0
    for number in range(40):
        name = f"{number:0>{name_length}}"
        if draft.register_node(NodeEntry(name, "h" * 200 + ":65535", "leaving")):
            break
        for index in range(256):
            slot = f"{name}/{index}"
            entry = ActorEntry(
                bytes([number, index]) * 8,
                name,
                slot,
                "h" * 200 + ":65535",
                "up",
                "h" * 128,
                1 << 31,
                1 << 62,
                durability,
                bytes([index, number]) * 8 if durability else b"",
                1 << 62 if durability else 0,
            )
            if draft.register_actor(entry):
                break
    slots = [one.slot for one in draft.actors.values()]
    members = list(draft.actors)
    if len(members) <= replicas:
        return len(msgspec.msgpack.encode(draft.finish()))
    draft.want(dict.fromkeys(range(SHARDS_MAX), tuple(slots[:replicas])))
    latest, backups = EPOCH_LIMIT - 2, tuple(members[1 : replicas + 1])
    draft.shards = [
        msgspec.structs.replace(entry, epoch=latest, primary=members[0], backups=backups, nonce=b"n" * 16)
        for entry in draft.shards
    ]
    for number in range(SHARDS_MAX):
        proposal = m.Proposal(number, latest, b"m" * 16, "add", members[0], tuple(members[1:8]))
        draft.propose(members[0], proposal)
    for incarnation, one in list(draft.actors.items()):
        draft.actors[incarnation] = msgspec.structs.replace(one, state="replaced")
    return len(encode_frames([wire.MapFull(draft.finish())]))


@settings(max_examples=6, deadline=None)
@given(
    replicas=st.integers(1, 3),
    name_length=st.integers(1, 63),
    durability=st.sampled_from(("", "interval", "fsync")),
)
def test_no_registration_or_decision_makes_a_map_longer_than_its_frame(
    replicas: int, name_length: int, durability: str
) -> None:
    assert longest(replicas, name_length, durability) <= MAP_BYTES_MAX


def test_a_map_is_full_before_it_is_too_long() -> None:
    desk = Desk(first_map("test", SHARDS_MAX, 2))
    desk.node("a")
    before = desk.map
    entries = [
        ActorEntry(number.to_bytes(16), "a", f"a/{number}", "h" * 200 + ":1", "up", "h" * 128, 1, 1)
        for number in range(2000)
    ]
    outcome = desk.batch(*((b"supervisor", m.RegisterActor(1, entry)) for entry in entries))
    answers = [response.message for response in outcome.responses]
    refused = [answer for answer in answers if isinstance(answer, m.Rejected)]
    assert refused
    assert "--actors" in refused[0].reason
    assert len(desk.map.actors) > len(before.actors), "there was room at first"
    assert len(encode_frames([wire.MapFull(desk.map)])) <= FRAME_BYTES_MAX
