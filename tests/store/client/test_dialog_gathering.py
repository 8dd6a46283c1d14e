"""Operations that every shard answers: asked of each primary, again where no answer came, until all have."""

import pytest

from greenroom import wire
from greenroom.errors import OutcomeUnknownError, UnavailableError, UsageError
from tests.store.client.harness import ADDRESS, MS, SECOND, SEEDS, A, B, Script, cluster_map, connected


def handle(number: int) -> wire.SessionHandle:
    return wire.SessionHandle(0, bytes([number]) * 32, number, number, 9, "")


def test_each_primary_is_asked_for_its_shards_under_one_id() -> None:
    script, a, b = connected("ABAB")
    number = script.submit("delete_by_user")
    [to_a], [to_b] = script.requests(a), script.requests(b)
    assert (to_a.request_id, to_a.shards) == (number, (0, 2))
    assert (to_b.request_id, to_b.shards) == (number, (1, 3))
    script.send(a, wire.Counted(number, ((0, 1), (2, 2))))
    assert number not in script.outcomes
    script.send(b, wire.Counted(number, ((1, 0), (3, 4))))
    assert script.outcome(number).counts == ((0, 7),)


def test_shards_not_named_are_asked_again() -> None:
    script, a, _ = connected("AAAA")
    number = script.submit("clean")
    script.send(a, wire.Counted(number, ((0, 1), (1, 1))))
    script.pass_time(10 * MS)
    assert script.requests(a)[-1].shards == (2, 3)
    assert script.requests(a)[-1].age_ms >= 1
    script.send(a, wire.Counted(number, ((2, 1), (3, 1))))
    assert script.outcome(number).counts == ((0, 4),)


def test_listings_are_joined() -> None:
    script, a, b = connected("ABAB")
    number = script.submit("list_by_user")
    script.send(a, wire.Listing(number, (0, 2), (handle(1), handle(2))))
    script.send(b, wire.Listing(number, (3,), (handle(3),)))
    script.pass_time(10 * MS)
    assert script.requests(b)[-1].shards == (1,)
    script.send(b, wire.Listing(number, (1,), ()))
    assert script.outcome(number).sessions == (handle(1), handle(2), handle(3))


def test_moved_shards_are_asked_of_the_new_primary_after_a_reset() -> None:
    script, a, b = connected("AABB")
    number = script.submit("delete_by_user")
    script.send(b, wire.Counted(number, ((2, 1), (3, 1))))
    script.move("ABBB")
    assert script.aborted == [a]
    assert script.requests(b)[-1].shards == (1,)
    fresh = script.accept(ADDRESS[A])
    assert script.requests(fresh)[-1].shards == (0,)
    script.send(b, wire.Counted(number, ((1, 5),)))
    script.send(fresh, wire.Counted(number, ((0, 7),)))
    assert script.outcome(number).counts == ((0, 14),)


def test_lost_connection_asks_again() -> None:
    script, a, b = connected("AABB")
    number = script.submit("clean")
    script.lose(a, "reset")
    script.send(b, wire.Counted(number, ((2, 0), (3, 0))))
    script.pass_time(20 * MS)
    fresh = script.accept(ADDRESS[A])
    script.send(fresh, wire.Counted(number, ((0, 0), (1, 0))))
    assert script.outcome(number).counts == ((0, 0),)


def test_first_operation_may_be_one_for_all_shards() -> None:
    script = Script()
    number = script.submit("clean")
    script.send(script.accept(SEEDS[0]), wire.MapFull(cluster_map("AAAA")))
    link = script.accept(ADDRESS[A])
    script.send(link, wire.Counted(number, tuple((shard, 1) for shard in range(4))))
    assert script.outcome(number).counts == ((0, 4),)


@pytest.mark.parametrize("name", ["delete_by_user", "clean", "list_by_user"])
def test_partial_answer_at_the_deadline(name: str) -> None:
    script, a, _ = connected("AABB")
    number = script.submit(name)
    part = (
        wire.Listing(number, (0, 1), ()) if name == "list_by_user" else wire.Counted(number, ((0, 1), (1, 1)))
    )
    script.send(a, part)
    script.pass_time(6 * SECOND)
    error = script.outcome(number)
    if name == "list_by_user":
        assert isinstance(error, UnavailableError)
    else:
        assert isinstance(error, OutcomeUnknownError)
        assert error.harmless_to_repeat


@pytest.mark.parametrize("closed", [False, True], ids=["deadline", "closed"])
@pytest.mark.parametrize("name", ["delete_by_user", "clean"])
def test_a_shard_left_out_of_an_answer_may_have_applied(name: str, *, closed: bool) -> None:
    """A shard that lost its primary is left out of the answer, though its log may hold the request."""
    script, a, b = connected("AAAA")
    number = script.submit(name)
    script.send(a, wire.Counted(number, ()))
    script.move("BBBB")
    if closed:
        script.dialog.close(script.now)
        script.settle()
    else:
        script.lose(b)
        script.reaction = lambda address: script.lose(script.number_of(address))
        script.pass_time(6 * SECOND)
    error = script.outcome(number)
    assert isinstance(error, OutcomeUnknownError)
    assert error.harmless_to_repeat


