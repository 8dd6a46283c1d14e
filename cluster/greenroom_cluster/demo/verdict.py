"""The count of what users saw, and the judgement over it. Pure."""

from collections.abc import Sequence

import msgspec

from greenroom_cluster.config import Durability
from greenroom_cluster.demo.ledger import Mismatch

SAMPLES_MAX = 20
ERROR = "error: "  # begins a sample of what users saw
EXIT_OK = 0
EXIT_LOST = 1
EXIT_NOT_MEASURED = 2


class DemoResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of one demo. Recovery is None if it was not seen; latencies are None without requests.

    `recover_all_seconds` is of the act that only a demo with a `durability` has, `new_leader_seconds` of the
    one that only a demo with a `store` has.
    """

    requests: int
    user_errors: int
    confirmed_writes: int
    lost_writes: int
    carts_checked: int
    wrong_carts: int
    stale_reads: int
    logouts_checked: int
    resurrected: int
    recover_actor_seconds: float | None
    recover_node_seconds: float | None
    latency_p50_seconds: float | None
    latency_p99_seconds: float | None
    longest_request_seconds: float | None
    browsers: int
    seed: int
    seconds: float
    problems: tuple[str, ...]
    durability: Durability = "none"
    recover_all_seconds: float | None = None
    store: str = ""
    new_leader_seconds: float | None = None
    tls: bool = False

    @property
    def exit_code(self) -> int:
        """0; 1 if anything confirmed was lost, changed or came back; 2 if the run measured too little."""
        if self.lost_writes or self.wrong_carts or self.stale_reads or self.resurrected:
            return EXIT_LOST
        recoveries = [self.recover_actor_seconds, self.recover_node_seconds]
        if self.durability != "none":
            recoveries.append(self.recover_all_seconds)
        if self.store:
            recoveries.append(self.new_leader_seconds)
        if None in recoveries or not self.confirmed_writes or not self.carts_checked:
            return EXIT_NOT_MEASURED
        return EXIT_OK


class Verdict:
    """Collects what the browsers saw. Carts and cookies are named by labels, never by ids."""

    def __init__(self) -> None:
        self.requests = 0
        self.user_errors = 0
        self.confirmed_writes = 0
        self.lost_writes = 0
        self.stale_reads = 0
        self.problems: list[str] = []
        self._errors: list[str] = []
        self._latencies: list[float] = []
        self._checked: set[str] = set()
        self._wrong: set[str] = set()
        self._ended: set[str] = set()
        self._resurrected: set[str] = set()

    def request(self, seconds: float) -> None:
        """Count a request that was answered, or given up, after so long."""
        self.requests += 1
        self._latencies.append(seconds)

    def user_error(self, what: str) -> None:
        """Count an error that a user saw where the shop should have served."""
        self.user_errors += 1
        # Apart: while nothing serves there are many, and they must not hide what was lost.
        if len(self._errors) < SAMPLES_MAX:
            self._errors.append(f"{ERROR}{what}")

    def confirmed(self) -> None:
        """Count a write that the shop confirmed."""
        self.confirmed_writes += 1

    def read_showed(self, cart: str, mismatches: Sequence[Mismatch]) -> None:
        """Judge a read during the run; any mismatch makes it stale and the cart wrong."""
        if mismatches:
            self.stale_reads += 1
            self._wrong.add(cart)
            self._note_mismatches(cart, "read", mismatches)

    def cart_checked(self, cart: str, views: Sequence[Sequence[Mismatch]]) -> None:
        """Judge the last look at a cart, through every worker: one list of mismatches for each.

        A write that is missing in several views is lost once.
        """
        self._checked.add(cart)
        lost: dict[str, int] = {}
        for mismatches in views:
            if mismatches:
                self._wrong.add(cart)
                self._note_mismatches(cart, "last check", mismatches)
            for mismatch in mismatches:
                lost[mismatch.cell] = max(lost.get(mismatch.cell, 0), mismatch.lost_writes)
        self.lost_writes += sum(lost.values())

    def session_lost(self, cart: str, confirmed_writes: int) -> None:
        """Count a session that nobody ended as gone, or unreadable, with all that was confirmed."""
        self._checked.add(cart)
        self._wrong.add(cart)
        self.lost_writes += max(1, confirmed_writes)
        self._note(f"{cart}: the session is gone, with {confirmed_writes} confirmed writes")

    def login_ended(self, cookie: str) -> None:
        """Note an id that was logged out or rotated away: it must never work again."""
        self._ended.add(cookie)

    def came_back(self, cookie: str, how: str) -> None:
        """Note an id that had ended and worked again."""
        self._resurrected.add(cookie)
        self._note(f"{cookie}: came back ({how})")

    def _note_mismatches(self, cart: str, when: str, mismatches: Sequence[Mismatch]) -> None:
        for mismatch in mismatches:
            expected = " or ".join(sorted(str(value) for value in mismatch.expected))
            self._note(f"{cart}, {when}: {mismatch.cell} shows {mismatch.shown}, confirmed was {expected}")

    def _note(self, problem: str) -> None:
        if len(self.problems) < SAMPLES_MAX:
            self.problems.append(problem)

    def result(
        self,
        *,
        recover_actor_seconds: float | None,
        recover_node_seconds: float | None,
        browsers: int,
        seed: int,
        seconds: float,
        durability: Durability = "none",
        recover_all_seconds: float | None = None,
        store: str = "",
        new_leader_seconds: float | None = None,
        tls: bool = False,
    ) -> DemoResult:
        """Return the figures."""
        latencies = sorted(self._latencies)
        return DemoResult(
            requests=self.requests,
            user_errors=self.user_errors,
            confirmed_writes=self.confirmed_writes,
            lost_writes=self.lost_writes,
            carts_checked=len(self._checked),
            wrong_carts=len(self._wrong),
            stale_reads=self.stale_reads,
            logouts_checked=len(self._ended),
            resurrected=len(self._resurrected),
            recover_actor_seconds=recover_actor_seconds,
            recover_node_seconds=recover_node_seconds,
            latency_p50_seconds=quantile(latencies, 0.5),
            latency_p99_seconds=quantile(latencies, 0.99),
            longest_request_seconds=latencies[-1] if latencies else None,
            browsers=browsers,
            seed=seed,
            seconds=seconds,
            problems=tuple([*self.problems, *self._errors][:SAMPLES_MAX]),
            durability=durability,
            recover_all_seconds=recover_all_seconds,
            store=store,
            new_leader_seconds=new_leader_seconds,
            tls=tls,
        )


def quantile(ascending: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least this share of the values does not exceed."""
    if not ascending:
        return None
    rank = max(1, -(-len(ascending) * share // 1))
    return ascending[min(len(ascending), int(rank)) - 1]
