"""The parts of a replica one by one: log, expiry, kept results, clock, table, snapshots, settings."""

import gc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom.errors import InvariantError, UsageError
from greenroom_cluster.shard.fanout import Gather
from greenroom_cluster.shard.joining.snapshot import SnapshotReceiver, SnapshotSender
from greenroom_cluster.shard.messages import PEER_FRAME_BYTES_MAX, Prepare, ShardRecords
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.clock import BELIEVED_AHEAD_US, SLEW_DIVISOR, ShardClock
from greenroom_cluster.shard.state.expiry import BUCKET_US, ExpiryIndex
from greenroom_cluster.shard.state.log import Log, record_bytes
from greenroom_cluster.shard.state.records import Command, Evict, Expire, ForgetClients, KeptResult, Record
from greenroom_cluster.shard.state.results import ClientTable
from greenroom_cluster.shard.state.stored import decoded
from greenroom_cluster.shard.state.table import STALE_ENTRIES_MAX, SessionTable
from tests.cluster.shard.probe import ALICE, CLIENT, WALL_US, create, record

SECOND_US = 1_000_000
SECOND_NS = 1_000_000_000

# --- log ---------------------------------------------------------------------------------------------------


def filled(*, after: int = 0, count: int = 5) -> Log:
    log = Log(after)
    for sequence in range(after + 1, after + count + 1):
        log.append(record(sequence), record_bytes(record(sequence).command), 0)
    return log


def test_a_log_takes_only_the_next_record() -> None:
    log = filled()
    for sequence in (5, 7):
        with pytest.raises(InvariantError):
            log.append(record(sequence), record_bytes(record(sequence).command), 0)
    assert log.appended == 5


def test_a_record_that_comes_again_must_be_the_one_held() -> None:
    log = filled()
    log.trim(2)
    again = msgspec.msgpack.decode(
        msgspec.msgpack.encode([record(4), record(5), record(6)]), type=list[Record]
    )
    assert log.receive(again)
    assert log.appended == 6
    for changes in ({"epoch": 9}, {"time_us": 9}, {"client": b"m" * 16}, {"command": record(5).command}):
        with pytest.raises(InvariantError):
            log.receive([msgspec.structs.replace(record(4), **changes)])
    assert log.receive([msgspec.structs.replace(record(2), epoch=9)]), "what was applied is held no more"


def test_a_log_gives_what_it_holds_and_nothing_else() -> None:
    log = filled(after=10)
    log.trim(12)
    assert (log.first, log.appended) == (13, 15)
    size = record_bytes(record(14).command)
    assert log.within(13, 10 * size) == ((record(14), record(15)), 8 * size)
    assert log.within(13, 1) == ((record(14),), 1 - size)
    assert log.within(12, size + 1) == ((record(13), record(14)), 1 - size)
    assert log.within(13, 0) == ((), 0)
    assert log.within(15, 7) == ((), 7)
    assert [each.sequence for each in log.records(12, 14)] == [13, 14]
    assert log.records(15, 15) == []
    for after, through in ((11, 13), (14, 16)):
        with pytest.raises(InvariantError):
            log.records(after, through)


def test_what_is_taken_from_a_log_is_dropped_with_all_before() -> None:
    log = filled(after=10)
    for after, through in ((9, 11), (10, 16)):
        with pytest.raises(InvariantError):
            log.take(after, through)
    assert [each.sequence for each in log.take(11, 12)] == [12]
    assert (log.first, log.appended) == (13, 15)
    assert log.take(12, 12) == []
    assert [each.sequence for each in log.take(12, 15)] == [13, 14, 15]
    assert (log.first, log.held_bytes) == (16, 0)
    with pytest.raises(InvariantError):
        log.within(11, 1)


@given(st.lists(st.integers(0, 30), max_size=8))
def test_held_bytes_are_those_of_the_records_held(trims: list[int]) -> None:
    log = filled(count=20)
    for through in trims:
        log.trim(through)
        held = log.records(log.first - 1, log.appended)
        assert log.held_bytes == sum(record_bytes(each.command) for each in held)
    log.trim(99)
    assert (log.held_bytes, log.first) == (0, 21)


