"""The map made anew from directories: who must come first, and what it holds."""

import pytest

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom.errors import UsageError
from greenroom_cluster.coordination import messages as m
from greenroom_cluster.coordination import service as fx
from greenroom_cluster.coordination.adoption import ADOPTING, AWAY_SECONDS, Adoption
from greenroom_cluster.coordination.coordinator import CoordinatorSettings
from greenroom_cluster.coordination.exchange import ConnectionClosed, Incoming
from greenroom_cluster.coordination.genesis import (
    ClusterOptions,
    begins_from_directories,
    blank_map,
    first_map,
)
from greenroom_cluster.coordination.rules import EPOCH_LIMIT, LINEAGE_EPOCHS
from greenroom_cluster.coordination.service import CoordinationService
from greenroom_cluster.planning.controller import ControllerSettings
from tests.cluster.coordination.builders import SECOND, durable, inc, node, nonce, shard

IDENTITY = b"i" * 16
WALL_MS = 1_700_000_000_000
SLOTS = {"a": "a/0", "b": "b/0", "c": "c/0", "d": "d/0"}


def known(
    members: str, epoch: int, proposed: str = "", *, number: int = 0, lineage: int = 1, version: int = 0
) -> m.KnownShard:
    """A configuration of those members, one letter each, as a directory knows it."""
    return m.KnownShard(
        number,
        lineage,
        version or 10 * epoch,
        epoch,
        b"made it.",
        tuple((inc(each), SLOTS[each]) for each in members),
        tuple((inc(each), SLOTS[each]) for each in proposed),
    )


def shows(
    name: str,
    *configurations: m.KnownShard,
    mark: int = 5,
    shards: int = 1,
    identity: bytes = IDENTITY,
    held: tuple[int, ...] = (),
    more: bool = False,
) -> m.ShowDirectory:
    """What the directory in which that member ran shows."""
    openers = (inc(name), inc(f"{name} again"))
    directory = inc(f"directory {name}")
    return m.ShowDirectory(
        SLOTS[name], directory, mark, openers, identity, shards, configurations, held, more
    )


class Gathering:
    """An adoption that directories come to, on one clock."""

    def __init__(self, *came: m.ShowDirectory, shards: int | None = None, give_up: bool = False) -> None:
        options = ClusterOptions("test", shards, adopt_directories=True, give_up_newer=give_up)
        self.adoption = Adoption(options, 0)
        self.now_ns = 0
        for shown in came:
            self.come(shown)

    def come(self, shown: m.ShowDirectory) -> None:
        self.adoption.take(1, shown.openers[-1], shown)

    def map(self) -> ClusterMap | None:
        """Return the map that is made once nothing has come for long enough."""
        made = self.adoption.conclude(self.now_ns, WALL_MS)
        assert made is None
        while made is None and (due := self.adoption.next_deadline()) < NEVER_NS:
            self.now_ns = due
            made = self.adoption.conclude(self.now_ns, WALL_MS)
        return made

    def made(self) -> ClusterMap:
        made = self.map()
        assert made is not None, self.adoption.told()
        return made

    def hear(self, name: str) -> None:
        """The supervisor of that node asks for a map, and says whose it is."""
        beat = Incoming(8, inc(f"node {name}"), m.Heartbeat(name, 0, 0), wire.ROLE_PEER)
        assert self.adoption.answer(self.now_ns, beat) is None

    def wait(self, seconds: float) -> ClusterMap | None:
        """Return the map that is made after that time, if it is."""
        assert self.adoption.conclude(self.now_ns, WALL_MS) is None
        self.now_ns += round(seconds * SECOND)
        return self.adoption.conclude(self.now_ns, WALL_MS)

    def forget(self, name: str, role: str = wire.ROLE_OPERATOR) -> object:
        return self.adoption.answer(self.now_ns, Incoming(9, b"operator", m.ForgetNode(7, name), role))


def test_the_newest_configuration_counts_with_its_epoch_raised() -> None:
    made = Gathering(shows("a", known("ab", 3), mark=8), shows("b", known("ab", 3))).made()
    (entry,) = made.shards
    assert (entry.epoch, entry.members) == (3 + LINEAGE_EPOCHS, (inc("a"), inc("b")))
    assert (made.lineage, made.version, made.identity) == (2, WALL_MS, IDENTITY)
    for name, mark in (("a", 8), ("b", 5)):
        actor = made.actors[inc(name)]
        assert (actor.state, actor.slot, actor.mark) == ("dead", SLOTS[name], mark)
        assert actor.directory == inc(f"directory {name}")
        assert made.floors[actor.directory] == mark
        assert made.nodes[name].state == "down"


