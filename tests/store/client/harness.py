"""A dialog in virtual time, with a script in the place of the network."""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from greenroom import wire
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry, ShardEntry, delta_between
from greenroom.dialog import Abort, Close, Dialog, DialogSettings, Open, operations
from greenroom.dialog.near import NearCache
from greenroom.ending_messages import WatchRequest
from greenroom.framing import FrameBuffer, encode_frames, encode_greeting, messages_decoder
from greenroom.near_messages import NearBeacon, NearLease, NearRequest

MS = 1_000_000
SECOND = 1_000_000_000
A, B = b"A" * 16, b"B" * 16
ADDRESS = {A: "10.0.0.1:1", B: "10.0.0.2:1"}
SEEDS = ("node1:1", "node2:1")
SHARDS = 4

_decode_greeting = msgspec.msgpack.Decoder(wire.Hello).decode
_decode_messages = messages_decoder(wire.ClientMessage | NearRequest | WatchRequest).decode


def point(shard: int) -> int:
    return shard << 14


def cluster_map(primaries: str = "ABAB", version: int = 1, lineage: int = 1, **changes: Any) -> ClusterMap:
    """A map of two actors; `primaries` names each shard's ("-": not started)."""
    names = {"A": A, "B": B, "-": b""}
    fields: dict[str, Any] = {
        "cluster": "greenroom",
        "lineage": lineage,
        "version": version,
        "replicas": 2,
        "nodes": {f"n{i}": NodeEntry(f"n{i}", address, "up") for i, address in enumerate(SEEDS)},
        "actors": {i: ActorEntry(i, "n0", f"n0/{i[:1]!r}", at, "up", "h", 1, 1) for i, at in ADDRESS.items()},
        "shards": tuple(ShardEntry(1, names[name], (), b"", ()) for name in primaries),
    }
    return ClusterMap(**{**fields, **changes})


