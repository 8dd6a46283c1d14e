"""Following the cluster map by subscriptions to its changes at two nodes.

With two of them, the death of one node costs nothing, and changes arrive by the faster way. When one breaks,
the follower picks another node: first nodes that are up by the map, then other nodes, and always the seeds
too. A store that has named its zone follows at one node there and at one elsewhere, so that neither the loss
of its zone nor that of the others leaves it without the map. It takes a map only if that is newer than the
one held, and asks for the whole map if a change does not fit the one held.

A node may belong to another cluster of the same name, started anew at these addresses. The follower ignores
it, and tries it again until no process of its own cluster answers (`succession`); then it takes that node's
map.

An idle connection to a vanished machine looks alive. So when requests go unanswered, or a server names a
newer map than ours, the follower asks each subscription for the whole map, and drops those that stay silent.
"""

from random import Random

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom.dialog.lanes import Lanes
from greenroom.dialog.links import Link, Switchboard
from greenroom.dialog.succession import Succession
from greenroom.errors import RemoteProtocolError
from greenroom.loopback import BEYOND_LOOPBACK
from greenroom.proofs import NOT_PROVEN
from greenroom.routing import Router

SUBSCRIPTIONS = 2
ANSWER_NS = 1_000_000_000
RETRY_NS_MIN = 20_000_000
RETRY_NS_MAX = 1_000_000_000
WANT_CERTIFICATE = frozenset({"not-allowed", "tls-required"})
"""Codes of goodbyes from a node that would serve this client if it showed the right certificate."""
WANT_SECRET = frozenset({"secret-required", NOT_PROVEN})
"""Codes of nodes that would serve this client if both knew one secret."""