@pytest.mark.parametrize(
    ("came", "awaited"),
    [
        pytest.param([shows("a", known("ab", 3))], ["b"], id="a member"),
        pytest.param([shows("a", known("a", 3, "ab"))], ["b"], id="whom a change would have made a member"),
        pytest.param([shows("a", known("ab", 3)), shows("b", known("bc", 4))], ["c"], id="later knowledge"),
        pytest.param([shows("a", known("ab", 3)), shows("b")], ["b"], id="one that gave its copy up"),
        pytest.param([shows("a", known("ab", 3)), shows("b", held=(0,))], [], id="one just added"),
        pytest.param([shows("a", known("a", 3)), shows("b", known("bc", 2))], [], id="not one of before"),
        pytest.param([shows("a", known("a", 3, "ad")), shows("b", known("ab", 4))], [], id="it was decided"),
        pytest.param([shows("b", known("bc", 9)), shows("a", known("a", 1, lineage=2))], [], id="lineages"),
    ],
)
def test_all_who_may_know_a_later_configuration_are_awaited(
    came: list[m.ShowDirectory], awaited: list[str]
) -> None:
    gathering = Gathering(*came)
    made = gathering.map()
    assert list(gathering.adoption.wanting().awaited) == awaited
    assert (made is None) == bool(awaited)
    for name in awaited:
        assert f"forget-node {name}" in gathering.adoption.told()


def test_a_node_that_came_without_its_copy_is_not_asked_to_come() -> None:
    gathering = Gathering(
        shows("a", known("ab", 3), known("ac", 3, number=1), shards=2), shows("b", shards=2)
    )
    assert gathering.map() is None
    absent, emptied = gathering.adoption.told().split("; ")
    assert "1 shard waits for directories of node c, which may know" in absent
    assert "start it with its directories" in absent
    assert gathering.adoption.wanting().awaited == ("c", "b")
    assert "1 shard waits for what node b knew, which has come, but gave up its copy" in emptied
    assert emptied.endswith("if none is left to come run `greenroom forget-node b`")
    assert isinstance(gathering.forget("b"), m.Accepted)
    assert "node b" not in gathering.adoption.told()


def test_what_comes_later_can_name_others_to_wait_for() -> None:
    gathering = Gathering(shows("a", known("ab", 3)))
    gathering.come(shows("b", known("bc", 4)))
    gathering.come(shows("c", known("cd", 6)))
    assert gathering.map() is None
    gathering.come(shows("d", known("d", 7)))
    assert gathering.made().shards[0].members == (inc("d"),)


def test_each_shard_is_raised_from_the_lineage_that_it_was_last_known_in() -> None:
    gathering = Gathering(shows("a", known("a", 3), known("a", 70_000, number=1, lineage=2), shards=2))
    made = gathering.made()
    assert made.lineage == 3
    assert made.epochs == (3 + 2 * LINEAGE_EPOCHS, 70_000 + LINEAGE_EPOCHS)


def test_an_operator_gives_up_who_will_not_come() -> None:
    """Then the shard has the directories that are there, and nobody waits for the other one."""
    gathering = Gathering(shows("a", known("ab", 3)))
    assert isinstance(gathering.forget("b", wire.ROLE_PEER), m.Rejected)
    assert gathering.map() is None
    refused = gathering.forget("nobody")
    assert isinstance(refused, m.Rejected)
    assert "awaited are: b" in refused.reason
    assert isinstance(gathering.forget("b"), m.Accepted)
    made = gathering.made()
    assert made.shards[0].members == (inc("a"), inc("b"))
    assert set(made.actors) == {inc("a")}


def test_nobody_is_awaited_who_has_no_copy_to_claim_with() -> None:
    """It is there, with other shards; of this one it gave its copy up."""
    gathering = Gathering(shows("a", known("ba", 3)), shows("b"))
    assert gathering.map() is None
    assert isinstance(gathering.forget("b"), m.Accepted)
    assert gathering.made().shards[0].members == (inc("a"),)


