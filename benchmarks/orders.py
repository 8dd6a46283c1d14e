"""What the benchmark asks of a client process, and its answers: one line of JSON each."""

from typing import Literal, TypeAlias

import msgspec

from benchmarks.samples import Sample

LoopName: TypeAlias = Literal["asyncio", "uvloop", "trio"]
WorkName: TypeAlias = Literal["get", "update", "patch", "mix", "web"]
WORKS: tuple[WorkName, ...] = ("get", "update", "patch", "mix", "web")


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """First line: which contender this process is, under which loop, and where its servers are."""

    client: str
    loop: LoopName
    addresses: dict[str, str]


class Fill(msgspec.Struct, frozen=True, kw_only=True, tag="fill"):
    """Store the sessions of the numbers `first` to `first + count`, each of `size` bytes.

    `expires_at` is seconds since 1970; 0 stands for a time after the benchmark.
    """

    first: int
    count: int
    size: int
    expires_at: float = 0.0
    callers: int = 128


class Choose(msgspec.Struct, frozen=True, kw_only=True, tag="choose"):
    """From now on operations go to `sample` of the sessions from `first` to `first + total`.

    One of them is read and compared with what was stored.
    """

    total: int
    sample: int
    size: int
    first: int = 0


class WarmUp(msgspec.Struct, frozen=True, kw_only=True, tag="warm_up"):
    """Have each of `callers` work once, so that connections of a pool are made before time is taken."""

    work: WorkName
    callers: int


class Measure(msgspec.Struct, frozen=True, kw_only=True, tag="measure"):
    """Have `callers` work for `seconds`. Errors end the measurement, unless `tolerant`.

    Each waits for its answer before it asks again, without a pause, or where `period_seconds` is above 0 at
    the times that come so long after each other: then latency counts from when it should have asked.
    """

    work: WorkName
    callers: int
    seconds: float
    period_seconds: float = 0.0
    tolerant: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True, tag="record"):
    """Have callers write and read the chosen sessions, each written once, and note what was acknowledged."""

    callers: int
    seconds: float
    pause_seconds: float


class Audit(msgspec.Struct, frozen=True, tag="audit"):
    """Read every session that was recorded and compare it with what had been acknowledged."""


Order: TypeAlias = Fill | Choose | WarmUp | Measure | Record | Audit


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """It is done; `seconds` is how long it took, `versions` those of the packages used."""

    seconds: float = 0.0
    versions: dict[str, str] = {}


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    """The result of `Measure`."""

    sample: Sample


class Recorded(msgspec.Struct, frozen=True, kw_only=True, tag="recorded"):
    """The result of `Record`: when each caller's reads and writes were answered (`time.monotonic`).

    `stale_reads` are answers older than what the same caller had been told was written.
    """

    began: float
    ended: float
    reads: list[list[float]]
    writes: list[list[float]]
    failures: list[float]
    errors: dict[str, int]
    stale_reads: int


class Audited(msgspec.Struct, frozen=True, kw_only=True, tag="audited"):
    """The result of `Audit`."""

    acknowledged_writes: int
    lost_writes: int


class Broken(msgspec.Struct, frozen=True, kw_only=True, tag="broken"):
    """The process cannot do it. `missing` names a package that is not installed."""

    reason: str
    missing: str = ""


Answer: TypeAlias = Done | Measured | Recorded | Audited | Broken
