"""What durability costs: ratios and the page from readings, connections as counted, and the commands."""

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.durable import traffic
from benchmarks.durable.figures import (
    EMPTY_DIRECTORY,
    FSYNC,
    INTERVAL,
    NONE,
    OWN_DIRECTORY,
    REDIS,
    TARGETS,
    DiskReading,
    MemoryReading,
    RejoinReading,
    RestartReading,
    Results,
    merged,
    page,
    ratios_of,
    verdicts_of,
)
from benchmarks.processes import MissingError, file_name, locked_files, occupied_bytes
from tests.benchmarks.builders import rounds, run
from tests.benchmarks.commands import figures_in, measured

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "durable.md"


def restart(contender: str, seconds: float, turn: int = 0) -> RestartReading:
    return RestartReading(
        round=turn, contender=contender, stored=10, startup=1.0, seconds=seconds, disk_bytes=1 << 20
    )


def rejoin(how: str, seconds: float, received_bytes: int) -> RejoinReading:
    return RejoinReading(how=how, stored=10, seconds=seconds, received_bytes=received_bytes)


def memory(contender: str, resident_bytes: int) -> MemoryReading:
    return MemoryReading(contender=contender, stored=10, empty_bytes=50, resident_bytes=resident_bytes)


def disk(slot: str, rewrites: int, disk_bytes: int) -> DiskReading:
    return DiskReading(
        slot=slot, rewrites=rewrites, state_bytes=100, disk_bytes=disk_bytes, peak_bytes=disk_bytes
    )


@pytest.fixture
def results() -> Results:
    return Results(
        writes=[
            *rounds(NONE, 1000.0, 2000.0, work="update"),
            *rounds(INTERVAL, 950.0, 1800.0, work="update"),
            *rounds(FSYNC, 700.0, 1000.0, work="update"),
            *rounds(REDIS, 100.0, 200.0, work="update"),
            *rounds(FSYNC, 1.0, work="update", callers=1, p50=0.002),
            *rounds(REDIS, 1.0, work="update", callers=1, p50=0.004),
            *rounds(NONE, 4000.0),
            *rounds(FSYNC, 3900.0),
        ],
        restarts=[restart(FSYNC, 8.0), restart(REDIS, 5.0), restart(FSYNC, 9.0, 1), restart(REDIS, 3.0, 1)],
        rejoins=[rejoin(OWN_DIRECTORY, 2.0, 5), rejoin(EMPTY_DIRECTORY, 9.0, 100)],
        memory=[memory(NONE, 200), memory(FSYNC, 210)],
        disk=[disk("n1/0", 1, 500), disk("n1/0", 2, 200), disk("n2/0", 2, 230)],
    )


def test_ratios_are_of_what_was_measured_in_the_same_round(results: Results) -> None:
    found = ratios_of(results)
    assert found["fsync_vs_none"] == pytest.approx([0.7, 0.5])
    assert found["interval_vs_none"] == pytest.approx([0.95, 0.9])
    assert found["fsync_vs_redis"] == pytest.approx([7.0, 5.0])
    assert found["p50_fsync_vs_redis"] == pytest.approx([0.5])
    assert found["reads_fsync_vs_none"] == pytest.approx([0.975])
    assert found["restart_vs_redis"] == pytest.approx([1.6, 3.0])
    assert found["rejoin_seconds"] == [2.0]
    assert found["rejoin_bytes_vs_copy"] == pytest.approx([0.05])
    assert found["memory_fsync_vs_none"] == pytest.approx([1.05])
    assert found["disk_vs_state"] == pytest.approx([5.0, 2.3]), "of the fuller directory"


def test_the_disk_counts_at_the_end_and_its_spread_tells_the_rest(results: Results) -> None:
    verdicts = {each.target.ratio: each for each in verdicts_of(results)}
    assert verdicts["disk_vs_state"].figure == pytest.approx(2.3)
    assert verdicts["disk_vs_state"].met is False
    assert verdicts["disk_vs_state"].spread == pytest.approx((2.3, 5.0))
    assert verdicts["memory_fsync_vs_none"].met is True
    assert verdicts["restart_vs_redis"].within_spread


def test_without_redis_its_ratios_are_not_measured(results: Results) -> None:
    results.writes = [each for each in results.writes if each.contender != REDIS]
    results.restarts = [each for each in results.restarts if each.contender != REDIS]
    unknown = {each.target.ratio for each in verdicts_of(results) if each.figure is None}
    assert unknown == {"fsync_vs_redis", "p50_fsync_vs_redis", "restart_vs_redis"}


def test_every_target_has_a_ratio() -> None:
    named = [target.ratio for targets in TARGETS.values() for target in targets]
    assert sorted(named) == sorted(ratios_of(Results()))


def test_a_restart_is_told_from_being_up_and_from_the_command(results: Results) -> None:
    assert f"| {FSYNC} | 10 | 1 | they exist | 1.00 | 8.50 | 8.00 to 9.00 | 9.50 | 9.00 to 10.00 |" in page(
        results
    )


def test_a_part_that_was_not_measured_stays_as_it_was(results: Results) -> None:
    results.runs = {"writes": run(), "recovery": run(), "footprint": run()}
    newer = Results(runs={"recovery": run("reduced")}, restarts=[restart(FSYNC, 1.0)])
    both = merged(results, newer)
    assert both.writes == results.writes
    assert both.disk == results.disk
    assert both.restarts == newer.restarts
    assert both.rejoins == []
    assert [each.kind for each in both.runs.values()] == ["full", "reduced", "full"]


