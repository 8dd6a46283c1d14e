"""Log-outs of users with many sessions and cleans of large shards: in small steps, and exact."""

from collections.abc import Callable

import msgspec
import pytest

from greenroom import wire
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import PrepareOk
from greenroom_cluster.shard.settings import HostSettings
from greenroom_cluster.shard.state.records import Expire
from greenroom_cluster.shard.state.stored import as_received
from tests.cluster.shard.harness import World
from tests.cluster.shard.probe import CLIENT, FAR_US, WALL_US, B, Probe, create

PAGE = HostSettings().page_max


def digest_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def owned(number: int, user: str = "u", expires_us: int = FAR_US) -> wire.Create:
    command = create(number, digest_of(number), low=number)
    return msgspec.structs.replace(command, user_id=user, expires_us=expires_us, created_us=WALL_US + number)


class Run:
    """One primary, alone or with a backup that acknowledges, and all that it answers."""

    def __init__(self, *, alone: bool = True, settings: HostSettings | None = None) -> None:
        self.probe = Probe(settings)
        self.probe.start_alone() if alone else self.probe.become_primary()
        self.replies: dict[int, wire.Reply] = {}
        self.removed_in_a_step = 0

    @property
    def sessions(self) -> dict[bytes, bytes]:
        assert self.probe.replica is not None
        return self.probe.replica.table.sessions

    def ask(self, *requests: wire.Request) -> None:
        self._step(lambda: self.probe.step(ins.ClientRequests(1, CLIENT, list(requests))))

    def _step(self, step: Callable[[], list[fx.HostEffect]]) -> None:
        before = len(self.sessions)
        effects = step()
        self.removed_in_a_step = max(self.removed_in_a_step, before - len(self.sessions))
        for effect in effects:
            if isinstance(effect, fx.ReplyToClient):
                reply = as_received(effect.message)
                self.replies[reply.request_id] = reply
        for prepare in self.probe.prepares():
            self._step(lambda batch=prepare.batch: self.probe.step(ins.PeerMessages(B, [PrepareOk(batch)])))

    def tick(self) -> None:
        self._step(lambda: self.probe.after(0.005))

    def until(self, request_id: int, ticks: int = 3000) -> wire.Reply:
        while request_id not in self.replies:
            ticks -= 1
            assert ticks, "it was never answered"
            self.tick()
        return self.replies[request_id]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with a backup"])
def test_a_user_with_many_sessions_is_logged_out_in_small_steps(*, alone: bool) -> None:
    run = Run(alone=alone)
    count = 10 * PAGE
    for number in range(1, count + 1):
        run.ask(owned(number))
    run.ask(owned(count + 1, "v"), owned(count + 2))
    run.ask(wire.DeleteByUser(90_000, count, 0, "u", digest_of(5), (0,)))
    assert 90_000 not in run.replies
    assert run.until(90_000) == wire.Counted(90_000, ((0, count),))
    assert set(run.sessions) == {digest_of(5), digest_of(count + 1)}
    assert run.removed_in_a_step <= PAGE
    # Again, it is the same answer and no second effect.
    run.ask(owned(count + 3))
    run.replies.clear()
    run.ask(wire.DeleteByUser(90_000, count, 7, "u", digest_of(5), (0,)))
    assert run.replies[90_000] == wire.Counted(90_000, ((0, count),))
    assert digest_of(count + 3) in run.sessions


def test_a_session_that_goes_to_another_user_meanwhile_stays() -> None:
    """It was the other user's before the page that named it was applied."""
    run = Run(alone=False)
    for number in range(1, 2 * PAGE + 1):
        run.ask(owned(number))
    oldest = digest_of(1)
    probe = run.probe
    probe.step(
        ins.ClientRequests(
            1,
            CLIENT,
            [
                wire.Patch(80_000, 80_000, 0, 0, oldest, (), (), (), ("v",), None),
                wire.DeleteByUser(90_000, 80_000, 0, "u", b"", (0,)),
            ],
        )
    )
    prepares = probe.prepares()
    probe.after(0.005)
    prepares += probe.prepares()
    (paged,) = [entry.records for entry in prepares[-1].entries]
    assert wire.DeleteByHandle in {type(record.command) for record in paged}
    assert oldest in {record.command.digest for record in paged}
    for prepare in prepares:
        run._step(lambda batch=prepare.batch: probe.step(ins.PeerMessages(B, [PrepareOk(batch)])))
    assert run.until(90_000) == wire.Counted(90_000, ((0, 2 * PAGE - 1),))
    assert set(run.sessions) == {oldest}


