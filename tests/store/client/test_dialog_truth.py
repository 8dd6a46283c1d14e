"""What a caller is told when an operation gets no answer: "not applied" only if no attempt can have been."""

from collections.abc import Callable

import pytest

from greenroom import wire
from greenroom.errors import OutcomeUnknownError, UnavailableError, UsageError
from tests.store.client.harness import ADDRESS, MS, SECOND, SEEDS, A, Script, cluster_map, connected

READS = ["get", "list_by_user"]
HARMLESS = ["update", "delete", "patch", "delete_by_handle", "delete_by_user", "clean"]
HARMFUL = ["create", "update_if", "patch_if", "rotate"]
MUTATIONS = HARMLESS + HARMFUL
SINGLES = ["get", "update", "delete", "patch", "delete_by_handle", *HARMFUL]
ALL = READS + MUTATIONS

Situation = Callable[[str], tuple[Script, int]]


def no_node_answers(name: str) -> tuple[Script, int]:
    script = Script()
    number = script.submit(name)
    script.reaction = lambda address: script.lose(script.number_of(address))
    return script, number


def node_without_map(name: str) -> tuple[Script, int]:
    script = Script()
    number = script.submit(name)
    script.accept(SEEDS[0])
    return script, number


def one_seed_in_the_wrong(name: str) -> tuple[Script, int]:
    """The other may still turn out to be a node."""
    script = Script()
    number = script.submit(name)
    goodbye = wire.Goodbye("wrong-cluster", "this is cluster 'other'")

    def react(address: str) -> None:
        if address == SEEDS[0]:
            script.send(script.establish(address), goodbye)
        else:
            script.lose(script.number_of(address))

    script.reaction = react
    for seed in SEEDS:
        react(seed)
    return script, number


def no_primary(name: str) -> tuple[Script, int]:
    script, _, _ = connected()
    script.move("----")
    return script, script.submit(name)


def primary_dead(name: str) -> tuple[Script, int]:
    script, _, _ = connected("AAAA")
    dead = {
        i: type(e)(*[*(getattr(e, f) for f in e.__struct_fields__[:4]), "dead", "h", 1, 1])
        for i, e in cluster_map().actors.items()
    }
    script.publish(cluster_map("AAAA", version=2, actors=dead))
    return script, script.submit(name)


def primary_unreachable(name: str) -> tuple[Script, int]:
    script, link, _ = connected("AAAA")
    script.reaction = lambda address: script.lose(script.number_of(address))
    script.lose(link)
    return script, script.submit(name)


def primary_silent_at_hello(name: str) -> tuple[Script, int]:
    script, link, _ = connected("AAAA")
    script.lose(link)
    number = script.submit(name)
    script.pass_time(20 * MS)
    script.establish(ADDRESS[A])
    return script, number


def always(reply: Callable[[int], object]) -> Situation:
    def situation(name: str) -> tuple[Script, int]:
        script, link, _ = connected("AAAA")
        number = script.submit(name)
        answered = 0
        while number not in script.outcomes:
            for _ in script.requests(link)[answered:]:
                answered += 1
                script.send(link, reply(number))
            script.pass_time(MS)
        return script, number

    return situation


def moved_after_redirect(name: str) -> tuple[Script, int]:
    script, link, _ = connected("AAAA")
    number = script.submit(name)
    script.send(link, wire.Redirect(number, 2))
    script.move("----")
    return script, number