def test_listing_that_leaves_shards_out_still_only_failed() -> None:
    script, a, _ = connected("AAAA")
    number = script.submit("list_by_user")
    script.send(a, wire.Listing(number, (), ()))
    script.dialog.close(script.now)
    assert isinstance(script.settle().outcome(number), UnavailableError)


def test_shard_that_was_not_asked_is_nonsense() -> None:
    script, a, b = connected("AABB")
    number = script.submit("clean")
    script.send(a, wire.Counted(number, ((3, 1),)))
    assert script.aborted == [a]
    assert b in script.open


def test_map_with_another_number_of_shards_starts_over() -> None:
    script, a, b = connected("AABB")
    number = script.submit("clean")
    script.send(b, wire.Counted(number, ((2, 1), (3, 1))))
    script.send(script.number_of(SEEDS[0]), wire.MapFull(cluster_map("BB", version=1, lineage=2)))
    assert a in script.aborted
    assert script.requests(b)[-1].shards == (0, 1)
    script.send(b, wire.Counted(number, ((0, 1), (1, 1))))
    assert isinstance(script.outcome(number), wire.Counted)


def test_low_waits_for_the_whole_gathering() -> None:
    script, a, b = connected("AABB")
    number = script.submit("clean")
    script.send(a, wire.Counted(number, ((0, 0), (1, 0))))
    script.submit("update", 0)
    assert script.requests(a)[-1].low == number
    script.send(b, wire.Counted(number, ((2, 0), (3, 0))))
    script.submit("update", 0)
    assert script.requests(a)[-1].low == number + 1


def test_a_refusal_for_good_ends_a_listing_and_not_its_connection() -> None:
    script, a, b = connected("AABB")
    number = script.submit("list_by_user")
    script.send(a, wire.Failed(number, wire.FailureCode.INVALID, "the answer cannot be sent"))
    error = script.outcome(number)
    assert isinstance(error, UsageError)
    assert "the answer cannot be sent" in str(error)
    assert {a, b} <= set(script.open)
    # What the other actor still answers is of no use, and no mistake.
    script.send(b, wire.Listing(number, (2, 3), ()))
    assert b in script.open


def test_a_refused_part_of_a_change_leaves_its_outcome_unknown() -> None:
    """One actor refuses its part for good; others may have done theirs."""
    script, a, b = connected("AABB")
    number = script.submit("delete_by_user")
    script.send(b, wire.Counted(number, ((2, 1), (3, 1))))
    script.send(a, wire.Failed(number, wire.FailureCode.INVALID, "no"))
    assert isinstance(script.outcome(number), OutcomeUnknownError)


def test_a_refusal_for_good_ends_a_read() -> None:
    script, a, _ = connected("AABB")
    number = script.submit("get")
    script.send(a, wire.Failed(number, wire.FailureCode.INVALID, "no"))
    assert isinstance(script.outcome(number), UsageError)
    assert a in script.open


def test_for_a_check_one_answer_is_enough() -> None:
    script, a, b = connected("AABB")
    number = script.submit("check")
    assert (script.requests(a)[-1].shards, script.requests(b)[-1].shards) == ((0, 1), (2, 3))
    script.send(b, wire.Listing(number, (), ()))
    assert number not in script.outcomes, "it answered that it serves none of them"
    script.send(a, wire.Listing(number, (1,), ()))
    assert isinstance(script.outcome(number), wire.Listing)
    script.pass_time(10 * SECOND)
    script.outcome(number)


def test_a_check_of_every_shard_waits_for_all() -> None:
    script, a, b = connected("AABB")
    number = script.submit("check_every_shard")
    script.send(a, wire.Listing(number, (0, 1), ()))
    assert number not in script.outcomes
    script.send(b, wire.Listing(number, (2, 3), ()))
    assert isinstance(script.outcome(number), wire.Listing)


def test_a_check_of_every_shard_names_who_did_not_answer() -> None:
    script, a, b = connected("AABB")
    number = script.submit("check_every_shard")
    script.send(a, wire.Listing(number, (0, 1), ()))
    script.pass_time(10 * SECOND)
    assert f"2 of 4 shards did not answer (the primary at {ADDRESS[B]} did not answer)" in str(
        script.outcome(number)
    )
    script.reaction = lambda address: script.lose(script.number_of(address))
    script.lose(b)
    number = script.submit("check_every_shard")
    script.send(a, wire.Listing(number, (0, 1), ()))
    script.pass_time(10 * SECOND)
    assert f"2 of 4 shards did not answer (the primary at {ADDRESS[B]} is unreachable (" in str(
        script.outcome(number)
    )


def test_a_check_fails_where_nobody_serves() -> None:
    script, _, _ = connected("ABAB")
    script.move("----")
    number = script.submit("check")
    script.pass_time(10 * SECOND)
    assert isinstance(script.outcome(number), UnavailableError)
