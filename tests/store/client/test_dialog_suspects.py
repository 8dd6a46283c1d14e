"""A request over which an actor breaks its connection off: nobody else waits for it, and it ends."""

import pytest

from greenroom import wire
from greenroom.dialog.suspects import BREAKS_ALONE_MAX, BREAKS_MAX, BREAKS_SUSPECT
from greenroom.errors import OutcomeUnknownError, UnavailableError
from tests.store.client.harness import ADDRESS, MS, A, B, Script, connected

PAUSE = 300 * MS
"""Longer than any pause before a connection is tried again."""


def reply_to(request: object) -> object:
    number = request.request_id  # type: ignore[attr-defined]  # every request has one
    match request:
        case wire.Get():
            return wire.Missing(number)
        case wire.ListByUser():
            return wire.Listing(number, request.shards, ())
        case wire.DeleteByUser() | wire.Clean():
            return wire.Counted(number, tuple((shard, 1) for shard in request.shards))
        case wire.Patch() | wire.Rotate():
            return wire.Failed(number, wire.FailureCode.NOT_FOUND)
        case _:
            return wire.Written(number, 1)


def accept_all(script: Script) -> None:
    """From now on whoever is dialled says hello."""

    def accept(_address: str) -> None:
        for number in list(script.opening):
            script.open[number] = script.opening.pop(number)
            script.dialog.opened(script.now, number)
            [hello] = script.settle().sent[number]
            script.send(
                number, wire.Hello(wire.PROTOCOL_VERSION, 1, "greenroom", "actor", hello.target or b"node")
            )

    script.reaction = accept


def pass_time(script: Script, ns: int) -> None:
    """Let time pass; what is being opened meanwhile, or already, is accepted."""
    assert script.reaction is not None
    script.reaction("")
    script.pass_time(ns)


def break_off(script: Script, times: int = BREAKS_SUSPECT) -> None:
    """The newest connection to A breaks."""
    for _ in range(times):
        script.lose(script.number_of(ADDRESS[A]), "reset")
        pass_time(script, PAUSE)


class Breaking:
    """Actor A breaks off each connection on which it finds the culprit, and answers what came before it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.culprits: set[int] = set()
        self.nonsense = b""
        """What the culprit is answered; by nothing the connection is broken off from there."""
        self.broken: list[list[int]] = []
        """What was unanswered on each connection that broke."""
        self._answered: dict[int, int] = {}
        accept_all(script)

    def serve(self) -> None:
        """Answer, or break off, whatever was sent, until nothing more comes."""
        script = self.script
        for number, address in list(script.open.items()):
            if address != ADDRESS[A]:
                continue
            requests = script.requests(number)
            done = self._answered.get(number, 0)
            fresh = requests[done:]
            self._answered[number] = len(requests)
            for index, request in enumerate(fresh):
                if request.request_id in self.culprits:
                    self.broken.append([each.request_id for each in fresh[index:]])
                    if self.nonsense:
                        script.send(number, self.nonsense)
                    else:
                        script.lose(number, "connection reset by peer")
                    break
                script.send(number, reply_to(request))

    def run(self, milliseconds: int) -> None:
        for _ in range(milliseconds):
            self.serve()
            pass_time(self.script, MS)


def breaking() -> tuple[Script, Breaking]:
    script, link, _ = connected("AAAA")
    actor = Breaking(script)
    actor._answered[link] = 0
    return script, actor


@pytest.mark.parametrize("name", ["get", "list_by_user"])
def test_a_read_over_which_connections_break_fails_soon(name: str) -> None:
    script, actor = breaking()
    number = script.submit(name)
    actor.culprits.add(number)
    actor.run(400)
    error = script.outcome(number)
    assert isinstance(error, UnavailableError)
    assert f"broke off {BREAKS_MAX} connections when it was asked this" in str(error)
    assert "connection reset by peer" in str(error)
    assert len(actor.broken) == BREAKS_MAX


@pytest.mark.parametrize("name", ["update", "delete", "patch", "rotate", "create", "delete_by_user"])
def test_of_a_change_it_is_not_known_whether_it_was_made(name: str) -> None:
    script, actor = breaking()
    number = script.submit(name)
    actor.culprits.add(number)
    actor.run(400)
    assert isinstance(script.outcome(number), OutcomeUnknownError)


@pytest.mark.parametrize("culprit", ["get", "patch", "list_by_user"])
def test_neighbours_are_taken_along_twice_and_never_again(culprit: str) -> None:
    script, actor = breaking()
    number = script.submit(culprit)
    actor.culprits.add(number)
    neighbours = [script.submit("get"), script.submit("patch"), script.submit("list_by_user")]
    late: list[int] = []
    for _ in range(40):
        actor.run(10)
        late.append(script.submit("get", shard=1))
    actor.run(20)
    for each in neighbours + late:
        assert not isinstance(script.outcome(each), Exception), each
    alone = actor.broken[BREAKS_SUSPECT:]
    assert alone == [[number]] * BREAKS_ALONE_MAX


def test_an_innocent_suspect_is_answered_beside_the_culprit() -> None:
    """Both were there each time: which of them it was shows only alone."""
    script, actor = breaking()
    innocents = [script.submit("get") for _ in range(5)]
    number = script.submit("patch")
    actor.culprits.add(number)
    held = [script.submit("patch") for _ in range(5)]
    # Nothing is answered before the connection breaks: all are suspects.
    break_off(script)
    actor._answered.clear()
    actor.run(600)
    assert isinstance(script.outcome(number), OutcomeUnknownError)
    for each in innocents + held:
        assert not isinstance(script.outcome(each), Exception)


def test_suspects_are_sent_one_at_a_time_beside_the_others() -> None:
    script, link, _ = connected("AAAA")
    accept_all(script)
    first, second = script.submit("patch"), script.submit("list_by_user")
    break_off(script)
    side = script.number_of(ADDRESS[A])
    assert [each.request_id for each in script.requests(side)] == [first]
    other = script.submit("get")
    pass_time(script, PAUSE)
    [main] = [n for n, at in script.open.items() if at == ADDRESS[A] and n != side]
    assert [each.request_id for each in script.requests(main)] == [other]
    [request] = script.requests(side)
    assert request.age_ms > 0, "it says that it is a repeat"
    script.send(side, reply_to(request))
    assert [each.request_id for each in script.requests(side)] == [first, second]
    script.send(side, reply_to(script.requests(side)[1]))
    assert script.closed == [side], "of no more use"
    assert main in script.open
    assert link not in script.open


def test_a_suspect_that_gets_no_answer_makes_way_at_its_deadline() -> None:
    script, _, _ = connected("AAAA", deadline_seconds=2.0)
    accept_all(script)
    first = script.submit("get")
    pass_time(script, 1_000 * MS)
    second = script.submit("get")
    break_off(script)
    side = script.number_of(ADDRESS[A])
    assert [each.request_id for each in script.requests(side)] == [first]
    pass_time(script, 1_000 * MS)
    assert isinstance(script.outcome(first), UnavailableError)
    assert [each.request_id for each in script.requests(side)] == [first, second]


def test_actors_that_die_make_nobody_a_suspect() -> None:
    """Each break is another actor's: the request goes on with the others, however often it meets one."""
    script, _, _ = connected("AAAA")
    accept_all(script)
    number = script.submit("patch")
    for primaries, lost in (("BBBB", A), ("AAAA", B)) * 3:
        script.lose(script.number_of(ADDRESS[lost]), "killed")
        script.move(primaries)
        pass_time(script, PAUSE)
    assert number not in script.outcomes