def test_whoever_was_given_up_counts_if_he_comes_after_all() -> None:
    gathering = Gathering(shows("a", known("ab", 3)))
    gathering.forget("b")
    gathering.come(shows("b", known("b", 4)))
    assert gathering.made().shards[0].members == (inc("b"),)


def test_a_node_that_may_be_reading_its_directory_is_not_given_up() -> None:
    gathering = Gathering(shows("a", known("ab", 3), known("ab", 3, number=1), shards=2))
    gathering.hear("b")
    refused = gathering.forget("b")
    assert isinstance(refused, m.Rejected)
    assert "node b is back, and may be reading the directory of b/0: " in refused.reason
    assert "stop the node" in refused.reason
    assert gathering.wait(AWAY_SECONDS - 0.5) is None
    gathering.come(shows("b", known("b", 4), known("b", 4, number=1), shards=2))
    assert gathering.made().epochs == (4 + LINEAGE_EPOCHS,) * 2


def test_a_lost_directory_is_given_up_once_its_actor_has_come() -> None:
    """It runs in an empty directory, so nobody reads the other one."""
    gathering = Gathering(shows("a", known("ab", 3)))
    gathering.hear("b")
    empty = m.ShowDirectory("b/0", inc("empty"), 1, (inc("b again"),), b"", 0, ())
    assert isinstance(gathering.forget("b"), m.Rejected)
    gathering.come(empty)
    assert isinstance(gathering.forget("b"), m.Accepted)
    assert gathering.made().shards[0].members == (inc("a"), inc("b"))


def test_a_node_that_was_given_up_is_awaited_again_while_it_reads() -> None:
    """That it is gone was said before it came back; and it may be stopped again."""
    gathering = Gathering(shows("a", known("ab", 3)))
    assert isinstance(gathering.forget("b"), m.Accepted)
    gathering.hear("b")
    assert gathering.wait(AWAY_SECONDS - 0.5) is None
    assert "forget-node b" in gathering.adoption.told()
    gathering.hear("b")
    for _ in range(8):
        assert gathering.wait(AWAY_SECONDS - 1) is None
        gathering.hear("b")
    assert gathering.adoption.next_deadline() == gathering.now_ns + round(AWAY_SECONDS * SECOND)
    made = gathering.wait(AWAY_SECONDS)
    assert made is not None
    assert made.shards[0].members == (inc("a"), inc("b"))


def test_a_node_is_given_up_once_it_is_stopped() -> None:
    gathering = Gathering(shows("a", known("ab", 3)))
    gathering.hear("b")
    assert gathering.wait(AWAY_SECONDS - 0.1) is None
    assert isinstance(gathering.forget("b"), m.Rejected)
    assert gathering.wait(0.1) is None
    assert isinstance(gathering.forget("b"), m.Accepted)


@pytest.mark.parametrize("give_up", [False, True])
def test_a_shard_that_no_directory_knows_begins_only_if_that_is_said(*, give_up: bool) -> None:
    gathering = Gathering(shows("a", known("a", 3), shards=2), give_up=give_up)
    made = gathering.map()
    assert (made is not None) == give_up
    assert ("no directory knows 1 shard (1)" in gathering.adoption.told()) != give_up
    if made is not None:
        assert made.epochs == (3 + LINEAGE_EPOCHS, 0)


def test_a_shard_that_a_directory_knows_never_begins_empty() -> None:
    assert Gathering(shows("a", known("ab", 3), shards=2), give_up=True).map() is None


@pytest.mark.parametrize(
    ("came", "shards", "told"),
    [
        ([shows("a", known("a", 3)), shows("b", identity=b"j" * 16)], None, "two clusters"),
        ([shows("a", known("a", 3), shards=2)], 4, "2 and 4 are named"),
        ([shows("a", known("a", 3), shards=0)], None, "--shards"),
        ([shows("a", known("a", 3, number=4), shards=0)], 4, "beyond 4"),
        ([shows("a", known("a", EPOCH_LIMIT - 9))], None, "used up its epochs"),
        ([], None, "none has come yet"),
    ],
)
def test_what_cannot_be_one_cluster_makes_no_map(
    came: list[m.ShowDirectory], shards: int | None, told: str
) -> None:
    gathering = Gathering(*came, shards=shards, give_up=True)
    assert gathering.map() is None
    assert told in gathering.adoption.told()
    assert gathering.adoption.news() == [gathering.adoption.told()]
    assert gathering.adoption.news() == []