def test_sessions_that_are_over_do_not_count() -> None:
    run = Run()
    for number in range(1, 3 * PAGE + 1):
        run.ask(owned(number, expires_us=WALL_US + 5 if number % 3 == 0 else FAR_US))
    run.probe.wall_us += 10
    run.ask(wire.DeleteByUser(90_000, 90_000, 0, "u", b"", (0,)))
    assert run.until(90_000) == wire.Counted(90_000, ((0, 2 * PAGE),))
    assert not run.sessions


def test_an_id_that_was_removed_is_not_used_again_before_the_end() -> None:
    """The command decides at its end, and would remove the new session too, for a second time."""
    run = Run()
    for number in range(1, 3 * PAGE + 1):
        run.ask(owned(number))
    run.ask(owned(70_000, "v"), wire.DeleteByUser(90_000, 70_000, 0, "u", b"", (0,)))
    run.tick()
    gone = digest_of(1)
    assert gone not in run.sessions
    again = msgspec.structs.replace(owned(80_000), digest=gone, low=70_000)
    run.ask(again, wire.Rotate(80_001, 70_000, 0, 0, digest_of(70_000), gone, (), (), None, None))
    assert isinstance(run.replies[80_000], wire.Overloaded)
    assert isinstance(run.replies[80_001], wire.Overloaded)
    assert run.until(90_000) == wire.Counted(90_000, ((0, 3 * PAGE),))
    run.ask(again)
    assert isinstance(run.replies[80_000], wire.Written)
    assert gone in run.sessions


def test_new_sessions_of_the_user_do_not_keep_a_logout_from_its_end() -> None:
    run = Run()
    for number in range(1, 3 * PAGE + 1):
        run.ask(owned(number))
    run.ask(wire.DeleteByUser(90_000, 1, 0, "u", b"", (0,)))
    number = 3 * PAGE
    while 90_000 not in run.replies:
        run.tick()
        for _ in range(20):
            number += 1
            run.ask(owned(number))
    # Whatever the command removed, it says; whatever came after it, stays.
    (reply,) = run.replies[90_000].counts
    assert reply[1] + len(run.sessions) == number


def test_a_user_who_goes_on_logging_in_is_logged_out_all_the_same() -> None:
    """Sessions come faster than pages take them away, and those from before the log-out go first."""
    run = Run(alone=False, settings=HostSettings(page_max=8))
    old = {digest_of(number) for number in range(1, 81)}
    for number in range(1, 81):
        run.ask(owned(number))
    run.ask(wire.DeleteByUser(90_000, 1, 0, "u", digest_of(1), (0,)))
    number = 80
    for _ in range(60):
        if 90_000 in run.replies:
            break
        for _ in range(40):
            number += 1
            run.ask(owned(number))
        run.tick()
    (reply,) = run.until(90_000, 1).counts
    assert run.sessions.keys() & old == {digest_of(1)}
    assert reply[1] + len(run.sessions) == number


def test_what_comes_slowly_meanwhile_goes_in_small_steps_too() -> None:
    run = Run(alone=False, settings=HostSettings(page_max=8))
    for number in range(1, 161):
        run.ask(owned(number))
    run.ask(wire.DeleteByUser(90_000, 1, 0, "u", b"", (0,)))
    number = 160
    while 90_000 not in run.replies and number < 1000:
        number += 1
        run.ask(owned(number))
        run.tick()
    assert 90_000 in run.replies
    assert run.removed_in_a_step <= 8


