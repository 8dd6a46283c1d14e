"""Random interleavings of requests, replies, losses, moves and time: nothing is lost or answered twice.

The servers of this world apply a request once by its id, forget what lies below the low-watermark, and share
their state, so a move is a change of who answers. What was sent may arrive late, also after a reset: bytes
can sit in a server's socket buffer.
"""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom import wire
from greenroom.errors import OutcomeUnknownError, UnavailableError
from tests.store.client.harness import ADDRESS, MS, SECOND, SEEDS, Script, cluster_map

NAMES = ["get", "update", "create", "patch_if", "clean", "list_by_user"]

step = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from(NAMES), st.integers(0, 3)),
    st.tuples(st.just("serve"), st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.just("answer"), st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.just("lose"), st.integers(0, 9)),
    st.tuples(st.just("accept"), st.integers(0, 9)),
    st.tuples(st.just("move"), st.text("AB-", min_size=4, max_size=4)),
    st.tuples(st.just("time"), st.sampled_from([MS, 30 * MS, 300 * MS, 2 * SECOND])),
    st.tuples(st.just("refuse"), st.sampled_from(["overloaded", "redirect", "appended", "forgotten"])),
)


class World:
    """A script, and servers that do what the steps say."""

    def __init__(self) -> None:
        self.script = Script()
        self.arriving: list[tuple[int, Any]] = []
        self.answers: dict[int, list[Any]] = {}
        self.seen: dict[int, int] = {}
        self.low = 0
        self.results: dict[tuple[int, int], Any] = {}
        self.applied: Counter[tuple[int, int]] = Counter()
        self.submitted: dict[int, str] = {}
        self.deadlines: dict[int, int] = {}
        self.incarnations: dict[int, bytes] = {}
        self.refusal = ""

    # --- servers -----------------------------------------------------------------------------------------

    def collect(self) -> None:
        """What was written is on its way."""
        for link, messages in self.script.sent.items():
            for message in messages[self.seen.get(link, 0) :]:
                if isinstance(message, wire.Hello):
                    self.incarnations[link] = message.target
                else:
                    self.arriving.append((link, message))
            self.seen[link] = len(messages)
        pending = set(self.submitted) - set(self.script.outcomes)
        assert all(number >= self.script.dialog.low for number in pending)

    def serve(self, index: int) -> None:
        """Some request arrives; on one connection they arrive in order, across connections in any."""
        if not self.arriving:
            return
        links = sorted({link for link, _ in self.arriving})
        link = links[index % len(links)]
        request = next(message for at, message in self.arriving if at == link)
        self.arriving.remove((link, request))
        reply = self.reply_to(link, request)
        if reply is not None:
            self.answers.setdefault(link, []).append(reply)

    def reply_to(self, link: int, request: Any) -> Any:
        if isinstance(request, wire.Subscribe):
            return wire.MapFull(self.script.map)
        low = getattr(request, "low", None)
        if low is not None:
            assert low <= request.request_id
            self.low = max(self.low, low)
            if request.request_id < self.low:
                return wire.Unknowable(request.request_id, "below the low-watermark")
        refusal, self.refusal = self.refusal, ""
        version = self.script.map.version
        if refusal == "overloaded":
            return wire.Overloaded(request.request_id, "busy")
        if refusal == "redirect":
            return wire.Redirect(request.request_id, version)
        if isinstance(request, wire.Fanout):
            mine = [s for s in request.shards if self.serves(link, s)]
            if low is None:
                return wire.Listing(request.request_id, tuple(mine), ())
            return wire.Counted(request.request_id, tuple((s, self.apply(request, s)) for s in mine))
        shard = request.point >> 14
        if not self.serves(link, shard):
            return wire.Redirect(request.request_id, version)
        if low is None:
            return wire.Missing(request.request_id)
        if refusal == "forgotten" and request.age_ms:
            return wire.Unknowable(request.request_id, "idle")
        version_now = self.apply(request, shard)
        if refusal == "appended":
            return wire.Redirect(request.request_id, version, appended=True)
        if isinstance(request, wire.Patch):
            return wire.Session(
                request.request_id, wire.SessionState(version_now, 1, 0, None, None, "", 0, b"\x80")
            )
        return wire.Written(request.request_id, version_now)

    def serves(self, link: int, shard: int) -> bool:
        return self.script.map.shards[shard].primary == self.incarnations[link]

    def apply(self, request: Any, shard: int) -> int:
        key = (request.request_id, shard)
        if key not in self.results:
            self.applied[key] += 1
            self.results[key] = len(self.results) + 1
        return self.results[key]

    def answer(self, index: int) -> None:
        links = sorted(link for link, replies in self.answers.items() if replies)
        if links:
            link = links[index % len(links)]
            reply = self.answers[link].pop(0)
            if link in self.script.open:
                self.script.send(link, reply)

    # --- steps -------------------------------------------------------------------------------------------

    def do(self, what: str, *arguments: Any) -> None:
        script = self.script
        match what:
            case "submit":
                number = script.submit(*arguments)
                self.submitted[number] = arguments[0]
                self.deadlines[number] = script.now + 5 * SECOND
            case "serve":
                for _ in range(arguments[1] + 1):
                    self.serve(arguments[0])
            case "answer":
                for _ in range(arguments[1] + 1):
                    self.answer(arguments[0])
            case "lose" if script.open or script.opening:
                links = sorted({*script.open, *script.opening})
                script.lose(links[arguments[0] % len(links)], "reset")
            case "accept" if script.opening:
                waiting = sorted(script.opening)
                script.accept(script.opening[waiting[arguments[0] % len(waiting)]])
            case "move":
                primaries = arguments[0]
                script.publish(cluster_map(primaries, script.map.version + 1))
            case "time":
                script.pass_time(arguments[0])
            case "refuse":
                self.refusal = arguments[0]
        self.collect()

    def heal(self) -> None:
        """From here on everything works: what has two seconds left must succeed."""
        script = self.script
        pending = [number for number in self.submitted if number not in script.outcomes]
        hopeful = [number for number in pending if self.deadlines[number] - script.now > 2 * SECOND]
        if not all(shard.primary for shard in script.map.shards):
            script.publish(cluster_map("ABAB", script.map.version + 1))
        for _ in range(400):
            for address in list(self.script.opening.values()):
                self.script.accept(address)
            self.collect()
            while self.arriving:
                self.serve(0)
            while any(self.answers.values()):
                self.answer(0)
            self.collect()
            if not self.script.dialog.pending_count and not self.arriving:
                break
            self.script.pass_time(20 * MS)
        for number in hopeful:
            outcome = script.outcome(number)
            assert not isinstance(outcome, Exception) or "no longer knows" in str(outcome)