def test_an_older_copy_of_a_directory_does_not_count() -> None:
    gathering = Gathering(shows("a", known("a", 4), mark=9))
    gathering.come(shows("a", known("a", 2), mark=3))
    assert gathering.made().epochs == (4 + LINEAGE_EPOCHS,)


def test_a_directory_counts_once_all_parts_of_it_have_come() -> None:
    gathering = Gathering(shows("a", known("a", 3), shards=2, more=True))
    gathering.adoption.answer(0, Incoming(1, inc("a again"), ConnectionClosed()))
    gathering.come(shows("a", known("a", 3), shards=2, more=True))
    assert gathering.map() is None
    gathering.come(shows("a", known("a", 5, number=1), shards=2))
    assert gathering.made().epochs == (3 + LINEAGE_EPOCHS, 5 + LINEAGE_EPOCHS)


def test_a_map_waits_until_nothing_new_has_come_for_a_while() -> None:
    gathering = Gathering(shows("a", known("a", 3)))
    assert gathering.map() is not None
    gathering.come(shows("b", known("b", 2)))
    assert gathering.adoption.conclude(gathering.now_ns, WALL_MS) is None
    assert gathering.adoption.conclude(gathering.now_ns + SECOND, WALL_MS) is None
    assert gathering.adoption.conclude(gathering.now_ns + 2 * SECOND, WALL_MS) is not None


def test_a_directory_of_an_impossible_slot_does_not_count() -> None:
    shown = m.ShowDirectory("no slot", inc("d"), 1, (inc("a"),), IDENTITY, 1, (known("a", 3),))
    assert "none has come yet" in Gathering(shown).adoption.told()


def test_a_directory_that_holds_a_map_is_not_made_anew() -> None:
    options = ClusterOptions("test", 1, adopt_directories=True)
    blank = first_map("test", 1, 2)
    decided = ClusterMap("test", 1, 2, 2, {}, {}, (shard(inc("a"), epoch=1),))
    assert begins_from_directories(None, options)
    assert begins_from_directories(blank, options)
    assert not begins_from_directories(decided, ClusterOptions("test"))
    with pytest.raises(UsageError, match="--adopt-from-directories"):
        begins_from_directories(decided, options)


# --- in the order of the service --------------------------------------------------------------------------


class Service:
    """A coordination service that makes its map anew."""

    def __init__(self) -> None:
        options = ClusterOptions("test", adopt_directories=True)
        self.now_ns = 0
        self.service = CoordinationService(
            blank_map(options),
            CoordinatorSettings(),
            ControllerSettings(0.0, 0.0),
            0,
            WALL_MS,
            proven=True,
            adoption=Adoption(options, 0),
        )

    def receive(
        self, sender: str, *messages: m.Received, role: str = wire.ROLE_PEER
    ) -> list[fx.ServiceEffect]:
        """Return what follows, each map written at once."""
        self.service.receive(sum(sender.encode()), inc(sender), role, messages)
        effects = self.service.step(self.now_ns, WALL_MS * 1000)
        while effects and isinstance(effects[-1], fx.Persist):
            effects += self.service.written(self.now_ns, WALL_MS * 1000)
        return effects

    def code(self, effects: list[fx.ServiceEffect]) -> str:
        """Return the code of the goodbye that is all that follows."""
        (reply,) = effects
        assert isinstance(reply, fx.Reply)
        assert reply.last
        (goodbye,) = reply.messages
        assert isinstance(goodbye, wire.Goodbye)
        return goodbye.code

    def adopted(self) -> ClusterMap:
        self.now_ns = self.service.next_deadline()
        effects = self.service.step(self.now_ns, WALL_MS * 1000)
        (persist,) = [effect for effect in effects if isinstance(effect, fx.Persist)]
        assert effects[-1] == persist
        assert persist.vouched
        assert fx.Publish(persist.map, None) in self.service.written(self.now_ns, WALL_MS * 1000)
        return persist.map


SUBSCRIBE = wire.Subscribe(0, 0)