def test_the_page_shows_what_was_measured_and_what_was_not(results: Results) -> None:
    results.runs = {"writes": run(skipped={"redis": "not installed"})}
    results.memory = []
    text = page(results)
    assert "| disk_vs_state | bytes on disk to those of a state that was rewritten | 2.3 | 2.3-5 |" in text
    assert "| n2/0 | 2 |" in text
    assert "## Not measured yet\n\n- memory of the actors, fsync to none\n" in text
    assert "writes, left out: redis: not installed" in text


def test_the_page_in_the_documentation_is_made_by_the_benchmark() -> None:
    file = PAGE.with_suffix(".json")
    kept = Results()
    if file.exists():
        kept = msgspec.json.decode(file.read_bytes(), type=Results)
    assert PAGE.read_text() == page(kept)


# --- connections ------------------------------------------------------------------------------------------

SS = """\
0      0      127.0.0.1:7000 127.0.0.1:40000 users:(("python",pid=11,fd=15)) bbr rto:2 bytes_received:160
0      0      127.0.0.1:40000 127.0.0.1:7000 users:(("python",pid=22,fd=3),("python",pid=23,fd=3)) bbr rto:2
"""


def test_what_ss_says_of_a_connection_is_understood() -> None:
    found = traffic.sockets_of(SS)
    assert found["127.0.0.1:7000", "127.0.0.1:40000"] == traffic.Socket(frozenset({11}), 160)
    assert found["127.0.0.1:40000", "127.0.0.1:7000"] == traffic.Socket(frozenset({22, 23}), 0)


def test_a_connection_counts_once_and_only_if_the_sender_s() -> None:
    address = "127.0.0.1:7000"
    live = {(address, "peer"): 50, ("own:1", "peer:2"): 7}
    ended = {(address, "peer"): 80, (address, "copy"): 1000, (address, "client"): 9, ("other:3", "x"): 9}
    assert traffic.counted(live, ended, {(address, "client")}, address) == 80 + 7 + 1000


SENDER = """
import socket, sys
for size in map(int, sys.argv[2:]):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        connection.sendall(bytes(size))
"""


def test_bytes_of_connections_that_have_ended_are_counted() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]
        try:
            counting = stack.enter_context(traffic.Traffic(client=0))
        except MissingError as error:
            pytest.skip(str(error))
        sender = subprocess.Popen([sys.executable, "-c", SENDER, str(port), "70000", "30000"])
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                while connection.recv(1 << 16):
                    pass
        sender.wait()
        found = 0
        while found < 100_000:  # the kernel tells a moment later; the test's own limit ends this
            found = counting.look(os.getpid(), f"127.0.0.1:{port}", sender.pid)
    # The beginning and the end of a connection count as a byte each.
    assert 100_000 <= found < 100_010


def test_what_files_occupy_is_counted_in_all_folders(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    before = occupied_bytes(tmp_path)
    (tmp_path / "below" / "file").write_bytes(bytes(range(256)) * 1024)
    assert 256 * 1024 <= occupied_bytes(tmp_path) - before < 512 * 1024


def test_a_locked_file_is_seen_from_outside_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert file_name(path) == ""
    with path.open("w") as file:
        assert file_name(path) not in locked_files()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert file_name(path) in locked_files()
    assert file_name(path) not in locked_files()


# --- the commands -----------------------------------------------------------------------------------------


def part_measured(part: str, *options: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Run one part in a small version; return what it prints, and the ratios that were measured."""
    told = measured("benchmarks.durable", "--only", part, *options)
    return told, {name: figure for name, figure in figures_in(told).items() if figure is not None}


def without_redis(told: dict[str, Any], part: str) -> bool:
    """Whether Redis is not installed; then it must be told as left out, and nothing else."""
    installed = shutil.which("redis-server") is not None and importlib.util.find_spec("hiredis") is not None
    skipped = told["results"]["runs"][part]["skipped"]
    assert list(skipped) == ([] if installed else [REDIS]), skipped
    return not installed


@pytest.mark.system
@pytest.mark.timeout(400)
def test_writes_are_measured() -> None:
    told, found = part_measured("writes", "--rounds", "1", "--seconds", "0.1", "--written", "200")
    ours = {"fsync_vs_none", "interval_vs_none", "reads_fsync_vs_none"}
    assert ours <= found.keys()
    assert all(found[name] > 0 for name in ours)
    if without_redis(told, "writes"):
        pytest.skip("measured without Redis: apt-get install redis-server, and the group bench")
    assert found.keys() == ours | {"fsync_vs_redis", "p50_fsync_vs_redis"}


@pytest.mark.system
@pytest.mark.timeout(400)
def test_recovery_is_measured() -> None:
    told, found = part_measured("recovery", "--stored", "500")
    assert {"rejoin_seconds", "rejoin_bytes_vs_copy"} <= found.keys()
    (own, empty) = told["results"]["rejoins"]
    assert empty["received_bytes"] > 500 * 300, "a full copy"
    assert own["seconds"] > 0
    if without_redis(told, "recovery"):
        pytest.skip("measured without Redis: apt-get install redis-server, and the group bench")
    assert found["restart_vs_redis"] > 0


@pytest.mark.system
@pytest.mark.timeout(400)
def test_the_footprint_is_measured() -> None:
    told, found = part_measured("footprint", "--stored", "500", "--pace", "20000")
    assert found.keys() == {"memory_fsync_vs_none", "disk_vs_state"}
    assert 0.5 < found["memory_fsync_vs_none"] < 2
    # Every session was written twice, by the fill and once more, and an actor holds them all.
    for each in told["results"]["disk"]:
        assert each["state_bytes"] > 6_208 * 4_096
        assert each["disk_bytes"] > each["state_bytes"]