NOT_APPLIED = {
    "no_node_answers": (no_node_answers, "no node has sent the cluster map.*connection refused"),
    "node_without_map": (node_without_map, "no node has sent the cluster map"),
    "wrong_cluster": (one_seed_in_the_wrong, "wrong-cluster"),
    "no_primary": (no_primary, "shard 0 has not been started"),
    "primary_dead": (primary_dead, "no other has taken over"),
    "primary_unreachable": (primary_unreachable, "unreachable .connection refused"),
    "primary_silent_at_hello": (primary_silent_at_hello, "did not accept|no answer in time|no connection"),
    "redirected": (always(lambda n: wire.Redirect(n, 1)), "does not serve that shard"),
    "overloaded": (always(lambda n: wire.Overloaded(n, "too many clients")), "overloaded: too many clients"),
    "moved_after_redirect": (moved_after_redirect, "shard 0 has not been started|does not serve"),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("situation", NOT_APPLIED)
def test_not_applied(name: str, situation: str) -> None:
    arrange, says = NOT_APPLIED[situation]
    script, number = arrange(name)
    script.pass_time(6 * SECOND)
    error = script.outcome(number)
    assert isinstance(error, UnavailableError)
    with pytest.raises(UnavailableError, match=says):
        raise error
    for told in ("deadline_seconds=5", "Repeating it is safe", name.removesuffix("_if")):
        assert told in str(error)
    assert ("`greenroom health`" in str(error)) == ("sent the cluster map" not in str(error))


def never_answered(name: str) -> tuple[Script, int]:
    script, _, _ = connected("AAAA")
    return script, script.submit(name)


def lost_after_sending(name: str) -> tuple[Script, int]:
    script, link, _ = connected("AAAA")
    number = script.submit(name)
    script.lose(link, "reset")
    return script, number


def reset_by_a_move(name: str) -> tuple[Script, int]:
    script, link, _ = connected("AAAA")
    number = script.submit(name)
    script.move("----")
    assert script.aborted == ([] if name == "get" else [link])
    return script, number


def lost_then_refused(name: str) -> tuple[Script, int]:
    """The second attempt's refusal says nothing of the first, which may still be under way."""
    script, link, _ = connected("AAAA")
    number = script.submit(name)
    script.lose(link, "reset")
    script.pass_time(20 * MS)
    link = script.accept(ADDRESS[A])
    script.send(link, wire.Overloaded(number, "busy"))
    script.lose(link)
    return script, number


def nonsense_for_an_answer(name: str) -> tuple[Script, int]:
    script, link, _ = connected("AAAA")
    number = script.submit(name)
    script.send(link, b"\xff" * 8)
    return script, number


UNKNOWN = {
    "never_answered": never_answered,
    "lost_after_sending": lost_after_sending,
    "reset_by_a_move": reset_by_a_move,
    "lost_then_refused": lost_then_refused,
    "nonsense": nonsense_for_an_answer,
    "appended": always(lambda n: wire.Redirect(n, 1, appended=True)),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("situation", UNKNOWN)
def test_perhaps_applied(name: str, situation: str) -> None:
    script, number = UNKNOWN[situation](name)
    script.pass_time(6 * SECOND)
    error = script.outcome(number)
    assert "deadline_seconds=5" in str(error)
    if name in READS:
        assert isinstance(error, UnavailableError), "a read changes nothing"
        return
    assert isinstance(error, OutcomeUnknownError)
    assert error.harmless_to_repeat == (name in HARMLESS)
    assert ("harmless" in str(error)) == (name in HARMLESS)


@pytest.mark.parametrize("name", MUTATIONS)
def test_forgotten_client_cannot_know(name: str) -> None:
    script, link, _ = connected("AAAA")
    number = script.submit(name)
    script.send(link, wire.Unknowable(number, "idle too long"))
    error = script.outcome(number)
    assert isinstance(error, OutcomeUnknownError)
    assert "idle too long" in str(error)
    assert link in script.open


@pytest.mark.parametrize("name", SINGLES)
def test_refusal_then_answer(name: str) -> None:
    script, link, _ = connected("AAAA")
    number = script.submit(name)
    script.send(link, wire.Overloaded(number, "busy"))
    script.pass_time(10 * MS)
    first, second = script.requests(link)
    assert second.request_id == first.request_id
    if name != "get":
        assert second.age_ms == 0
    answer = (
        wire.Session(number, wire.SessionState(1, 1, 0, None, None, "", 0, b"\x80"))
        if name in ("get", "patch", "patch_if", "rotate")
        else wire.Written(number, 4)
    )
    script.send(link, answer)
    assert script.outcome(number) == answer


def test_deadline_beside_a_repeat_tells_the_last_refusal() -> None:
    """A refused request is repeated; the deadline may come while the last repeat is on its way."""
    script, link, _ = connected("AAAA")
    number = script.submit("get")
    script.send(link, wire.Overloaded(number, "shard 3 is suspended"))
    script.pass_time(6 * SECOND)
    assert len(script.requests(link)) == 2
    error = script.outcome(number)
    assert isinstance(error, UnavailableError)
    assert f"the primary at {ADDRESS[A]} did not answer" in str(error)
    assert "the attempt before: overloaded: shard 3 is suspended" in str(error)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("sent", [True, False])
def test_closing_is_truthful(name: str, sent: bool) -> None:
    script, _, _ = connected("AAAA" if sent else "AAAB")
    if not sent:
        script.move("----")
    number = script.submit(name)
    script.dialog.close(script.now)
    script.settle()
    error = script.outcome(number)
    expected = OutcomeUnknownError if sent and name in MUTATIONS else UnavailableError
    assert isinstance(error, expected)
    assert "closed" in str(error)
    assert not script.open
    assert script.dialog.wake_ns > 1 << 60


@pytest.mark.parametrize("seconds", [0.05, 0.9, 2.0])
def test_deadline_is_kept_to_the_millisecond(seconds: float) -> None:
    script, _, _ = connected(deadline_seconds=seconds)
    number = script.submit("get")
    script.pass_time(int(seconds * SECOND) - MS)
    assert number not in script.outcomes
    script.pass_time(MS)
    assert isinstance(script.outcome(number), UnavailableError)


def test_ended_operation_leaves_low_and_its_late_answer_is_ignored() -> None:
    script, link, _ = connected()
    number = script.submit("update", 0)
    script.pass_time(6 * SECOND)
    assert script.dialog.low == number + 1
    script.send(link, wire.Written(number, 1))
    assert isinstance(script.outcome(number), OutcomeUnknownError)
    assert link in script.open


def test_an_app_that_asks_for_nothing_is_told_too_and_once() -> None:
    """It would dial for ever otherwise, and nobody would know why."""
    script = Script()
    dialled: list[str] = []

    def refuse(address: str) -> None:
        dialled.append(address)
        script.send(script.establish(address), wire.Goodbye("tls-required", "only TLS is spoken here"))

    script.submit("get")
    for seed in SEEDS:
        refuse(seed)
    [told] = script.dialog.notices
    assert "greenrooms:// URL" in told
    assert "only TLS is spoken here" in told
    script.reaction = refuse
    script.pass_time(60 * SECOND)
    assert len(dialled) > 20
    assert script.dialog.notices == [told]


@pytest.mark.parametrize(
    ("codes", "advice"),
    [
        (("tls-required", "tls-required"), "greenrooms:// URL"),
        (("not-allowed", "tls-required"), "greenrooms:// URL"),
        (("wrong-cluster", "tls-required"), "the addresses of nodes"),
        (("wrong-cluster", "wrong-cluster"), "the addresses of nodes"),
    ],
)
def test_advice_names_what_every_node_refused(codes: tuple[str, str], advice: str) -> None:
    """Who lacks a certificate is not sent to look for a wrong address."""
    script = Script()
    number = script.submit("get")
    for seed, code in zip(SEEDS, codes, strict=True):
        script.send(script.establish(seed), wire.Goodbye(code, "no"))
    error = script.outcome(number)
    assert isinstance(error, UsageError)
    told = str(error)
    assert advice in told
    assert ("greenrooms://" in told) != ("does not serve cluster=" in told)