def test_a_supervisor_that_says_whose_it_is_is_asked_on() -> None:
    """It is told nothing of that; with its next question it says it again."""
    service = Service()
    service.receive("a again", shows("a", known("ab", 3)), SUBSCRIBE)
    assert service.code(service.receive("supervisor", m.Heartbeat("b", 0, 0), SUBSCRIBE)) == m.SHOW_DIRECTORY
    (reply,) = service.receive("operator", m.ForgetNode(7, "b"), role=wire.ROLE_OPERATOR)
    assert isinstance(reply, fx.Reply)
    (rejected,) = reply.messages
    assert isinstance(rejected, m.Rejected)
    assert "node b is back" in rejected.reason


def test_whoever_comes_is_asked_once_and_nothing_is_decided() -> None:
    service = Service()
    assert service.code(service.receive("a again", SUBSCRIBE)) == m.SHOW_DIRECTORY
    assert service.code(service.receive("supervisor", SUBSCRIBE)) == m.SHOW_DIRECTORY
    shown = shows("a", known("ab", 3))
    assert service.code(service.receive("a again", shown, SUBSCRIBE)) == ADOPTING
    (reply,) = service.receive("supervisor", m.RegisterNode(4, node("a")))
    assert isinstance(reply, fx.Reply)
    (rejected,) = reply.messages
    assert isinstance(rejected, m.Rejected)
    assert "node b" in rejected.reason


def test_an_operator_who_gives_a_node_up_is_answered() -> None:
    """Else the command asks again, until there is a map; then its word would mean the node's directories."""
    service = Service()
    service.receive("a again", shows("a", known("ab", 3)), SUBSCRIBE)
    (reply,) = service.receive("operator", SUBSCRIBE, m.ForgetNode(7, "b"), role=wire.ROLE_OPERATOR)
    assert isinstance(reply, fx.Reply)
    assert not reply.last
    (accepted,) = reply.messages
    assert isinstance(accepted, m.Accepted)
    assert service.adopted().shards[0].members == (inc("a"), inc("b"))


def test_a_node_is_not_forgotten_before_it_can_have_come() -> None:
    """Its actors are yet to open the directories in which the map made anew counts them."""
    service = Service()
    service.receive("a again", shows("a", known("a", 3)), SUBSCRIBE)
    service.adopted()
    (reply,) = service.receive("operator", m.ForgetNode(7, "a"), role=wire.ROLE_OPERATOR)
    assert isinstance(reply, fx.Reply)
    (rejected,) = reply.messages
    assert isinstance(rejected, m.Rejected)
    assert "if the coordinator has just started, try again" in rejected.reason


def test_heirs_recover_their_shards_from_the_map_made_anew() -> None:
    """It is not known how the former ones wrote, so all of them are awaited, as after any power cut."""
    service = Service()
    service.receive("a again", shows("a", known("ab", 3)), SUBSCRIBE)
    service.receive("b again", shows("b", known("ab", 3)), SUBSCRIBE)
    adopted = service.adopted()
    assert adopted.epochs == (3 + LINEAGE_EPOCHS,)
    for name in "ab":
        service.receive(f"node {name}", SUBSCRIBE, m.RegisterNode(1, node(name)))
        heir = durable(inc(f"{name} again"), SLOTS[name], f"directory {name}", mark=6)
        service.receive(f"node {name}", m.RegisterActor(2, heir))
    for name, last in (("a", (3, 7)), ("b", (3, 9))):
        heir_of = inc(f"{name} again")
        claim = m.Proposal(0, 3 + LINEAGE_EPOCHS, nonce(ord(name)), "recover", heir_of, (), last)
        service.receive(f"{name} again", SUBSCRIBE, m.Propose(1, heir_of, (claim,)))
    (entry,) = service.service.map.shards
    assert (entry.epoch, entry.members) == (4 + LINEAGE_EPOCHS, (inc("b again"),))


def test_a_coordinator_with_a_map_takes_no_notice_of_directories() -> None:
    service = Service()
    service.receive("a again", shows("a", known("a", 3)), SUBSCRIBE)
    service.adopted()
    effects = service.receive("a again", shows("a", known("a", 3)), SUBSCRIBE)
    assert any(isinstance(effect, fx.Subscribe) for effect in effects)
