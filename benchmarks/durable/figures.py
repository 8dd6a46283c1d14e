"""From readings to ratios, verdicts and a page. Pure."""

from collections.abc import Sequence
from statistics import median

import msgspec

from benchmarks.results import Reading, Run
from benchmarks.summary import Readings, p50_of
from benchmarks.tables import Table, page_of, readings_table, run_lines, spread_of, verdict_table
from benchmarks.verdicts import Verdict, least, most, verdict_of

NONE, INTERVAL, FSYNC = "greenroom, none", "greenroom, interval", "greenroom, fsync"
REDIS = "redis, appendfsync always"
OWN_DIRECTORY, EMPTY_DIRECTORY = "with its own directory", "with an empty one"
PARTS = ("writes", "recovery", "footprint")
STATE_BYTES_MIN = 128 << 20
"""With less state the log's least size decides what lies on the disk."""
_MEBIBYTE = 1 << 20


class RestartReading(msgspec.Struct, frozen=True, kw_only=True):
    """Everything was killed and started again with `stored` sessions on disk.

    `seconds` until all was back, counted since all its processes were up, which took `startup` from the first
    command on. Readings that do not say so are older, and counted since these existed, imports included.
    """

    round: int
    contender: str
    stored: int
    startup: float
    seconds: float
    disk_bytes: int
    since: str = "they exist"


class RejoinReading(msgspec.Struct, frozen=True, kw_only=True):
    """One actor was killed under load and started again, `how`.

    `seconds` from the kill until every shard had both replicas, `received_bytes` from the other actor.
    """

    how: str
    stored: int
    seconds: float
    received_bytes: int


class MemoryReading(msgspec.Struct, frozen=True, kw_only=True):
    """What the actors had in RAM, empty and with `stored` sessions."""

    contender: str
    stored: int
    empty_bytes: int
    resident_bytes: int


class DiskReading(msgspec.Struct, frozen=True, kw_only=True):
    """An actor's directory after all of its state was written `rewrites` times over.

    `peak_bytes` is the most it was seen to take so far.
    """

    slot: str
    rewrites: int
    state_bytes: int
    disk_bytes: int
    peak_bytes: int


class Results(msgspec.Struct, kw_only=True):
    """Everything, and the run of each part."""

    runs: dict[str, Run] = {}
    writes: list[Reading] = []
    restarts: list[RestartReading] = []
    rejoins: list[RejoinReading] = []
    memory: list[MemoryReading] = []
    disk: list[DiskReading] = []


_FIELDS = {"writes": ("writes",), "recovery": ("restarts", "rejoins"), "footprint": ("memory", "disk")}


def merged(older: Results, newer: Results) -> Results:
    """Return the newer results, with the parts that they lack taken from the older ones."""
    result = msgspec.structs.replace(newer)
    result.runs = {part: run for part in PARTS if (run := newer.runs.get(part) or older.runs.get(part))}
    for part, fields in _FIELDS.items():
        if part not in newer.runs:
            for field in fields:
                setattr(result, field, getattr(older, field))
    return result


# --- ratios and verdicts ----------------------------------------------------------------------------------


TARGETS = {
    "writes": (
        least("fsync_vs_none", 0.6, "64 callers: replicated writes a second, fsync to none"),
        least("interval_vs_none", 0.9, "64 callers: replicated writes a second, interval to none"),
        least("fsync_vs_redis", 6, "64 callers: replicated writes a second, fsync to Redis's"),
        most("p50_fsync_vs_redis", 1, "1 caller: p50 of a replicated write, fsync to Redis's"),
        least("reads_fsync_vs_none", 0.97, "64 callers: reads a second, fsync to none"),
    ),
    "recovery": (
        most("restart_vs_redis", 2, "everything killed: time from being up until all is back, to Redis's"),
        most("rejoin_seconds", 3, "an actor killed under load: seconds until all is whole again"),
        most("rejoin_bytes_vs_copy", 0.1, "an actor killed under load: bytes sent to it, to a full copy"),
    ),
    "footprint": (
        most("memory_fsync_vs_none", 1.1, "memory of the actors, fsync to none"),
        most("disk_vs_state", 2.2, "bytes on disk to those of a state that was rewritten"),
    ),
}
"""What must be shown, by the part that shows it."""