class Script:
    """Drives one dialog. Links are named by their numbers; `sent` keeps what was written on each."""

    def __init__(
        self,
        seeds: tuple[str, ...] = SEEDS,
        near: NearCache | None = None,
        *,
        features: tuple[str, ...] | None = None,
        **settings: Any,
    ) -> None:
        self.now = SECOND
        known = DialogSettings(seeds=seeds, **settings)
        self.dialog = Dialog(lambda size: b"c" * size, known, Random(7), near)
        usual = wire.FEATURES if near is not None else ()
        self.features: tuple[str, ...] = usual if features is None else features
        """What actors have besides the version, by their hellos."""
        self.opening: dict[int, str] = {}
        self.open: dict[int, str] = {}
        self.aborted: list[int] = []
        self.closed: list[int] = []
        self.sent: dict[int, list[Any]] = {}
        self.writes: list[int] = []
        self.outcomes: dict[Any, list[Any]] = {}
        self._buffers: dict[int, FrameBuffer] = {}
        self._greeted: set[int] = set()
        self.map = cluster_map()
        self.reaction: Callable[[str], None] | None = None
        """What becomes of every connection that is opened while time passes, given its address."""

    # --- what the driver does ----------------------------------------------------------------------------

    def settle(self) -> "Script":
        """Take out everything that the dialog wants done."""
        dialog = self.dialog
        for token, outcome in [*dialog.replies, *dialog.failures]:
            self.outcomes.setdefault(token, []).append(outcome)
        dialog.replies, dialog.failures = [], []
        for action in dialog.board.actions:
            match action:
                case Open():
                    self.opening[action.link] = action.address
                case Abort() | Close():
                    self.opening.pop(action.link, None)
                    self.open.pop(action.link, None)
                    (self.aborted if isinstance(action, Abort) else self.closed).append(action.link)
        dialog.board.actions.clear()
        for number, data in dialog.board.take_writes():
            self.writes.append(number)
            buffer = self._buffers.setdefault(number, FrameBuffer())
            sent = self.sent.setdefault(number, [])
            for payload in buffer.feed(data):
                greeted = number in self._greeted
                sent += _decode_messages(payload) if greeted else [_decode_greeting(payload)]
                self._greeted.add(number)
        return self

    def pass_time(self, ns: int) -> "Script":
        """Let time pass, ticking when the dialog asks for it."""
        end = self.now + ns
        for _ in range(10_000):
            if self.dialog.wake_ns > end:
                break
            self.now = max(self.now, self.dialog.wake_ns)
            self.dialog.tick(self.now)
            self.settle()
            for address in list(self.opening.values()) if self.reaction is not None else ():
                self.reaction(address)
        else:
            raise AssertionError("the dialog asks to be woken again and again")
        self.now = end
        return self

    # --- connections -------------------------------------------------------------------------------------

    def number_of(self, address: str) -> int:
        """The newest link to this address that is being opened or open."""
        return max(n for n, at in {**self.opening, **self.open}.items() if at == address)

    def establish(self, address: str) -> int:
        """The connection is established; the server has not said hello."""
        number = max(n for n, at in self.opening.items() if at == address)
        self.open[number] = self.opening.pop(number)
        self.dialog.opened(self.now, number)
        self.settle()
        assert isinstance(self.sent[number][0], wire.Hello)
        return number

    def accept(self, address: str, sender: bytes | None = None) -> int:
        """The connection is established and the server says hello."""
        number = self.establish(address)
        target = self.sent[number][0].target
        self.send(
            number,
            wire.Hello(
                wire.PROTOCOL_VERSION,
                1,
                "greenroom",
                "actor",
                sender or target or address.encode(),
                features=self.features,
            ),
        )
        return number

    def lose(self, number: int, reason: str = "connection refused") -> "Script":
        self.opening.pop(number, None)
        self.open.pop(number, None)
        self.dialog.lost(self.now, number, reason)
        return self.settle()

    def send(self, number: int, *messages: Any) -> "Script":
        """The server sends messages, or raw bytes."""
        for message in messages:
            if isinstance(message, bytes):
                data = message
            elif isinstance(message, wire.Goodbye):
                data = encode_greeting(message)
            else:
                data = bytes(encode_frames([message], 16 << 20))
            self.dialog.received(self.now, number, data)
        return self.settle()

    def publish(self, new: ClusterMap) -> "Script":
        """Every open subscription brings the change to this map."""
        change = wire.MapChange(delta_between(self.map, new))
        self.map = new
        for number, address in list(self.open.items()):
            if address not in ADDRESS.values():
                self.send(number, change)
        return self

    def move(self, primaries: str) -> "Script":
        return self.publish(cluster_map(primaries, self.map.version + 1))

    # --- operations --------------------------------------------------------------------------------------

    def submit(self, name: str, shard: int = 0, token: Any = None) -> int:
        """Submit such an operation; return its request id. The token is the id unless given."""
        number = self.dialog.next_id()
        low = self.dialog.low
        at, digest = point(shard), bytes(32)
        requests: dict[str, tuple[Any, operations.Kind]] = {
            "get": (wire.Get(number, at, digest), operations.GET),
            "create": (
                wire.Create(number, low, 0, at, digest, None, 0, 1, None, "", b"\x80"),
                operations.CREATE,
            ),
            "update": (
                wire.Update(number, low, 0, at, digest, None, 1, "", b"\x80", None),
                operations.UPDATE,
            ),
            "update_if": (
                wire.Update(number, low, 0, at, digest, None, 1, "", b"\x80", 3),
                operations.UPDATE_IF,
            ),
            "delete": (wire.Delete(number, low, 0, at, digest), operations.DELETE),
            "patch": (wire.Patch(number, low, 0, at, digest, (), (), (), None, None), operations.PATCH),
            "patch_if": (
                wire.Patch(number, low, 0, at, digest, (), (), (), None, None),
                operations.PATCH_IF,
            ),
            "rotate": (
                wire.Rotate(number, low, 0, at, digest, b"n" * 32, (), (), None, None),
                operations.ROTATE,
            ),
            "delete_by_handle": (
                wire.DeleteByHandle(number, low, 0, at, digest, "u"),
                operations.DELETE_BY_HANDLE,
            ),
        }
        fanouts: dict[str, tuple[Any, operations.Kind]] = {
            "delete_by_user": (wire.DeleteByUser(number, low, 0, "u", b"", ()), operations.DELETE_BY_USER),
            "clean": (wire.Clean(number, low, 0, ()), operations.CLEAN),
            "list_by_user": (wire.ListByUser(number, "u", 10, ()), operations.LIST_BY_USER),
            "check": (wire.ListByUser(number, "", 1, ()), operations.CHECK),
            "check_every_shard": (wire.ListByUser(number, "", 1, ()), operations.CHECK_EVERY_SHARD),
        }
        if name in fanouts:
            self.dialog.gather(self.now, *fanouts[name], number if token is None else token)
        else:
            self.dialog.submit(self.now, *requests[name], number if token is None else token)
        self.settle()
        return number

    def outcome(self, token: Any) -> Any:
        """The one outcome of an operation."""
        outcomes = self.outcomes.get(token, [])
        assert len(outcomes) == 1, f"{token} has {len(outcomes)} outcomes"
        return outcomes[0]

    def requests(self, number: int) -> list[Any]:
        """What was asked on a link, without the hello."""
        return [each for each in self.sent.get(number, []) if not isinstance(each, wire.Hello)]


def connected(primaries: str = "ABAB", **settings: Any) -> tuple[Script, int, int]:
    """A script with the map known and both actors connected: (script, link to A, link to B)."""
    script = Script(**settings)
    script.map = cluster_map(primaries)
    first = [script.submit("get", primaries.index(name)) for name in "AB" if name in primaries]
    for seed in SEEDS:
        script.send(script.accept(seed), wire.MapFull(script.map))
    links = []
    for incarnation in (A, B):
        try:
            links.append(script.accept(ADDRESS[incarnation]))
        except ValueError:
            links.append(0)
    for link in links:
        for request in script.requests(link):
            if isinstance(request, NearBeacon):
                script.send(link, NearLease(request.sent_ns, 0))
            else:
                script.send(link, wire.Missing(request.request_id))
    assert all(isinstance(script.outcome(each), wire.Missing) for each in first)
    for link in links:
        script.sent.get(link, []).clear()
    script.writes.clear()
    return script, links[0], links[1]
