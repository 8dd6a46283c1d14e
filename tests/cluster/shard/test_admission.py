"""What a primary refuses before it logs it: no client can make an actor look dead or eat its memory."""

import ast
import random
from pathlib import Path

import msgspec
import pytest

from greenroom import wire
from greenroom_cluster import shard
from greenroom_cluster.shard.settings import HostSettings
from tests.cluster.shard.harness import World, create, get, holding

ALICE = b"a" * 32
FAR_US = 1 << 60


@pytest.fixture
def world() -> World:
    made = World()
    made.settle()
    return made


def patch(number: int, low: int, digest: bytes = ALICE) -> wire.Patch:
    value = msgspec.msgpack.encode(number)
    return wire.Patch(number, low, 0, 0, digest, ((("n",), value),), (), (), None, None)


def big(size: int) -> bytes:
    return msgspec.msgpack.encode({"x": b"x" * size})


def test_a_late_repeat_is_not_applied_to_a_client_known_again(world: World) -> None:
    primary = world.primary()
    first = wire.Create(1, 1, 0, 0, ALICE, None, 1, FAR_US, None, "", holding("v1"))
    primary.ask(first, client=b"z" * 16)
    world.run_until(lambda: 1 in primary.replies)
    world.call(primary, lambda number: wire.Delete(number, number, 0, 0, ALICE))
    world.run_for(60)
    primary.ask(wire.Delete(2, 1, 0, 0, b"o" * 32), client=b"z" * 16)
    world.run_until(lambda: 2 in primary.replies)
    late = wire.Create(1, 1, 62_000, 0, ALICE, None, 1, FAR_US, None, "", holding("v1"))
    primary.replies.clear()
    primary.ask(late, client=b"z" * 16)
    world.run_until(lambda: 1 in primary.replies)
    assert isinstance(primary.replies[1], wire.Unknowable)
    assert isinstance(world.call(primary, get(ALICE)), wire.Missing)


def test_an_old_repeat_of_a_client_that_was_never_forgotten_is_taken(world: World) -> None:
    primary = world.primary()
    primary.ask(wire.Delete(1, 1, 0, 0, ALICE), client=b"z" * 16)
    world.run_until(lambda: 1 in primary.replies)
    world.run_for(40)
    primary.ask(wire.Delete(2, 1, 30_000, 0, ALICE), client=b"z" * 16)
    world.run_until(lambda: 2 in primary.replies)
    assert isinstance(primary.replies[2], wire.Written)


def test_patches_of_large_sessions_are_bounded_a_step(world: World) -> None:
    primary = world.primary()
    world.call(primary, create(ALICE, big(900_000)))
    primary.ask(*(patch(number, 1) for number in range(1, 101)), client=b"z" * 16)
    refused = [number for number, reply in primary.replies.items() if isinstance(reply, wire.Overloaded)]
    assert len(refused) == 98
    world.run_until(lambda: 1 in primary.replies and 2 in primary.replies)
    assert isinstance(primary.replies[2], wire.Session)
    primary.ask(patch(101, 3), client=b"z" * 16)
    world.run_until(lambda: 101 in primary.replies)
    assert isinstance(primary.replies[101], wire.Session)


def test_patches_cost_what_they_bring_and_their_sessions_growth(world: World) -> None:
    """Eight patches of a megabyte on an empty session took seconds of one step, and leases ran out."""
    primary = world.primary()
    world.call(primary, create(ALICE, big(1)))
    large = msgspec.msgpack.encode(b"x" * 600_000)
    values = ((("x",), large),)
    many = [wire.Patch(number, 1, 0, 0, ALICE, values, (), (), None, None) for number in range(1, 9)]
    primary.ask(*many, client=b"z" * 16)
    refused = [number for number, reply in primary.replies.items() if isinstance(reply, wire.Overloaded)]
    assert refused == [3, 4, 5, 6, 7, 8], "600 KB, then 600 onto 600; another 600 onto 1,200 are too much"
    world.run_until(lambda: 1 in primary.replies and 2 in primary.replies)
    primary.ask(patch(9, 3), client=b"z" * 16)
    world.run_until(lambda: 9 in primary.replies)
    assert isinstance(primary.replies[9], wire.Session), "what was applied costs nothing any more"


@pytest.mark.parametrize("kind", ["create", "update", "rotate"])
def test_a_patch_costs_the_size_its_session_will_have(world: World, kind: str) -> None:
    """What was logged before it counts too."""
    primary = world.primary()
    bob = b"b" * 32
    if kind != "create":
        world.call(primary, create(ALICE, big(1 if kind == "update" else 900_000)))
    large: wire.Mutation = {
        "create": wire.Create(1, 1, 0, 0, ALICE, None, 1, FAR_US, None, "", big(900_000)),
        "update": wire.Update(1, 1, 0, 0, ALICE, None, FAR_US, "", big(900_000), None),
        "rotate": wire.Rotate(1, 1, 0, 0, ALICE, bob, (), (), None, None),
    }[kind]
    digest = bob if kind == "rotate" else ALICE
    primary.ask(large, *(patch(number, 1, digest) for number in range(2, 50)), client=b"z" * 16)
    refused = [number for number, reply in primary.replies.items() if isinstance(reply, wire.Overloaded)]
    assert len(refused) >= 46


