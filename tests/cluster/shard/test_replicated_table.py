"""Replicas of a table agree, by records and by snapshots."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom.errors import InvariantError
from greenroom_cluster.shard.joining.snapshot import SnapshotReceiver, SnapshotSender
from greenroom_cluster.shard.messages import SnapshotChunk
from greenroom_cluster.shard.state.expiry import BUCKET_US
from greenroom_cluster.shard.state.records import (
    Command,
    EncodedSession,
    Evict,
    Expire,
    ForgetClients,
    Record,
    StoredSession,
)
from greenroom_cluster.shard.state.snapshot_parts import Part
from greenroom_cluster.shard.state.stored import decoded
from greenroom_cluster.shard.state.table import SessionTable
from tests.cluster.shard.probe import ALICE, CLIENT, WALL_US, create, record


@given(st.integers(0, 40), st.integers(0, 12), st.integers(1, 4000))
def test_a_snapshot_in_chunks_is_the_whole_state(sessions: int, clients: int, chunk_bytes: int) -> None:
    table = SessionTable()
    for number in range(1, sessions + clients + 1):
        digest = number.to_bytes(32, "big")
        command = create(number, digest, b"x" * (number * 7 % 90))
        client = bytes([number % max(clients, 1)]) * 16
        table.apply(msgspec.structs.replace(record(number, command), client=client))
    sender = SnapshotSender(0, 1, 7, (1, sessions + clients), table, chunk_bytes)
    before = table.fingerprint()
    receiver = None
    while not sender.finished:
        piece = sender.chunk(WALL_US)
        # The table goes on while it is sent.
        table.apply(
            record(1000 + piece.number, create(1000 + piece.number, bytes([piece.number % 256]) * 32))
        )
        if receiver is None:
            receiver = SnapshotReceiver(piece, SessionTable())
        receiver.take(piece)
        sender.acknowledged = piece.number
    assert receiver is not None
    assert receiver.complete
    assert sender.complete
    assert receiver.table.fingerprint() == before
    with pytest.raises(InvariantError):
        receiver.take(piece)


digests = st.sampled_from([bytes([number]) * 32 for number in range(4)])
users = st.sampled_from([None, "u", "v"])
paths = st.lists(st.sampled_from(["a", "b", 1]), min_size=0, max_size=3).map(tuple)
values = st.one_of(st.binary(max_size=6), st.sampled_from([b"\x01", b"\xa1x", b"\x81\xa1a\x01", b""]))
ends = st.integers(WALL_US - 5, WALL_US + 40)

commands = st.one_of(
    st.builds(
        lambda d, u, e, a, data: wire.Create(1, 1, 0, 0, d, u, WALL_US, e, a, "", data),
        digests,
        users,
        ends,
        st.none() | ends,
        values,
    ),
    st.builds(
        lambda d, u, e, data, version: wire.Update(1, 1, 0, 0, d, u, e, "", data, version),
        digests,
        users,
        ends,
        values,
        st.none() | st.integers(0, 9),
    ),
    st.builds(
        lambda d, s, u, x, user, e: wire.Patch(1, 1, 0, 0, d, s, u, x, user, e),
        digests,
        st.lists(st.tuples(paths, values), max_size=2).map(tuple),
        st.lists(paths, max_size=2).map(tuple),
        st.lists(st.tuples(paths, values), max_size=1).map(tuple),
        st.none() | st.tuples(users),
        st.none() | ends,
    ),
    st.builds(
        lambda d, n, s, user: wire.Rotate(1, 1, 0, 0, d, n, s, (), user, None),
        digests,
        digests,
        st.lists(st.tuples(paths, values), max_size=1).map(tuple),
        st.none() | st.tuples(users),
    ),
    st.builds(lambda d: wire.Delete(1, 1, 0, 0, d), digests),
    st.builds(lambda d: wire.DeleteByHandle(1, 1, 0, 0, d, "u"), digests),
    st.builds(lambda d: wire.DeleteByUser(1, 1, 0, "u", d, ()), digests),
    st.just(wire.Clean(1, 1, 0, ())),
    st.builds(lambda d: Expire((d, d)), digests),
    st.builds(lambda d: Evict((d, d)), digests),
    st.builds(lambda since: ForgetClients((CLIENT,), since), ends),
)


@given(st.lists(commands, max_size=25), st.integers(0, 25))
def test_replicas_agree_whatever_their_index_looks_like(script: list[Command], joined_at: int) -> None:
    """Any command applies to anything, and the same log gives the same state, also after a snapshot."""
    one, other = SessionTable(by_age=True), SessionTable()
    joiner: SessionTable | None = None
    for number, command in enumerate(script, 1):
        if number > joined_at and joiner is None:
            sender = SnapshotSender(0, 1, 7, (1, number - 1), one, 300)
            receiver = SnapshotReceiver(sender.chunk(WALL_US), joiner := SessionTable(by_age=True))
            sender.next_number = 0
            sender = SnapshotSender(0, 1, 7, (1, number - 1), one, 300)
            while not receiver.complete:
                receiver.take(sender.chunk(WALL_US))
        if type(command) not in (Expire, Evict, ForgetClients):
            command = msgspec.structs.replace(command, request_id=number)
        stamped = record(number, command)
        replies = {
            msgspec.msgpack.encode(table.apply(stamped))
            for table in (one, other, joiner)
            if table is not None
        }
        assert len(replies) == 1
        if number % 3 == 0:
            # A backup looks into its index at other times than a primary: that must not show.
            over, _ = other.due(stamped.time_us, number)
            for digest in over:
                other.expiry.enter(digest, other.sessions[digest].expires_us, stamped.time_us)
    prints = {table.fingerprint() for table in (one, other, joiner) if table is not None}
    assert len(prints) == 1
    for table in (one, joiner):
        if table is not None:
            assert table.anonymous is not None
            nobodys = {d for d, stored in table.sessions.items() if decoded(stored).user_id is None}
            assert set(table.anonymous) == nobodys
            assert len(table.anonymous) == len(nobodys)
    for table in (one, other):
        assert table.stored_bytes == sum(map(len, table.sessions.values()))
        for user in ("u", "v"):
            mine = sorted(d for d, stored in table.sessions.items() if decoded(stored).user_id == user)
            assert sorted(table.users.newest(user)) == mine
        for session in map(decoded, table.sessions.values()):
            assert session.absolute_us is None or session.expires_us <= session.absolute_us


def test_every_session_that_ends_is_found_by_its_replicas_index() -> None:
    table = SessionTable()
    table.apply(record(1, create(1)))
    table.apply(record(2, wire.Patch(2, 1, 0, 0, ALICE, (), (), (), None, WALL_US + 50)))
    assert table.due(WALL_US + 50 + BUCKET_US, 9) == ([ALICE], 1)
    table.apply(record(3, Expire((ALICE,))))  # not over at the record's time: found again
    assert ALICE in table.sessions
    assert table.due(WALL_US + 50 + BUCKET_US, 9) == ([ALICE], 1)


@pytest.mark.parametrize("number", [-1, -(1 << 63), (1 << 64) - 1])
def test_a_record_with_made_up_numbers_is_applied_like_any_other(number: int) -> None:
    table = SessionTable()
    table.apply(Record(number, number, WALL_US, b"c" * 16, create(1)))
    assert ALICE in table.sessions
    table.fingerprint()


def test_a_refused_patch_names_the_path_and_changes_nothing() -> None:
    table = SessionTable()
    held = msgspec.msgpack.encode({"cart": {"items": [1, 2]}, "n": 1})
    table.apply(record(1, wire.Create(1, 1, 0, 0, ALICE, None, WALL_US, WALL_US + 90, None, "", held)))
    one = b"\x01"
    through = (("cart", "items", 0), one)
    refused = table.apply(
        record(2, wire.Patch(2, 1, 0, 0, ALICE, ((("m",), one), through), (), (), None, None))
    )
    assert isinstance(refused, wire.Failed)
    assert (refused.code, refused.detail[:36]) == (
        wire.FailureCode.INVALID,
        'a list stands at ["cart", "items"], ',
    )
    rotate = wire.Rotate(3, 1, 0, 0, ALICE, b"n" * 32, (through,), (), None, None)
    assert table.apply(record(3, rotate)) == msgspec.structs.replace(refused, request_id=3)
    unmet = wire.Patch(4, 1, 0, 0, ALICE, (), (), ((("n",), one), (("cart", 7), one)), None, None)
    assert table.apply(record(4, unmet)) == wire.Failed(4, wire.FailureCode.CONFLICT, '["cart", 7]')
    assert decoded(table.sessions[ALICE]).data == held


USERS = st.sampled_from([None, "ann", "bob"])


@given(st.dictionaries(st.integers(0, 30), st.tuples(USERS, st.integers(1, 99))), st.booleans())
def test_a_snapshot_on_disk_is_what_was_sent(drawn: dict[int, tuple[str | None, int]], by_age: bool) -> None:
    sessions = [
        StoredSession(
            bytes([number]) * 32,
            wire.SessionState(number, WALL_US + 1000 * size, size, None, user, "", 0, b"x" * size),
        )
        for number, (user, size) in drawn.items()
    ]
    sent, kept = SessionTable(by_age=by_age), SessionTable(by_age=by_age)
    sent.install(sessions, WALL_US)
    for part in (sessions[:7], sessions[7:]):
        body = msgspec.msgpack.encode(part)
        kept.restore(msgspec.msgpack.decode(body, type=list[EncodedSession]), WALL_US)
    assert kept.sessions == sent.sessions
    assert kept.fingerprint() == sent.fingerprint()
    assert (kept.charged_bytes, kept.stored_bytes_max) == (sent.charged_bytes, sent.stored_bytes_max)
    assert list(kept.anonymous or ()) == list(sent.anonymous or ())
    assert kept.evictable_bytes == sent.evictable_bytes
    for user in ("ann", "bob"):
        assert kept.newest_of(user, 99, WALL_US) == sent.newest_of(user, 99, WALL_US)
    assert sorted(kept.due(WALL_US + 10**9, 99)[0]) == sorted(sent.due(WALL_US + 10**9, 99)[0])


def test_a_snapshot_on_disk_with_a_session_twice_is_refused() -> None:
    session = StoredSession(ALICE, wire.SessionState(1, WALL_US, 1, None, None, "", 0, b""))
    found = msgspec.msgpack.decode(msgspec.msgpack.encode([session] * 2), type=list[EncodedSession])
    with pytest.raises(InvariantError, match="twice"):
        SessionTable().restore(found, WALL_US)


def test_what_is_read_of_a_part_on_disk_is_its_beginning() -> None:
    fields = Part.__struct_fields__
    assert fields == SnapshotChunk.__struct_fields__[: len(fields)]