LONG = "x" * 1000
COMMANDS: list[Command] = [
    create(1, data=b"x" * 1000),
    wire.Create(1, 1, 0, 0, ALICE, LONG, 0, 0, None, LONG, b""),
    wire.Update(1, 1, 0, 0, ALICE, LONG, 0, LONG, b"x" * 1000, None),
    wire.Patch(
        1, 1, 0, 0, ALICE, ((("a", LONG), b"x" * 1000),), ((LONG, 7),), (((LONG,), b"x"),), (LONG,), 1
    ),
    wire.Rotate(1, 1, 0, 0, ALICE, ALICE, (((LONG,), b"x"),), ((LONG,),), (LONG,), 1),
    wire.Patch(1, 1, 0, 0, ALICE, (), tuple(((chr(97 + n),)) for n in range(26)), (), None, None),
    wire.Delete(1, 1, 0, 0, ALICE),
    wire.DeleteByHandle(1, 1, 0, 0, ALICE, LONG),
    wire.DeleteByUser(1, 1, 0, LONG, ALICE, ()),
    wire.Clean(1, 1, 0, ()),
    Expire((ALICE,) * 512),
    Evict((ALICE,) * 512),
    ForgetClients((CLIENT,) * 500, 1),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_record_is_never_larger_on_the_wire_than_it_is_counted(command: Command) -> None:
    """Else a batch that looks small would pass the limit of a frame, and break the pair's link."""
    framed = Prepare(1, (ShardRecords(0, 1, 0, (record(1, command),)),))
    assert len(msgspec.msgpack.encode(framed)) <= record_bytes(command) + 32
    assert 2 * (HostSettings().prepare_bytes_max + (1 << 20)) < PEER_FRAME_BYTES_MAX


# --- expiry index ------------------------------------------------------------------------------------------

MONTH_US = 30 * 86_400 * SECOND_US
SOME_TIME = st.one_of(st.integers(0, 60 * SECOND_US), st.integers(0, 10 * MONTH_US))


@given(
    st.lists(st.tuples(st.integers(0, 20), SOME_TIME), max_size=30),
    st.lists(SOME_TIME, max_size=6),
    st.integers(1, 4),
)
def test_the_index_finds_every_session_that_is_over_and_no_other(
    entered: list[tuple[int, int]], looks_at: list[int], looks: int
) -> None:
    index = ExpiryIndex()
    ends: dict[bytes, int] = {}
    for number, expires_us in entered:
        digest = bytes([number]) * 32
        # As the table does: an entry for what is new or ends earlier; a longer life costs none.
        if digest not in ends or expires_us < ends[digest]:
            index.enter(digest, expires_us, 0)
        ends[digest] = expires_us
    now = 0
    for look_us in [*sorted(looks_at), 11 * MONTH_US]:
        now = max(now, look_us)
        looked = looks
        while looked == looks:
            found, looked = index.due(now, ends.get, looks)
            assert len(found) <= looked <= looks
            for digest in found:
                if digest in ends:
                    assert ends.pop(digest) <= now
        assert all(expires_us > now - BUCKET_US for expires_us in ends.values())
    assert not ends
    assert index.entries == 0


def test_sessions_that_end_weeks_from_now_share_few_buckets() -> None:
    """Else each would cost a list of its own, and each sweep a look at all of them."""
    index = ExpiryIndex()
    for number in range(20_000):
        index.enter(number.to_bytes(32, "big"), number * 60 * SECOND_US, 0)
    assert len(index._buckets) < 80


def test_the_garbage_collector_does_not_look_at_what_is_indexed() -> None:
    """It would hold everybody up: 50 ms for a million entries."""
    index = ExpiryIndex()
    for number in range(10_000):
        index.enter(number.to_bytes(32, "big"), number % 3 * MONTH_US, 0)
    looked_at = {id(index): index}
    waiting = [index]
    while waiting:
        for found in gc.get_referents(waiting.pop()):
            if not isinstance(found, type) and id(found) not in looked_at:
                looked_at[id(found)] = found
                waiting.append(found)
    assert len(looked_at) < 20


def test_an_index_of_digests_takes_nothing_else() -> None:
    with pytest.raises(InvariantError, match="32 bytes, not 3"):
        ExpiryIndex().enter(b"abc", 0, 0)


def test_a_session_is_looked_at_a_handful_of_times_in_a_long_life() -> None:
    index = ExpiryIndex()
    end_us = 400 * 86_400 * SECOND_US + 5
    index.enter(ALICE, end_us, 0)
    seen = []
    while index.entries:
        (now,) = index._buckets
        found, looked = index.due(now, lambda _: end_us, 9)
        seen.append(looked)
    assert found == [ALICE]
    assert end_us < now <= end_us + BUCKET_US
    assert len(seen) <= 6


def test_deleted_sessions_do_not_pile_up_in_the_index() -> None:
    """They were deleted long before they expire."""
    table = SessionTable()
    for number in range(1, STALE_ENTRIES_MAX + 10):
        table.apply(record(2 * number - 1, create(number, number.to_bytes(32, "big"))))
        table.apply(record(2 * number, wire.Delete(number, 1, 0, 0, number.to_bytes(32, "big"))))
    table.due(WALL_US, 1)
    assert table.expiry.entries == 0


def test_a_session_that_lives_longer_moves_on_when_its_bucket_comes() -> None:
    index = ExpiryIndex()
    index.enter(ALICE, BUCKET_US, 0)
    assert index.due(2 * BUCKET_US, lambda _: 9 * BUCKET_US, 9) == ([], 1)
    assert index.due(10 * BUCKET_US, lambda _: 9 * BUCKET_US, 9) == ([ALICE], 1)


# --- kept results ------------------------------------------------------------------------------------------


def kept(table: ClientTable) -> set[int]:
    return {result.request_id for result in table.results()}


def test_answers_are_kept_until_the_client_confirms_them() -> None:
    table = ClientTable()
    for request_id in (1, 2, 3):
        table.keep(KeptResult(CLIENT, request_id, wire.Written(request_id, 1)), 1, 10 * request_id)
    assert kept(table) == {1, 2, 3}
    table.keep(KeptResult(CLIENT, 5, wire.Written(5, 1)), 3, 50)
    assert kept(table) == {3, 5}
    assert table.get(CLIENT).low == 3
    table.keep(KeptResult(CLIENT, 4, wire.Written(4, 1)), 2, 60)  # an older watermark takes nothing back
    assert table.get(CLIENT).low == 3
    table.keep(KeptResult(CLIENT, 2, wire.Written(2, 1)), 2, 70)
    assert kept(table) == {3, 4, 5}


def test_only_those_who_have_not_written_since_are_forgotten() -> None:
    table = ClientTable()
    table.keep(KeptResult(b"old", 1, wire.Written(1, 1)), 1, 10)
    table.keep(KeptResult(b"new", 1, wire.Written(1, 1)), 1, 20)
    assert table.silent_since(10) == (b"old",)
    table.forget((b"old", b"new", b"unknown"), 10)
    assert table.get(b"old") is None
    assert table.get(b"new") is not None


# --- clock -------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 20 * SECOND_NS), st.integers(-7200, 7200), st.booleans()), max_size=40)
)
def test_shard_time_never_goes_back_and_never_leaps(steps: list[tuple[int, int, bool]]) -> None:
    clock = ShardClock()
    now_ns, offset_us = 0, 0
    last_us = clock.read(now_ns, WALL_US)
    for elapsed_ns, jump_seconds, jumps in steps:
        now_ns += elapsed_ns
        if jumps:
            offset_us += jump_seconds * SECOND_US
        time_us = clock.read(now_ns, WALL_US + now_ns // 1000 + offset_us)
        # What is too short to be slewed is made up for by the next read.
        elapsed_us = elapsed_ns // 1000 + SLEW_DIVISOR
        assert last_us <= time_us <= last_us + elapsed_us + max(elapsed_us // 10, BELIEVED_AHEAD_US) + 1
        last_us = time_us


def test_a_clock_that_goes_right_is_followed() -> None:
    clock = ShardClock()
    for second in range(100):
        assert clock.read(second * SECOND_NS, WALL_US + second * SECOND_US) == WALL_US + second * SECOND_US
        assert clock.doubted_us == 0


def test_a_clock_far_ahead_is_reported_and_caught_up_with_slowly() -> None:
    clock = ShardClock()
    clock.read(0, WALL_US)
    time_us = clock.read(SECOND_NS, WALL_US + 3600 * SECOND_US)
    assert time_us == WALL_US + 1_100_000
    assert clock.doubted_us == WALL_US + 3600 * SECOND_US - time_us


def test_a_clock_behind_slows_time_down_but_does_not_stop_it() -> None:
    clock = ShardClock()
    clock.read(0, WALL_US)
    assert clock.read(10 * SECOND_NS, WALL_US - 3600 * SECOND_US) == WALL_US + 9 * SECOND_US
    assert clock.doubted_us == 0


def test_many_reads_in_short_time_do_not_stop_a_slewed_clock() -> None:
    clock = ShardClock()
    clock.read(0, WALL_US)
    for step in range(1, 100_001):
        clock.read(step * 1000, WALL_US - 3600 * SECOND_US)
    assert clock.last_us - WALL_US >= 80_000


def test_time_goes_on_at_takeover_from_what_was_heard_last() -> None:
    clock = ShardClock()
    clock.heard(WALL_US, 5 * SECOND_NS)
    clock.heard(WALL_US - 7, 6 * SECOND_NS)
    assert clock.read(15 * SECOND_NS, WALL_US - 3600 * SECOND_US) == WALL_US + 9 * SECOND_US


# --- snapshots ---------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(0, 12), st.integers(1, 4000))
def test_a_snapshot_in_chunks_is_the_whole_state(sessions: int, clients: int, chunk_bytes: int) -> None:
    table = SessionTable()
    for number in range(1, sessions + clients + 1):
        digest = number.to_bytes(32, "big")
        command = create(number, digest, b"x" * (number * 7 % 90))
        client = bytes([number % max(clients, 1)]) * 16
        table.apply(msgspec.structs.replace(record(number, command), client=client))
    sender = SnapshotSender(0, 1, 7, sessions + clients, table, chunk_bytes)
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


# --- the table ---------------------------------------------------------------------------------------------

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
            sender = SnapshotSender(0, 1, 7, number - 1, one, 300)
            receiver = SnapshotReceiver(sender.chunk(WALL_US), joiner := SessionTable(by_age=True))
            sender.next_number = 0
            sender = SnapshotSender(0, 1, 7, number - 1, one, 300)
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
            assert table.anonymous.keys() == nobodys
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


# --- gathering ---------------------------------------------------------------------------------------------


def test_a_fan_out_is_answered_once_and_names_the_shards_that_answered() -> None:
    effects: list = []
    gather = Gather(3, wire.DeleteByUser(9, 1, 0, "u", b"", (0, 1, 2)))
    for _ in range(3):
        gather.expect()
    gather.add(0, wire.Counted(9, ((0, 2),)), effects)
    gather.seal(effects)
    gather.add(2, wire.Redirect(9, 4), effects)
    assert effects == []
    gather.add(1, wire.Counted(9, ((0, 5),)), effects)
    (reply,) = effects
    assert (reply.connection, reply.message) == (3, wire.Counted(9, ((0, 2), (1, 5))))


def test_a_fan_out_that_no_shard_here_can_answer_is_answered_empty_at_once() -> None:
    effects: list = []
    Gather(3, wire.ListByUser(9, "u", 5, (0, 1))).seal(effects)
    assert effects[0].message == wire.Listing(9, (), ())


def test_a_listing_stops_at_its_limit() -> None:
    effects: list = []
    gather = Gather(3, wire.ListByUser(9, "u", 3, (0, 1)))
    handle = wire.SessionHandle(0, ALICE, 1, 2, 3, "")
    for shard in (0, 1):
        gather.expect()
        gather.add(shard, wire.Listing(9, (shard,), (handle, handle)), effects)
    gather.seal(effects)
    assert effects[0].message == wire.Listing(9, (0, 1), (handle,) * 3)


def test_a_listing_of_several_shards_has_the_order_of_each() -> None:
    """By creation, then by digest: the versions of two shards say nothing of each other."""
    effects: list = []
    gather = Gather(3, wire.ListByUser(9, "u", 3, (0, 1)))
    handles = [
        wire.SessionHandle(0, bytes([digest]) * 32, version, created, 9, "")
        for digest, version, created in ((3, 1, 5), (1, 8, 5), (2, 7, 5), (4, 9, 4))
    ]
    for shard, found in ((0, handles[:2]), (1, handles[2:])):
        gather.expect()
        gather.add(shard, wire.Listing(9, (shard,), tuple(found)), effects)
    gather.seal(effects)
    assert effects[0].message.sessions == (handles[0], handles[2], handles[1])


# --- settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"grace_seconds": 1.1}, "raise grace_seconds"),
        ({"lease_seconds": 1.2}, "lower lease_seconds"),
        ({"beacon_seconds": 0.51}, "beacon_seconds"),
        *(({name: 0}, name) for name in HostSettings.__struct_fields__),
    ],
)
def test_settings_that_would_break_a_promise_are_refused(names: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        HostSettings(**names)


def test_the_defaults_hold_together() -> None:
    settings = HostSettings()
    assert settings.forget_us == 50 * SECOND_US