@pytest.mark.parametrize("seed", range(20))
def test_what_is_applied_costs_nothing_whatever_was_logged_together(world: World, seed: int) -> None:
    """Also what brings nothing: a patch of the lifetime alone ended the core when it was applied."""
    generator = random.Random(seed)
    primary = world.primary()
    digests = [bytes([number]) * 32 for number in range(3)]
    requests: list[wire.Request] = []
    for number in range(1, 60):
        digest = generator.choice(digests)
        size = generator.choice((0, 0, 10, 3000))
        values = ((("x",), msgspec.msgpack.encode(b"x" * size)),) if size else ()
        common = (number, 1, 0, 0, digest)
        requests.append(
            generator.choice(
                (
                    wire.Create(*common, None, 1, FAR_US, None, "", big(size)),
                    wire.Update(*common, None, FAR_US, "", big(size), None),
                    wire.Patch(*common, values, (), (), None, FAR_US),
                    wire.Patch(*common, values, (), (), None, FAR_US),
                    wire.Rotate(*common, generator.choice(digests), values, (), None, None),
                    wire.Delete(*common),
                )
            )
        )
    while requests:
        together = generator.randint(1, 20)
        primary.ask(*requests[:together], client=b"z" * 16)
        del requests[:together]
        world.run_for(generator.choice((0.0001, 0.01)))
    world.run_until(lambda: len(primary.replies) == 59)
    role = primary.replica().primary
    assert role.admission._opening.bytes == 0
    assert not role.admission._growth
    assert not role.admission.costs


def test_many_small_patches_of_one_session_at_once_are_taken(world: World) -> None:
    primary = world.primary()
    world.call(primary, create(ALICE, big(300)))
    primary.ask(*(patch(number, 1) for number in range(1, 257)), client=b"z" * 16)
    world.run_until(lambda: 256 in primary.replies)
    assert all(isinstance(primary.replies[number], wire.Session) for number in range(1, 257))


def test_a_patch_of_a_single_session_is_always_taken(world: World) -> None:
    primary = world.primary()
    world.call(primary, create(ALICE, big(1_000_000)))
    primary.ask(patch(1, 1), client=b"z" * 16)
    world.run_until(lambda: 1 in primary.replies)
    assert isinstance(primary.replies[1], wire.Session)


def test_what_unconfirmed_answers_hold_on_to_is_bounded(world: World) -> None:
    primary = world.primary()
    world.call(primary, create(ALICE, big(1_000_000)))
    for number in range(1, 30):
        primary.ask(patch(number, 1), client=b"z" * 16)
        world.run_until(lambda number=number: number in primary.replies)
    assert isinstance(primary.replies[29], wire.Overloaded)
    limit = world.settings.replies_bytes_max
    assert primary.replica().table.clients.kept_bytes <= limit + 1_100_000
    primary.ask(patch(30, 30), client=b"y" * 16)
    world.run_until(lambda: 30 in primary.replies)
    assert isinstance(primary.replies[30], wire.Session)
    world.run_for(1)
    assert world.converged(0)


def test_a_client_that_confirms_may_go_on(world: World) -> None:
    primary = world.primary()
    world.call(primary, create(ALICE, big(1_000_000)))
    for number in range(1, 60):
        primary.ask(patch(number, number), client=b"z" * 16)
        world.run_until(lambda number=number: number in primary.replies)
        assert isinstance(primary.replies[number], wire.Session)
    assert primary.replica().table.clients.kept_bytes < 1_100_000


def full_of_answers(world: World) -> int:
    """Have client z fill its room for answers and confirm none; return the next request's number."""
    primary = world.primary()
    world.call(primary, create(ALICE, big(1_000_000)))
    for number in range(2, 30):
        primary.ask(patch(number, 1), client=b"z" * 16)
        world.run_until(lambda number=number: number in primary.replies)
    assert isinstance(primary.replies[29], wire.Overloaded)
    return 30


def test_a_client_over_the_limit_may_confirm_with_any_write(world: World) -> None:
    primary, number = world.primary(), full_of_answers(world)
    primary.ask(wire.Delete(number, number - 1, 0, 0, b"o" * 32), client=b"z" * 16)
    world.run_until(lambda: number in primary.replies)
    assert primary.replies[number] == wire.Written(number, 0)
    assert primary.replica().table.clients.kept_bytes == 0
    primary.ask(patch(number + 1, number), client=b"z" * 16)
    world.run_until(lambda: number + 1 in primary.replies)
    assert isinstance(primary.replies[number + 1], wire.Session)