def ratios_of(results: Results) -> dict[str, list[float]]:
    """Return every ratio, round by round; none where nothing was measured."""
    writes = Readings(results.writes)

    copies = [each.received_bytes for each in results.rejoins if each.how == EMPTY_DIRECTORY]
    own = [each for each in results.rejoins if each.how == OWN_DIRECTORY]
    memory = {each.contender: each.resident_bytes for each in results.memory}
    return {
        "fsync_vs_none": writes.ratios("update", FSYNC, NONE),
        "interval_vs_none": writes.ratios("update", INTERVAL, NONE),
        "fsync_vs_redis": writes.ratios("update", FSYNC, REDIS),
        "p50_fsync_vs_redis": writes.ratios("update", FSYNC, REDIS, p50_of, callers=1),
        "reads_fsync_vs_none": writes.ratios("get", FSYNC, NONE),
        "restart_vs_redis": _restarts(results.restarts),
        "rejoin_seconds": [each.seconds for each in own],
        "rejoin_bytes_vs_copy": [each.received_bytes / median(copies) for each in own] if copies else [],
        "memory_fsync_vs_none": [memory[FSYNC] / memory[NONE]] if {FSYNC, NONE} <= memory.keys() else [],
        "disk_vs_state": _disks(results.disk),
    }


def _restarts(readings: Sequence[RestartReading]) -> list[float]:
    found = {(each.contender, each.round): each.seconds for each in readings}
    return [
        seconds / found[REDIS, turn]
        for (contender, turn), seconds in found.items()
        if contender == FSYNC and (REDIS, turn) in found
    ]


def _disks(readings: Sequence[DiskReading]) -> list[float]:
    """Return disk to state of the worse actor, for each time that the state was rewritten."""
    worst: dict[int, float] = {}
    for each in readings:
        worst[each.rewrites] = max(each.disk_bytes / each.state_bytes, worst.get(each.rewrites, 0.0))
    return [worst[number] for number in sorted(worst)]


def verdicts_of(results: Results) -> list[Verdict]:
    """Hold the ratios against the targets."""
    found = []
    ratios = ratios_of(results)
    for part, target in [(part, target) for part, targets in TARGETS.items() for target in targets]:
        each = ratios[target.ratio]
        # What lies on the disk rises and falls: it counts where the run ends, and the spread tells the rest.
        ends = target.ratio == "disk_vs_state"
        figure = None if not each else each[-1] if ends else median(each)
        quick = part in results.runs and results.runs[part].quick
        found.append(verdict_of(target, figure, each, quick=quick))
    return found


# --- tables -----------------------------------------------------------------------------------------------


def tables_of(results: Results) -> list[Table]:
    """Return every table that has rows, the verdicts first."""
    every = [
        verdict_table(verdicts_of(results)),
        readings_table("Writes and reads", results.writes),
        _restart_table(results.restarts),
        _rejoin_table(results.rejoins),
        _memory_table(results.memory),
        _disk_table(results.disk),
    ]
    return [table for table in every if table.rows]


def _restart_table(readings: Sequence[RestartReading]) -> Table:
    rows: list[tuple[str, ...]] = []
    for name in dict.fromkeys(each.contender for each in readings):
        own = [each for each in readings if each.contender == name]
        rows.append(
            (
                name,
                f"{own[-1].stored:,}",
                f"{own[-1].disk_bytes / _MEBIBYTE:,.0f}",
                own[-1].since,
                f"{median(each.startup for each in own):.2f}",
                *spread_of([each.seconds for each in own], ".2f"),
                *spread_of([each.startup + each.seconds for each in own], ".2f"),
            )
        )
    columns = (
        *("contender", "sessions", "MiB on disk", "counted since", "s until then"),
        *("s more until back", "spread", "s in all", "spread"),
    )
    return Table(title="Everything killed and started again", columns=columns, rows=rows)