def test_suspects_follow_the_map() -> None:
    script, _, _ = connected("AAAA")
    accept_all(script)
    patch, listing, waiting = script.submit("patch"), script.submit("list_by_user"), script.submit("get")
    break_off(script)
    side = script.number_of(ADDRESS[A])
    script.move("BBBB")
    pass_time(script, PAUSE)
    assert side in script.aborted, "what is left in its buffers must not arrive after the repeat"
    assert not [n for n, at in script.open.items() if at == ADDRESS[A]]
    link = script.number_of(ADDRESS[B])
    asked = script.requests(link)
    assert sorted(each.request_id for each in asked) == sorted([patch, listing, waiting])
    for each in asked:
        script.send(link, reply_to(each))
    for number in (patch, listing, waiting):
        assert not isinstance(script.outcome(number), Exception)


def test_a_refused_suspect_is_asked_again_beside_the_others() -> None:
    script, _, _ = connected("AAAA")
    accept_all(script)
    number = script.submit("patch")
    break_off(script)
    side = script.number_of(ADDRESS[A])
    script.send(side, wire.Overloaded(number, "for a test"))
    pass_time(script, PAUSE)
    side = script.number_of(ADDRESS[A])
    script.send(side, reply_to(script.requests(side)[-1]))
    assert isinstance(script.outcome(number), wire.Failed)


UNKNOWN_TAG = b"\x00\x00\x00\x04\x91\x92\x7f\x01"
"""A frame with one message of kind 127."""


def test_a_reply_of_an_unknown_kind_ends_what_it_answers() -> None:
    """As of a later server: the frame cannot be read, so this side ends the connection."""
    script, actor = breaking()
    actor.nonsense = UNKNOWN_TAG
    number = script.submit("get")
    actor.culprits.add(number)
    neighbours = [script.submit("get"), script.submit("patch")]
    actor.run(400)
    error = script.outcome(number)
    assert isinstance(error, UnavailableError)
    assert "it broke the protocol: Invalid value" in str(error)
    assert len(script.aborted) == BREAKS_MAX
    for each in neighbours:
        assert not isinstance(script.outcome(each), Exception)