def test_a_client_over_its_limit_may_repeat_what_it_has_to_confirm(world: World) -> None:
    primary, number = world.primary(), full_of_answers(world)
    primary.ask(patch(1, 1), client=b"z" * 16)
    world.run_until(lambda: 1 in primary.replies)
    assert isinstance(primary.replies[1], wire.Session)
    primary.ask(patch(number, 1), client=b"z" * 16)
    assert isinstance(primary.replies[number], wire.Overloaded)


def test_a_client_with_too_many_answers_may_confirm_with_any_write() -> None:
    world = World(settings=HostSettings(replies_max=10))
    world.settle()
    primary = world.primary()
    for number in range(2, 14):
        primary.ask(wire.Delete(number, 1, 0, 0, ALICE), client=b"z" * 16)
        world.run_until(lambda number=number: number in primary.replies)
    assert [type(primary.replies[number]) for number in (11, 12)] == [wire.Written, wire.Overloaded]
    primary.ask(wire.Delete(14, 12, 0, 0, ALICE), client=b"z" * 16)
    world.run_until(lambda: 14 in primary.replies)
    assert primary.replies[14] == wire.Written(14, 0)


def test_one_cleaning_of_a_shard_at_a_time(world: World) -> None:
    primary = world.primary()
    primary.ask(*(wire.Clean(number, 1, 0, (0,)) for number in (1, 2, 3)), client=b"z" * 16)
    world.run_until(lambda: len(primary.replies) == 3)
    answered = [number for number in (1, 2, 3) if primary.replies[number].counts]
    assert answered == [1]


def test_one_step_lists_a_bounded_number_of_sessions() -> None:
    world = World(nodes=1, shards=1, replicas=1)
    world.settle()
    primary = world.primary()
    for number in range(3000):
        world.call(primary, create(number.to_bytes(32, "big"), holding("v"), user="u"))
    primary.ask(*(wire.ListByUser(number, "u", 10_000, (0,)) for number in range(1, 21)), client=b"z" * 16)
    world.run_until(lambda: 20 in primary.replies)
    answered = [number for number in range(1, 21) if primary.replies[number].shards]
    assert answered == list(range(1, 12))
    assert len(primary.replies[1].sessions) == 2000


def test_no_reason_names_a_setting_that_no_option_sets() -> None:
    """Reasons reach the callers of a store; only what the settings themselves refuse may name them."""
    sources = [path for path in Path(shard.__file__).parent.rglob("*.py") if path.name != "settings.py"]
    assert len(sources) > 10
    for path in sources:
        tree = ast.parse(path.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else None
            if isinstance(text, str) and " " in text:
                assert [name for name in HostSettings.__struct_fields__ if name in text] == [], text


def test_a_patch_costs_more_where_the_session_holds_many_small_containers(world: World) -> None:
    primary = world.primary()
    world.call(primary, create(ALICE, msgspec.msgpack.encode({"x": [[] for _ in range(30_000)]})))
    primary.ask(*(patch(number, 1) for number in range(1, 11)), client=b"z" * 16)
    refused = [number for number, reply in primary.replies.items() if isinstance(reply, wire.Overloaded)]
    assert len(refused) == 8


@pytest.mark.parametrize(
    "data", [b"", b"\xc0", b"\x81\xc0\x01", b"\x82\xa1a\x01\xa1a\x02", b"\x81\xa1a" + b"\x91" * 65 + b"\x01"]
)
def test_what_no_session_may_hold_is_refused_and_never_logged(world: World, data: bytes) -> None:
    primary = world.primary()
    world.call(primary, create(ALICE, big(1)))
    appended = primary.replica().log.appended
    values = ((("a",), data if data != b"\xc0" else b"\xc1"),)
    for command in (
        wire.Create(1, 1, 0, 0, b"b" * 32, None, 1, FAR_US, None, "", data),
        wire.Update(2, 1, 0, 0, ALICE, None, FAR_US, "", data, None),
        wire.Patch(3, 1, 0, 0, ALICE, values, (), (), None, None),
        wire.Patch(4, 1, 0, 0, ALICE, (), (), ((("a",), b"\xc1"),), None, None),
        wire.Rotate(5, 1, 0, 0, ALICE, b"b" * 32, values, (), None, None),
    ):
        primary.ask(command, client=b"z" * 16)
        reply = primary.replies[command.request_id]
        assert isinstance(reply, wire.Failed), command
        assert reply.code == wire.FailureCode.INVALID
        assert reply.detail
    assert primary.replica().log.appended == appended