def _rejoin_table(readings: Sequence[RejoinReading]) -> Table:
    rows: list[tuple[str, ...]] = []
    for how in dict.fromkeys(each.how for each in readings):
        own = [each for each in readings if each.how == how]
        received = [each.received_bytes / _MEBIBYTE for each in own]
        seconds = spread_of([each.seconds for each in own], ".2f")
        rows.append((how, f"{own[-1].stored:,}", *seconds, *spread_of(received, ",.1f")))
    columns = ("one actor started again", "sessions", "s until whole", "spread", "MiB sent to it", "spread")
    return Table(title="One actor killed under load", columns=columns, rows=rows)


def _memory_table(readings: Sequence[MemoryReading]) -> Table:
    return Table(
        title="Memory of the actors",
        columns=("contender", "sessions", "MiB, empty", "MiB", "bytes a session, grown"),
        rows=[
            (
                each.contender,
                f"{each.stored:,}",
                f"{each.empty_bytes / _MEBIBYTE:,.0f}",
                f"{each.resident_bytes / _MEBIBYTE:,.0f}",
                f"{(each.resident_bytes - each.empty_bytes) / each.stored:,.0f}",
            )
            for each in readings
        ],
    )


def _disk_table(readings: Sequence[DiskReading]) -> Table:
    return Table(
        title="Space on disk",
        columns=(
            "actor",
            "times rewritten",
            "MiB of state",
            "MiB on disk",
            "to state",
            "most so far",
            "to state",
        ),
        rows=[
            (
                each.slot,
                str(each.rewrites),
                f"{each.state_bytes / _MEBIBYTE:,.0f}",
                f"{each.disk_bytes / _MEBIBYTE:,.0f}",
                f"{each.disk_bytes / each.state_bytes:.2f}",
                f"{each.peak_bytes / _MEBIBYTE:,.0f}",
                f"{each.peak_bytes / each.state_bytes:.2f}",
            )
            for each in readings
        ],
    )


# --- the page ---------------------------------------------------------------------------------------------

_INTRODUCTION = """\
# What durability costs

Written by `uv run --group bench python -m benchmarks.durable`, which starts every contender itself, on
loopback, with all files on one disk. A figure is the median of the rounds; a spread is the lowest and the
highest round. Clusters have two nodes of one actor, and every session is on both; sessions have 300 bytes.

- **Writes.** All take turns within a round. Redis has one replica; both keep an append-only file with
  `appendfsync always`, and a write is `SET` and `WAIT 1`.
- **Everything killed and started again.** With all sessions stored, every process gets SIGKILL at once, and
  all are started. Ours is back once every shard has both replicas; Redis, one server without a replica, once
  it has loaded its append-only file. It rewrites and compresses that file as it does by default, and these
  sessions compress well. Time counts since all processes are up, and in the last columns from the first
  command. Up is the same for both: the program is loaded, and reads next what it keeps. That is seen from
  outside: Redis then accepts its first connection, and the last actor has locked its directory, as the kernel
  tells. So loading a program, which for a Python process is importing modules, counts in the last columns
  alone. A table whose time counts since the processes exist is older, and its ratio too high by these
  imports. All sessions are counted afterwards.
- **One actor killed under load.** Its supervisor starts it again, with its directory. What it receives is
  read from the kernel's counters of the connections between the two actors, of those that have ended too
  (`ss` and `sock_diag`), writes that happen meanwhile included. Beside it, the same actor is started with an
  empty directory: a full copy.
- **Memory** is the resident memory of the actors, their programs included. Each mode runs by itself.
- **Space on disk** is what the files of an actor's directory occupy, while all of its sessions, of 4 KiB, are
  replaced again and again at a steady pace. State is the bytes of the sessions as the actor keeps them. The
  figure is of the fuller directory at the end, the spread of all times at which all sessions were replaced.
"""


def page(results: Results) -> str:
    """Return the page in Markdown."""
    runs = [line for part in PARTS if part in results.runs for line in run_lines(part, results.runs[part])]
    return page_of(_INTRODUCTION, tables_of(results), verdicts_of(results), "Runs", runs)
