"""What must be shown, whether it is, and what stands in the way where it is not. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import median

import msgspec

_PAUSE_SECONDS = 0.02
ROUNDS_MIN = 3
"""With fewer rounds a verdict says how many there were."""
CPU_AT = {64: "", 1: "_at_1", 8: "_at_8", 512: "_at_512"}
"""At how many callers server CPU is compared, and how the names of the ratios end."""


class Target(msgspec.Struct, frozen=True):
    """A bound for a ratio: at least, or at most. Of what is `counted`, one is one too many, by no noise."""

    ratio: str
    bound: float
    at_least: bool
    about: str
    counted: bool = False

    def holds(self, figure: float) -> bool:
        """Whether the figure keeps the bound."""
        return figure >= self.bound if self.at_least else figure <= self.bound


def least(name: str, bound: float, about: str) -> Target:
    """Return a bound that a ratio must reach."""
    return Target(name, bound, at_least=True, about=about)


def most(name: str, bound: float, about: str) -> Target:
    """Return a bound that a ratio must not pass."""
    return Target(name, bound, at_least=False, about=about)


def none_of(name: str, about: str) -> Target:
    """Return that nothing of the kind may be counted."""
    return Target(name, 0, at_least=False, about=about, counted=True)


def _callers(number: int) -> str:
    return "1 caller" if number == 1 else f"{number} callers"


TARGETS = (
    least("reads_vs_redis_py", 6, "64 callers: reads a second, to redis-py"),
    least("replicated_writes_vs_redis_wait", 6, "64 callers: replicated writes a second, to SET + WAIT 1"),
    least("reads_vs_valkey_glide", 3, "64 callers: reads a second, to valkey-glide"),
    least(
        "replicated_writes_vs_valkey_glide",
        3,
        "64 callers: replicated writes, to valkey-glide's unreplicated",
    ),
    least("reads_vs_emcache", 1.5, "64 callers: reads a second, to emcache"),
    least(
        "replicated_writes_vs_emcache",
        1.5,
        "64 callers: replicated writes, to emcache's unreplicated",
    ),
    least("reads_vs_echo", 0.55, "64 callers: reads a second, to a bare echo"),
    least("replicated_writes_vs_echo", 0.4, "64 callers: replicated writes a second, to a bare echo"),
    most("p50_get_vs_redis_py", 1.1, "1 caller: p50 of a get, to redis-py's"),
    most("p50_replicated_write_vs_redis_wait", 1.1, "1 caller: p50 of a write, to SET + WAIT 1's"),
    most("p99_vs_p50_get", 3, "64 callers: p99 of a get, to its p50"),
    most("p99_vs_p50_replicated_write", 3, "64 callers: p99 of a replicated write, to its p50"),
    *(
        target
        for callers, suffix in CPU_AT.items()
        for target in (
            most(
                f"server_cpu_get_vs_redis{suffix}", 1, f"{_callers(callers)}: server CPU of a get, to Redis's"
            ),
            most(
                f"server_cpu_replicated_write_vs_redis{suffix}",
                1.5,
                f"{_callers(callers)}: server CPU of a write, to Redis's master and replica",
            ),
        )
    ),
    most("client_cpu_vs_redis_py", 0.25, "client CPU of a get, to redis-py's"),
    most(
        "client_cpu_replicated_write_vs_redis_wait",
        0.25,
        "client CPU of a write, to SET + WAIT 1's",
    ),
    most("bytes_per_session_vs_redis", 1.3, "memory of a session with its replica, to Redis's"),
    most(
        "get_p50_most_vs_fewest_stored",
        1.2,
        "p50 of a get with the most sessions stored, to the fewest",
    ),
    most("recovery_vs_sentinel", 1, "time to recover after a node is killed, to Redis with Sentinel"),
    none_of("acknowledged_writes_lost", "acknowledged writes lost in all failovers"),
    none_of("stale_reads", "answers older than an acknowledged write, in all failovers"),
)


_SERVERS = (
    "the servers run Python, and an actor spends most of its time in the interpreter: each write is logged "
    "twice, applied twice and takes three messages; the peers' servers are written in C"
)
_FEW = (
    "with few callers a batch holds few records: each record bears more of the batch's cost, and the "
    "interpreter starts each batch with cold caches. A fifth of a get's CPU, and a twentieth of a write's, "
    "goes to staying awake while a request is likely within 250 µs, which halves a write's latency"
)
_CLIENT = (
    "the client runs Python: it hashes and routes the id, builds the request, reads the reply and builds the "
    "session, besides the future and the task step that the echo needs too"
)
OBSTACLES = {
    "reads_vs_redis_py": _CLIENT,
    "replicated_writes_vs_redis_wait": _SERVERS + ". Python weighs less with more callers, as batches grow",
    "replicated_writes_vs_valkey_glide": _SERVERS,
    "reads_vs_emcache": (
        "emcache, written in Cython, asks for all sessions of one iteration of the loop with one command; "
        + _CLIENT
    ),
    "replicated_writes_vs_emcache": _SERVERS + ", and memcached writes to no replica",
    "reads_vs_echo": "the echo makes one future for each frame and does nothing else; " + _CLIENT,
    "replicated_writes_vs_echo": "an echo makes one hop, a replicated write two; " + _SERVERS,
    "p50_get_vs_redis_py": "a Python process takes longer to wake than a C process",
    "p50_replicated_write_vs_redis_wait": (
        "a write makes two hops between Python processes, each woken for one record; Redis's master answers "
        "`WAIT` in C"
    ),
    **{
        name: _FEW
        for suffix in ("_at_1", "_at_8")
        for name in (f"server_cpu_get_vs_redis{suffix}", f"server_cpu_replicated_write_vs_redis{suffix}")
    },
    "bytes_per_session_vs_redis": (
        "on each replica, a session is a Struct with bytes and ints, and an entry in the table and in the "
        "expiry index"
    ),
    "pause_sweep_ms": (
        "each step of the sweep looks at sweep_looks_max sessions, and the peer applies as many, in Python; "
        "the next step follows after sweep_pause_seconds"
    ),
}
"""Why a target is missed; `benchmarks.costs` shows it stage by stage."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether a target is met; `figure` None: it was not measured, so neither.

    `rounds` is how many there were, `spread` the lowest and the highest, None where there are not several;
    `quick` whether it was a quick run.
    """

    target: Target
    figure: float | None
    met: bool | None
    spread: tuple[float, float] | None = None
    quick: bool = False
    rounds: int = 1

    @property
    def few(self) -> bool:
        """Whether it rests on so few rounds that the next one may say otherwise."""
        return self.rounds < ROUNDS_MIN

    @property
    def within_spread(self) -> bool:
        """Whether some rounds meet the bound and others miss it."""
        return self.spread is not None and len({self.target.holds(each) for each in self.spread}) > 1

    @property
    def sure(self) -> bool:
        """Whether noise alone is no explanation."""
        if self.target.counted and self.met is False:
            return True
        return not (self.quick or self.few or self.within_spread)

    @property
    def obstacle(self) -> str:
        """Why the target is missed."""
        if self.sure:
            return OBSTACLES.get(self.target.ratio, "not looked into")
        if self.quick:
            return "not known: a quick run can miss by noise alone; measure more rounds, without `--quick`"
        if self.within_spread:
            return (
                "not known: some rounds met the bound and others missed it; measure more rounds (`--rounds`)"
            )
        return f"not known: measure more rounds (`--rounds`) than {self.rounds}"


def verdict_of(
    target: Target, figure: float | None, each: Sequence[float], *, quick: bool, rounds: int | None = None
) -> Verdict:
    """Hold a figure against a target.

    `each` are the figures of all rounds, `rounds` how many there were if these are not known.
    """
    return Verdict(
        target,
        figure,
        met=None if figure is None else target.holds(figure),
        spread=(min(each), max(each)) if len(each) > 1 else None,
        quick=quick,
        rounds=len(each) if rounds is None else rounds,
    )


def medians_judged(
    targets: Iterable[Target],
    ratios: Mapping[str, Sequence[float]],
    *,
    quick: bool,
    highest: Collection[str] = (),
) -> list[Verdict]:
    """Hold the median of all rounds against each target.

    Of the ratios in `highest` it is the highest round, and what is counted is counted in all rounds.
    """
    found = []
    for target in targets:
        each = ratios[target.ratio]
        middle = sum if target.counted else max if target.ratio in highest else median
        found.append(verdict_of(target, middle(each) if each else None, each, quick=quick))
    return found


def verdicts_of(
    ratios: Mapping[str, float | None],
    rounds: Mapping[str, Sequence[float]] | None = None,
    quick: Collection[str] = (),
    counts: Mapping[str, int] | None = None,
) -> list[Verdict]:
    """Hold the ratios against the targets, and the pauses against Redis's.

    `rounds` are the ratios of each round, or where there is none a round `counts` says how many there were;
    `quick` are the names of those that quick runs measured.
    """
    found = []
    for target in (*TARGETS, *_pause_targets(ratios)):
        name = target.ratio
        each = (rounds or {}).get(name, ())
        count = len(each) or (counts or {}).get(name, 1)
        found.append(verdict_of(target, ratios.get(name), each, quick=name in quick, rounds=count))
    return found


def _pause_targets(ratios: Mapping[str, float | None]) -> list[Target]:
    """Return the bounds of pauses: 20 ms, or what Redis has if that is more."""
    found = []
    for name, when in (("most_stored", "with the most sessions stored"), ("sweep", "while sessions expire")):
        redis = ratios.get(f"pause_{name}_redis_ms")
        bound = max(_PAUSE_SECONDS * 1e3, redis or 0.0)
        found.append(most(f"pause_{name}_ms", bound, f"p99.99 of a get {when}, in ms; bound: 20 or Redis's"))
    return found
