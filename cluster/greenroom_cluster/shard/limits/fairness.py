"""Fair shares of long steps: whose costly requests are served next, and whose wait.

While a step runs, nobody else is served. A request that arrives during a step of 20 ms waits 10 ms on
average, so the cost to others grows with the square of the step's length. An identity (a host, or on the
loopback a connection) is charged that square for each long step that its requests cause, and pays it off over
time, at a tenth of the time that passes. While it is in debt, its costly requests wait, and identities in
debt take turns; cheap requests go on at once. An identity that is alone is charged, but waits for nobody.

Steps are measured where they run, and no charge exceeds what the work done in one can have taken. Short steps
cost nothing here, and only identities in debt are looked up.

Prior art: deficit round robin (Shreedhar and Varghese, SIGCOMM 1995), with deficits paid after the service as
in CFQ, because the cost of a request is known only then.
"""

from collections import deque

import msgspec

from greenroom_cluster.shard.clients.operations import Request

NS_PER_BYTE_MAX = 64
"""The most that a byte of a command costs to apply. Like the next three, a generous bound."""
NS_PER_REQUEST_MAX = 100_000
NS_PER_SHARD_MAX = 5_000
NS_PER_ENTRY_MAX = 5_000
"""What an entry of a listing costs."""
NS_PER_ITEM_MAX = 4_000
"""What an item of data costs that is read in Python."""
WALKED_ITEMS_MAX = 8192
"""After so many in a step, further requests that bring data wait for later steps."""
LONG_STEP_NS = 1_000_000
"""A step up to this length is not charged."""
SHARE = 0.1
"""The share of time for which an identity may make others wait, on average."""
DEBT_NS_MAX = 3_000_000_000
"""Nobody waits longer than this for one step: a store gives up after five seconds."""
ALONE_NS = 1_000_000_000
"""An identity is alone once no other has asked for this long."""
WAITING_MAX = 256
WAITING_BYTES_MAX = 4 << 20

COSTLY_BYTES = 16 * 1024
"""A command that brings and opens at least this much is costly: it is charged, and waits while in debt."""


class CostlyRequest(msgspec.Struct, frozen=True, gc=False):
    """A waiting request. `size` is about how many bytes it takes while it waits."""

    connection: int
    client: bytes
    identity: str
    request: Request
    size: int


class _Queue:
    __slots__ = ("bytes", "requests")

    def __init__(self) -> None:
        self.requests: deque[CostlyRequest] = deque()
        self.bytes = 0


class FairShare:
    """Debts of identities, and their costly requests that wait."""

    def __init__(self) -> None:
        # When each debt is paid off, for identities that are in debt or have requests waiting.
        self.debts: dict[str, int] = {}
        self.latest = ""
        self._queues: dict[str, _Queue] = {}
        self._shared_ns = -ALONE_NS

    def came(self, now_ns: int, identity: str) -> None:
        """Note that an identity asks for something, cheap or costly; not needed if it is the `latest`."""
        if identity != self.latest:
            self.latest = identity
            self._shared_ns = now_ns

    def charge(self, now_ns: int, identity: str, spent_ns: int) -> None:
        """Charge an identity for a step of this length, or for its part of one."""
        if spent_ns <= LONG_STEP_NS:
            return
        harm_ns = spent_ns * spent_ns // (2 * LONG_STEP_NS)
        until_ns = max(self.debts.get(identity, 0), now_ns) + int(harm_ns / SHARE)
        self.debts[identity] = min(until_ns, now_ns + DEBT_NS_MAX)

    def must_wait(self, now_ns: int, identity: str) -> bool:
        """Whether costly requests of this identity, which is in `debts`, have to wait."""
        if identity in self._queues:
            return True
        return self.debts[identity] > now_ns and not self._alone(now_ns)

    def wait(self, waiting: CostlyRequest) -> bool:
        """Have a request wait; return False if too many of its identity wait already."""
        queue = self._queues.get(waiting.identity)
        if queue is None:
            queue = self._queues[waiting.identity] = _Queue()
        if len(queue.requests) >= WAITING_MAX or queue.bytes + waiting.size > WAITING_BYTES_MAX:
            return False
        queue.requests.append(waiting)
        queue.bytes += waiting.size
        return True

    def put_off(self, now_ns: int, waiting: CostlyRequest) -> bool:
        """Have a request wait for a later step even if its identity owes nothing; False as in `wait`."""
        self.debts.setdefault(waiting.identity, now_ns)
        return self.wait(waiting)

    def drop(self, connection: int) -> None:
        """Forget the requests of a connection that is gone."""
        for identity, queue in list(self._queues.items()):
            left = [waiting for waiting in queue.requests if waiting.connection != connection]
            queue.requests = deque(left)
            queue.bytes = sum(waiting.size for waiting in left)
            if not left:
                del self._queues[identity]

    def due_ns(self) -> int:
        """Return when `take` may have something to return or to forget; only while there are `debts`."""
        if not self._queues:
            return max(self.debts.values())
        due_ns = min(self.debts[identity] for identity in self._queues)
        return min(due_ns, self._shared_ns + ALONE_NS + 1) if len(self._queues) == 1 else due_ns

    def take(self, now_ns: int) -> CostlyRequest | None:
        """Return the request whose turn it is, None if all must wait longer.

        One at a time, so that its cost is charged before the next is taken.
        """
        for identity in [each for each, paid_ns in self.debts.items() if paid_ns <= now_ns]:
            if identity not in self._queues:
                del self.debts[identity]
        alone = self._alone(now_ns)
        for identity, queue in self._queues.items():
            if not alone and self.debts[identity] > now_ns:
                continue
            waiting = queue.requests.popleft()
            queue.bytes -= waiting.size
            # Behind all others that wait.
            del self._queues[identity]
            if queue.requests:
                self._queues[identity] = queue
            return waiting
        return None

    def _alone(self, now_ns: int) -> bool:
        return now_ns - self._shared_ns > ALONE_NS and len(self._queues) <= 1
