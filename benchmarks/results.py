"""What a run has measured, as it is kept in `results.json`; everything shown is computed from this."""

import msgspec

from benchmarks.samples import Sample


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One contender at one work in one round. `clients` processes of `callers` each; `size` in bytes."""

    round: int
    contender: str
    work: str
    size: int
    callers: int
    clients: int = 1
    sample: Sample


class StoredReading(msgspec.Struct, frozen=True, kw_only=True):
    """One contender with `stored` sessions. `grown_bytes` is the resident growth since it was empty.

    `alone` and `crowded` are gets of 1 and of 64 callers, `paced` gets of a few callers who pause: what a
    pause of the server does to a site that is not at its limit.
    """

    contender: str
    stored: int
    size: int
    fill_seconds: float
    grown_bytes: int
    alone: list[Sample]
    crowded: list[Sample]
    paced: Sample


class SweepReading(msgspec.Struct, frozen=True, kw_only=True):
    """`swept` sessions expired at once.

    `seconds` until they were gone, None if at the end of the measurement `left` of them still took memory.
    """

    contender: str
    stored: int
    swept: int
    seconds: float | None
    left: int
    before: Sample
    during: Sample


class FailoverReading(msgspec.Struct, frozen=True, kw_only=True):
    """One failure under load, times in seconds.

    `unavailable` is the longest time that a caller's reads, or its writes, went without an answer,
    `recovered` the time from the fault to the end of the last such wait that anybody would notice; `whole`
    whether all callers were served again at the end.
    """

    scenario: str
    contender: str
    unavailable: float
    recovered: float
    whole: bool
    operations: int
    failed: int
    errors: dict[str, int]
    acknowledged_writes: int
    lost_writes: int
    stale_reads: int


class TransferReading(msgspec.Struct, frozen=True, kw_only=True):
    """A replica lost and filled again with `stored_bytes`.

    `seconds` from its start until everything has two replicas, `startup` of these until its process serves.
    """

    contender: str
    stored_bytes: int
    seconds: float
    startup: float
    before: Sample
    during: list[Sample]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """When, where and how one part was measured, and what was left out of it.

    `kind` is full, reduced or quick; `rounds` and `seconds` what was asked for; `load` the machine's before
    anything ran; `commit` that of the code, with a plus if it was changed since.
    """

    when: str
    kind: str
    rounds: int
    seconds: float
    took_seconds: float
    load: float
    commit: str = ""
    machine: dict[str, str] = {}
    versions: dict[str, str] = {}
    skipped: dict[str, str] = {}

    @property
    def quick(self) -> bool:
        """Whether it was a small run, whose figures may be noise."""
        return self.kind == "quick"

    @property
    def busy(self) -> bool:
        """Whether processes of others took part in the figures."""
        return self.load > BUSY


class Results(msgspec.Struct, kw_only=True):
    """Everything, and the run of each part."""

    runs: dict[str, Run] = {}
    throughput: list[Reading] = []
    scaling: list[Reading] = []
    stored: list[StoredReading] = []
    sweeps: list[SweepReading] = []
    failovers: list[FailoverReading] = []
    transfers: list[TransferReading] = []


BUSY = 0.5
"""From this load on, processes of others take part in the figures."""

PARTS: dict[str, tuple[str, ...]] = {
    "throughput": ("throughput",),
    "scaling": ("scaling",),
    "stored": ("stored", "sweeps"),
    "failover": ("failovers",),
    "transfer": ("transfers",),
}
"""The fields that each part of the work fills."""


def merged(older: Results, newer: Results) -> Results:
    """Return the newer results, with the parts that they lack taken from the older ones."""
    result = msgspec.structs.replace(newer)
    result.runs = {part: run for part in PARTS if (run := newer.runs.get(part) or older.runs.get(part))}
    for part, fields in PARTS.items():
        if part not in newer.runs and part in older.runs:
            for field in fields:
                setattr(result, field, getattr(older, field))
    return result
