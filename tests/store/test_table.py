"""What a table of sessions decides, where no store can show it or only one of them would."""

from collections.abc import Iterable

import pytest

from greenroom import wire
from greenroom.fields import DATA_BYTES_MAX
from greenroom.ids import listed_as
from greenroom.table import StateTable
from greenroom.wire import FailureCode

NOW = 1_000_000
ALICE, BOB, CAROL = b"a" * 32, b"b" * 32, b"c" * 32
EMPTY = b"\x80"
ONE = b"\x81\xa1n\x01"


def create(
    digest: bytes, *, user: str | None = None, expires: int = NOW + 9, data: bytes = ONE
) -> wire.Create:
    return wire.Create(1, 1, 0, 7, digest, user, NOW, expires, None, "", data)


def table_of(*commands: wire.Create) -> StateTable:
    table = StateTable()
    for version, command in enumerate(commands, 1):
        assert table.create(command, 0, version) == wire.Written(1, version)
    return table


def patch(
    digest: bytes, values: Iterable[tuple[str, bytes]] = (), *, user: tuple[str | None] | None = None
) -> wire.Patch:
    return wire.Patch(2, 1, 0, 7, digest, tuple(((key,), value) for key, value in values), (), (), user, None)


def rotate(digest: bytes, new_digest: bytes, values: tuple[wire.PathValue, ...] = ()) -> wire.Rotate:
    return wire.Rotate(2, 1, 0, 7, digest, new_digest, values, (), None, None)


def test_a_session_is_not_rotated_to_its_own_digest() -> None:
    table = table_of(create(ALICE))
    refused = table.rotate(rotate(ALICE, ALICE), NOW, 2)
    assert isinstance(refused, wire.Failed)
    assert refused.code == FailureCode.INVALID
    assert table.live(ALICE, NOW) is not None


def test_a_session_is_not_rotated_over_a_live_one() -> None:
    table = table_of(create(ALICE), create(BOB))
    before = dict(table.sessions)
    assert table.rotate(rotate(ALICE, BOB), NOW, 3) == wire.Failed(2, FailureCode.EXISTS)
    assert table.sessions == before


def test_a_session_is_rotated_over_one_that_is_over() -> None:
    table = table_of(create(ALICE, user="u"), create(BOB, user="v", expires=NOW))
    shown = table.rotate(rotate(ALICE, BOB), NOW, 3)
    assert isinstance(shown, wire.Session)
    assert (shown.state.user_id, shown.state.version) == ("u", 3)
    assert table.sessions == {BOB: shown.state}
    assert table.users == {"u": {BOB}}


@pytest.mark.parametrize("data", [EMPTY, ONE])
def test_what_outgrows_the_limit_is_refused_and_changes_nothing(data: bytes) -> None:
    table = StateTable()
    table.create(create(ALICE, data=data), NOW, 1)
    before = dict(table.sessions)
    length = DATA_BYTES_MAX - 8
    large = (("long",), b"\xc6" + length.to_bytes(4, "big") + bytes(length))
    for refused in (
        table.patch(patch(ALICE, [("long", large[1])]), NOW, 2),
        table.rotate(rotate(ALICE, BOB, (large,)), NOW, 2),
    ):
        assert refused == wire.Failed(2, FailureCode.TOO_LARGE, f"{len(data) + 10 + length} bytes")
    assert table.sessions == before


def test_malformed_data_is_not_opened_unless_the_patch_is_about_it() -> None:
    table = table_of(create(ALICE, data=b"\xc1"))
    refused = table.patch(patch(ALICE, [("n", b"\x01")]), NOW, 2)
    assert isinstance(refused, wire.Failed)
    assert refused.code == FailureCode.INVALID
    shown = table.patch(patch(ALICE, user=("u",)), NOW, 3)
    assert isinstance(shown, wire.Session)
    assert (shown.state.user_id, shown.state.data) == ("u", b"\xc1")


def test_the_point_of_a_handle_decides_nothing() -> None:
    """It says which table to ask: pages of a log-out name none."""
    table = table_of(create(ALICE, user="u"))
    table.delete_by_handle(wire.DeleteByHandle(2, 1, 0, 0, ALICE, "somebody else"), NOW, 0)
    assert table.live(ALICE, NOW) is not None
    table.delete_by_handle(wire.DeleteByHandle(2, 1, 0, 0, ALICE, "u"), NOW, 0)
    assert table.live(ALICE, NOW) is None


def test_a_handle_ends_the_session_of_its_user() -> None:
    table = table_of(create(ALICE, user="u"), create(BOB, user="u"))
    assert table.digest_listed_as("u", listed_as(BOB)) == BOB
    assert table.digest_listed_as("v", listed_as(BOB)) == listed_as(BOB)
    table.delete_by_handle(wire.DeleteByHandle(2, 1, 0, 0, listed_as(BOB), "v"), NOW, 0)
    assert set(table.sessions) == {ALICE, BOB}
    table.delete_by_handle(wire.DeleteByHandle(2, 1, 0, 0, listed_as(BOB), "u"), NOW, 0)
    assert set(table.sessions) == {ALICE}


def test_counts_are_of_sessions_that_lived() -> None:
    commands = [create(ALICE, user="u"), create(BOB, user="u", expires=NOW), create(CAROL, user="u")]
    table = table_of(*commands)
    log_out = wire.DeleteByUser(2, 1, 0, "u", CAROL, (), removed=40)
    assert table.delete_by_user(log_out, NOW, 0) == wire.Counted(2, ((0, 41),))
    assert list(table.sessions) == [CAROL]
    table.delete_by_handle(wire.DeleteByHandle(2, 1, 0, 0, CAROL, "u"), NOW + 9, 0)
    assert (table.removed, table.users) == (0, {})


def test_a_clean_counts_what_is_over_unless_that_was_counted_before() -> None:
    table = table_of(create(ALICE, expires=NOW), create(BOB))
    assert table.clean(wire.Clean(2, 1, 0, (), removed=5), NOW, 0) == wire.Counted(2, ((0, 5),))
    assert len(table.sessions) == 2
    assert table.clean(wire.Clean(3, 1, 0, ()), NOW, 0) == wire.Counted(3, ((0, 1),))
    assert list(table.sessions) == [BOB]


def test_listings_are_in_order_of_creation_then_of_digest() -> None:
    table = table_of(create(BOB, user="u"), create(CAROL, user="u"), create(ALICE, user="u"))
    table.update(wire.Update(2, 1, 0, 7, ALICE, "u", NOW + 9, "", ONE, None), NOW, 9)
    listed, over = table.newest_of("u", 2, NOW)
    assert [entry.listed for entry in listed] == [listed_as(CAROL), listed_as(BOB)]
    assert over == []
    assert table.newest_of("u", 9, NOW + 9, over_max=2) == ([], [CAROL, BOB])


def test_every_kind_of_command_is_decided() -> None:
    kinds = {*wire.Mutation.__args__, wire.DeleteByUser, wire.Clean}  # type: ignore[attr-defined]  # a union has them
    assert StateTable().deciders().keys() == kinds