def check(world: World) -> None:
    for number, name in world.submitted.items():
        outcome = world.script.outcome(number)  # exactly one
        applied = [count for (request, _), count in world.applied.items() if request == number]
        assert all(count == 1 for count in applied)
        if isinstance(outcome, UnavailableError):
            assert not applied, f"{name} was applied, whatever the caller was told"
        elif isinstance(outcome, OutcomeUnknownError):
            assert name not in ("get", "list_by_user")
        elif name not in ("get", "list_by_user"):
            assert len(applied) == (4 if name == "clean" else 1)
    assert world.script.dialog.pending_count == 0
    assert world.script.dialog.low == max(world.submitted, default=0) + 1


@settings(max_examples=300, deadline=None)
@given(st.lists(step, max_size=60))
def test_every_operation_ends_once_and_truthfully(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    for each in steps:
        world.do(*each)
    world.heal()
    check(world)


@settings(max_examples=300, deadline=None)
@given(st.lists(step, min_size=5, max_size=80))
def test_the_same_from_a_connected_start(steps: list[tuple[Any, ...]]) -> None:
    world = connected_world()
    for each in steps:
        world.do(*each)
    world.heal()
    check(world)


@settings(max_examples=300, deadline=None)
@given(st.lists(step, min_size=3, max_size=40))
def test_what_never_heals_still_ends_truthfully(steps: list[tuple[Any, ...]]) -> None:
    """Nothing applies after its caller was told "not applied": it was never sent, or was refused."""
    world = connected_world()
    for each in steps:
        world.do(*each)
    world.script.pass_time(6 * SECOND)
    world.collect()
    while world.arriving:
        world.serve(0)
    for number, name in world.submitted.items():
        outcome = world.script.outcome(number)
        if isinstance(outcome, UnavailableError):
            assert not any(request == number for request, _ in world.applied), name
    assert world.script.dialog.pending_count == 0


def connected_world() -> World:
    world = World()
    world.do("submit", "get", 0)
    world.do("submit", "get", 1)
    while world.script.opening:
        world.do("accept", 0)
        while world.arriving:
            world.serve(0)
        while any(world.answers.values()):
            world.answer(0)
        world.collect()
    assert set(world.script.open.values()) == {*SEEDS, *ADDRESS.values()}
    return world
