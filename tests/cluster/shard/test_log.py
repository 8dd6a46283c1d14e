"""A shard's log: what it takes, what it gives, what it holds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom.errors import InvariantError
from greenroom_cluster.shard.messages import PEER_FRAME_BYTES_MAX, Prepare, ShardRecords
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.log import Log, record_bytes
from greenroom_cluster.shard.state.records import Command, Evict, Expire, ForgetClients, Record
from tests.cluster.shard.probe import ALICE, CLIENT, create, record


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


def restored(*, after: int, count: int, commands: dict[int, Command] | None = None) -> Log:
    """Return a log of records that were on a disk."""
    log = Log(after)
    numbers = range(after + 1, after + count + 1)
    bodies = [msgspec.msgpack.encode(record(each, (commands or {}).get(each))) for each in numbers]
    log.restore([msgspec.Raw(body) for body in bodies])
    return log


@given(
    st.integers(0, 12),
    st.lists(st.tuples(st.sampled_from(["read", "take", "trim", "cut", "append"]), st.integers(0, 9))),
)
def test_records_from_a_disk_are_like_those_that_came(count: int, changes: list[tuple[str, int]]) -> None:
    ours, plain = restored(after=10, count=count), filled(after=10, count=count)
    for change, number in changes:
        before = plain.first - 1
        through = min(before + number, plain.appended)
        if change == "read":
            reached, _ = ours.read_ahead(before, 100 * number + 1)
            assert reached > before or before == plain.appended
        elif change == "take":
            assert ours.take(before, through) == plain.take(before, through)
        elif change == "append":
            new = record(plain.appended + 1)
            for log in (ours, plain):
                log.append(new, 100, 1)
        else:
            for log in (ours, plain):
                (log.trim if change == "trim" else log.cut)(through)
        assert (ours.first, ours.appended) == (plain.first, plain.appended)
        assert ours.within(plain.first - 1, 1 << 20)[0] == plain.within(plain.first - 1, 1 << 20)[0]
        held = plain.records(plain.first - 1, plain.appended)
        assert ours.records(plain.first - 1, plain.appended) == held
        assert ours.receive(held)
    ours.trim(99)
    assert (ours.held_bytes, ours.charged_bytes) == (0, 0)


def test_what_is_costly_on_a_disk_shows_once_it_is_read() -> None:
    patch = wire.Patch(1, 1, 0, 0, ALICE, (), (), (), None, None)
    log = restored(after=0, count=6, commands={2: Evict((ALICE,)), 5: patch})
    assert log.read_ahead(0, 129)[0] == 1
    assert (log.costly_at, log.opening_at) == (0, 0)
    assert log.read_ahead(0, 1 << 20) == (1, 0), "what is read is applied first"
    assert log.read_ahead(1, 1 << 20)[0] == 6
    assert (log.costly_at, log.opening_at) == (2, 5)


def test_a_record_that_this_release_cannot_read_is_told() -> None:
    log = Log()
    log.restore([msgspec.Raw(msgspec.msgpack.encode([1, 1, 0, b"c", [99, 1]]))])
    with pytest.raises(InvariantError, match="none that this release can read"):
        log.read_ahead(0, 1)


def test_a_record_on_disk_in_the_place_of_another_is_told() -> None:
    log = Log()
    log.restore([msgspec.Raw(msgspec.msgpack.encode(record(2)))])
    with pytest.raises(InvariantError, match="record 2 is on disk in the place of 1"):
        log.read_ahead(0, 1)


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