class MapFollower:
    """Keeps the subscriptions and the newest map, as a `router`: None until a node has answered."""

    def __init__(
        self,
        seeds: tuple[str, ...],
        cluster: str,
        board: Switchboard,
        lanes: Lanes,
        notices: list[str],
        random: Random,
        zone: str = "",
    ) -> None:
        self.router: Router | None = None
        self._notices = notices
        self._lanes = lanes
        self._succession = Succession()
        self._bereft = False
        self._reasons: dict[str, str] = {}
        self._refusals: dict[str, str] = {}
        self._seeds = seeds
        self._cluster = cluster
        self._zone = zone
        self._board = board
        self._random = random
        self._subscriptions: list[Link] = []
        self._failures: dict[str, int] = {}
        self._retry_ns: dict[str, int] = {}

    # --- connections -------------------------------------------------------------------------------------

    def maintain(self, now_ns: int) -> None:
        """Keep two subscriptions open; drop those that no longer answer."""
        for link in list(self._subscriptions):
            if link.asked_whole_ns and now_ns >= link.asked_whole_ns + ANSWER_NS:
                self._board.abort(link)
                self.lost(link, "it did not send the cluster map in time", now_ns)
        self._come_near(now_ns)
        taken = {link.address for link in self._subscriptions}
        for address in self._candidates():
            if len(self._subscriptions) >= SUBSCRIPTIONS:
                break
            if address not in taken and self._retry_ns.get(address, 0) <= now_ns:
                self._subscriptions.append(self._board.open(address, None, now_ns))

    def _come_near(self, now_ns: int) -> None:
        """If all subscriptions are outside our zone, make room for a node there that has not failed us."""
        near = self._near()
        if len(self._subscriptions) < SUBSCRIPTIONS or self._is_near(near):
            return
        untried = near - self._failures.keys()
        if any(self._retry_ns.get(address, 0) <= now_ns for address in untried):
            link = min(self._subscriptions, key=lambda link: link.brought)
            self._board.close(link)
            self._subscriptions.remove(link)

    def _near(self) -> set[str]:
        """Return the addresses of the nodes that are up in our zone."""
        if self.router is None or not self._zone:
            return set()
        nodes = self.router.map.nodes.values()
        return {node.address for node in nodes if (node.zone, node.state) == (self._zone, "up")}

    def _is_near(self, near: set[str]) -> bool:
        return any(link.address in near for link in self._subscriptions)

    def _candidates(self) -> list[str]:
        """Return node addresses in the order in which to try them."""
        seeds = list(self._seeds)
        self._random.shuffle(seeds)
        if self.router is None:
            return seeds
        rank = {"up": 0, "leaving": 1}
        near = self._near()
        has_near = self._is_near(near)
        nodes = [
            (rank.get(node.state, 2), (node.address in near) == has_near, self._random.random(), node.address)
            for node in self.router.map.nodes.values()
        ]
        found = dict.fromkeys([address for *_, address in sorted(nodes)] + seeds)
        return sorted(found, key=self._succession.was_missed)

    def greeted(self, link: Link, now_ns: int) -> None:
        """Subscribe, now that the node has said hello; or close the link if another is to the same node."""
        for other in self._subscriptions:
            if other is not link and other.greeted and other.peer == link.peer:
                self._board.close(link)
                self._subscriptions.remove(link)
                self._retry_ns[link.address] = NEVER_NS
                return
        self._failures.pop(link.address, None)
        self._reasons.pop(link.address, None)
        self._refusals.pop(link.address, None)
        if self.router is None:
            self._ask_whole(link, now_ns)
        else:
            held = self.router.map
            link.asked_whole_ns = now_ns
            self._board.write(link, wire.Subscribe(held.lineage, held.version, (), held.identity))

    @property
    def why_no_map(self) -> str:
        """The outcome of the attempts to reach a node, by address."""
        told = [f"{address}: {reason}" for address, reason in self._reasons.items() if address in self._seeds]
        return "; ".join(told) or "none has answered yet"

    @property
    def is_mistaken(self) -> bool:
        """Whether every address is wrong: what listens there is no node, or one of another cluster.

        True until one of the addresses, which are retried all the time, answers as a node should. If a map is
        held, its cluster must have stopped answering too.
        """
        return (self.router is None or self._bereft) and self._refusals.keys() >= set(self._seeds)

    @property
    def wants_certificate(self) -> bool:
        """Whether every address refuses this client for what it shows, or does not show, of itself."""
        return set(self._refusals.values()) <= WANT_CERTIFICATE

    @property
    def wants_tls(self) -> bool:
        """Whether every address is beyond loopback, and this client speaks plaintext."""
        return set(self._refusals.values()) <= {BEYOND_LOOPBACK}

    @property
    def wants_secret(self) -> bool:
        """Whether every address refuses this client because no secret is proven."""
        return set(self._refusals.values()) <= WANT_SECRET

    def lost(self, link: Link, reason: str, now_ns: int, *, refused: str = "") -> None:
        """Note that a subscription broke; `maintain` picks the next node.

        `refused`: the code by which the listener says that it will never serve this client.
        """
        if link not in self._subscriptions:
            return
        self._subscriptions.remove(link)
        self._reasons[link.address] = reason
        if refused:
            self._refusals[link.address] = refused
        else:
            self._refusals.pop(link.address, None)
        self._note_silence(link, now_ns)
        failures = self._failures[link.address] = self._failures.get(link.address, 0) + 1
        pause = min(RETRY_NS_MIN << min(failures, 10), RETRY_NS_MAX)
        self._retry_ns = {address: at for address, at in self._retry_ns.items() if now_ns < at < NEVER_NS}
        self._retry_ns[link.address] = now_ns + int(pause * self._random.uniform(0.5, 1.0))

    def heard(self, now_ns: int) -> None:
        """Note that the cluster whose map is held answers, or did until now."""
        self._succession.heard(now_ns)
        self._bereft = False

    def _note_silence(self, link: Link, now_ns: int) -> None:
        """Note that a subscription brings nothing from our cluster, or nothing more."""
        if self.router is None:
            return
        if link.brought:
            self.heard(now_ns)
        self._succession.missed(link.address)
        addresses = {*self._seeds, *(node.address for node in self.router.map.nodes.values())}
        self._bereft = (
            not any(other.brought for other in self._subscriptions)
            and self._succession.was_missed_at_all(addresses)
            and self._lanes.are_lost(now_ns)
            and self._succession.is_long_ago(now_ns)
        )

    def probe(self, now_ns: int) -> None:
        """Ask every subscription for the whole map, because ours may be old."""
        for link in self._subscriptions:
            if link.greeted and not link.asked_whole_ns:
                self._ask_whole(link, now_ns)

    def _ask_whole(self, link: Link, now_ns: int) -> None:
        link.asked_whole_ns = now_ns
        self._board.write(link, wire.Subscribe(0, 0))

    def due_ns(self) -> int | None:
        """When `maintain` is next due."""
        times = [link.asked_whole_ns + ANSWER_NS for link in self._subscriptions if link.asked_whole_ns]
        if len(self._subscriptions) < SUBSCRIPTIONS:
            nodes = self.router.map.nodes.values() if self.router is not None else ()
            addresses = {*self._seeds, *(node.address for node in nodes)}
            addresses -= {link.address for link in self._subscriptions}
            times += [at for address in addresses if (at := self._retry_ns.get(address, 0)) < NEVER_NS]
        return min(times, default=None)

    # --- maps --------------------------------------------------------------------------------------------

    def received(self, link: Link, message: object, now_ns: int) -> bool:
        """Take a message of a subscription; return whether the map changed. Raises RemoteProtocolError."""
        match message:
            case wire.MapFull():
                link.asked_whole_ns = 0
                return self._take(link, message.map, now_ns)
            case wire.MapChange():
                return self._take_change(link, message, now_ns)
            case _:
                raise RemoteProtocolError(f"a {type(message).__name__} came on a subscription to the map")

    def _take(self, link: Link, new: ClusterMap, now_ns: int) -> bool:
        if new.cluster != self._cluster:
            raise RemoteProtocolError(f"it sent the map of cluster {new.cluster!r}")
        if self.router is not None and new.is_foreign_to(self.router.map):
            return self._succeed(link, new, now_ns)
        link.brought = True
        self.heard(now_ns)
        if self.router is not None and not new.newer_than(self.router.map):
            return False
        self._hold(Router(new))
        return True

    def _hold(self, router: Router) -> None:
        self.router = router
        self._reasons.clear()
        self._refusals.clear()

    def _succeed(self, link: Link, new: ClusterMap, now_ns: int) -> bool:
        """Take the map of another cluster if ours no longer answers; else ignore that node."""
        router = Router(new)
        self._board.close(link)
        self.lost(link, "a node of another cluster of this name answers there", now_ns)
        if not self._bereft:
            return False
        self._retry_ns.clear()
        self._hold(router)
        self.heard(now_ns)
        self._notices.append(
            f"cluster {self._cluster!r} was started anew: the former one no longer answers, so the store "
            f"goes on with the one at {link.address}. The sessions of the former cluster are gone"
        )
        return True

    def _take_change(self, link: Link, change: wire.MapChange, now_ns: int) -> bool:
        delta = change.delta
        held = self.router.map if self.router is not None else None
        if held is not None and (delta.lineage, delta.version) <= (held.lineage, held.version):
            return False
        if link.brought:
            self.heard(now_ns)
        if held is None or (delta.lineage, delta.base) != (held.lineage, held.version):
            if not link.asked_whole_ns:
                self._ask_whole(link, now_ns)
            return False
        if any(not 0 <= index < held.shard_count for index, _ in delta.shards):
            raise RemoteProtocolError("a change of the map names a shard that does not exist")
        self.router = Router(held.apply(delta))
        return True