def test_one_log_out_of_a_user_at_a_time_and_sixteen_in_all() -> None:
    run = Run(settings=HostSettings(page_max=2))
    for user in range(20):
        for number in range(1, 4):
            run.ask(owned(user * 10 + number, f"u{user}"))
    run.ask(*(wire.DeleteByUser(9000 + n, 9000, 0, "u0", b"", (0,)) for n in range(2)))
    assert run.replies[9001] == wire.Counted(9001, ()), "the shard is left out: it is asked again"
    run.ask(*(wire.DeleteByUser(9100 + n, 9000, 0, f"u{n}", b"", (0,)) for n in range(1, 20)))
    refused = [number for number in range(9101, 9120) if number in run.replies]
    assert refused == list(range(9116, 9120))
    assert run.until(9000) == wire.Counted(9000, ((0, 3),))
    for number in range(9101, 9116):
        assert run.until(number) == wire.Counted(number, ((0, 3),))


def test_a_large_shard_is_cleaned_in_small_steps_and_counted() -> None:
    run = Run(alone=False)
    count = 12 * PAGE
    for number in range(1, count + 1):
        run.ask(owned(number, expires_us=WALL_US + 5 if number % 2 else FAR_US))
    run.probe.wall_us += 10
    run.probe.host._sweeper.due_ns = 1 << 62
    run.ask(wire.Clean(90_000, 90_000, 0, (0,)), wire.Clean(90_001, 90_000, 0, (0,)))
    assert run.replies[90_001] == wire.Counted(90_001, ()), "the shard is left out: it is asked again"
    assert run.until(90_000) == wire.Counted(90_000, ((0, count // 2),))
    assert run.removed_in_a_step <= PAGE * 8
    assert len(run.sessions) == count // 2


def test_what_only_primaries_say_is_not_taken_from_clients() -> None:
    run = Run()
    run.ask(owned(1), wire.DeleteByUser(5, 1, 0, "u", b"", (0,), 1_000_000), wire.Clean(6, 1, 0, (0,), 7))
    assert run.replies[5] == wire.Counted(5, ((0, 1),))
    assert run.replies[6] == wire.Counted(6, ((0, 0),))


def test_older_versions_apply_pages_and_their_command() -> None:
    """Struct by struct, what is logged is what they know, with one field more at the end."""
    run = Run(alone=False)
    for number in range(1, 3 * PAGE + 1):
        run.ask(owned(number))
    log: list[type] = []
    run.probe.step(ins.ClientRequests(1, CLIENT, [wire.DeleteByUser(90_000, 90_000, 0, "u", b"", (0,))]))
    while 90_000 not in run.replies:
        run.probe.after(0.005)
        for prepare in run.probe.prepares():
            log += [type(record.command) for entry in prepare.entries for record in entry.records]
            run._step(lambda batch=prepare.batch: run.probe.step(ins.PeerMessages(B, [PrepareOk(batch)])))
    assert set(log) <= {wire.DeleteByHandle, wire.DeleteByUser, Expire}
    last = wire.DeleteByUser(1, 1, 0, "u", b"", (), 5)
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(last))
    assert fields[:-1] == msgspec.msgpack.decode(msgspec.msgpack.encode(last))[:7]
    assert fields[-1] == 5


@pytest.mark.parametrize("seed", range(6))
def test_replicas_stay_alike_and_a_failover_in_the_middle_loses_no_log_out(seed: int) -> None:
    world = World(shards=1, seed=seed, settings=HostSettings(page_max=4, sweep_pause_seconds=0.001))
    world.settle()
    for number in range(1, 61):
        command = owned(number)
        wall = world.wall_us(world.primary().node)
        world.call(
            world.primary(),
            lambda n, command=command, wall=wall: msgspec.structs.replace(
                command, request_id=n, low=n, expires_us=wall + 3_600_000_000
            ),
        )
    client = b"d" * 16
    request = wire.DeleteByUser(7, 7, 0, "u", b"", (0,))
    first = world.primary()
    first.ask(request, client=client)
    world.run_for(0.002 * (seed + 1))
    left = len(first.replica().table.sessions)
    world.kill(first)
    world.run_until(lambda: world.map.shards[0].primary != first.incarnation)
    second = world.primary()
    world.run_until(lambda: second.replica().primary is not None and not second.replica().primary.paused)
    second.ask(msgspec.structs.replace(request, age_ms=500), client=client)
    world.run_until(lambda: 7 in second.replies)
    (counted,) = second.replies[7].counts
    assert left <= counted[1] + 8
    assert counted[1] <= 60
    assert not second.replica().table.sessions
    world.settle()
    world.run_until(lambda: world.converged(0))
