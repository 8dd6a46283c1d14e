"""What reaches the disk and when, seen at the calls of the C library."""

import errno
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.faulty_disk import FaultyDisk

HEAD = """
import sys
from pathlib import Path
from greenroom_cluster.disk.directory import Directory
from greenroom_cluster.disk.entries import Committed
from greenroom_cluster.disk.journal import DiskFailedError, Journal

journal = Journal(Directory(Path(sys.argv[1])), segment_bytes=int(sys.argv[3]))
def append(count):
    for number in range(count):
        journal.append((Committed(1, number),))
        if sys.argv[2] == "fsync":
            journal.sync()
def ask(what):
    print(what, flush=True)
    sys.stdin.readline()
ask("opened")
"""


class Journaling:
    """A process that has a journal on a faulty disk; it stops at each `ask`, and `go` lets it go on."""

    def __init__(self, folder: Path, mode: str, script: str, segment_bytes: int = 1 << 20) -> None:
        self.disk = FaultyDisk(folder, str(folder / "d"))
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEAD + textwrap.dedent(script), folder / "d", mode, str(segment_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.disk.variables(),
            text=True,
        )

    def heard(self) -> str:
        """Return what the process says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.heard()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize(("mode", "syncs"), [("fsync", 10), ("interval", 0)])
def test_a_batch_is_synced_before_it_counts_as_synced(tmp_path: Path, mode: str, syncs: int) -> None:
    one = Journaling(tmp_path, mode, "append(10); ask('appended'); journal.sync(); ask('synced')")
    assert one.heard() == "opened"
    before, written = one.disk.syncs, one.disk.writes
    assert before > 0
    assert one.go() == "appended"
    assert one.disk.syncs - before == syncs
    assert one.disk.writes - written >= 10, "what is appended is in the file, whatever the mode"
    before = one.disk.syncs
    assert one.go() == "synced"
    assert one.disk.syncs - before == (mode == "interval")
    one.end()


def test_a_full_segment_is_synced_with_what_follows_it(tmp_path: Path) -> None:
    script = "append(40); ask(str(len(journal._sealed)))"
    one = Journaling(tmp_path, "fsync", script, segment_bytes=500)
    one.heard()
    before = one.disk.syncs
    sealed = int(one.go())
    assert sealed >= 2
    # Of each: its batches, its end, the beginning of the next, and the name of that.
    assert one.disk.syncs - before == 40 + 3 * sealed
    one.end()


def test_a_full_disk_at_the_start_is_no_damage(tmp_path: Path) -> None:
    """What cannot be written anew for lack of room is still there."""
    script = """
    import resource, shutil, signal
    append(5)
    shutil.copytree(sys.argv[1], sys.argv[1] + "-killed")
    journal.close()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, limits[0]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            again = Journal(Directory(Path(sys.argv[1] + "-killed")))
        except DiskFailedError as error:
            ask(f"failed: {error}")
        else:
            ask(str(sum(len(entries) for _, _, entries in again.batches())))
    """
    one = Journaling(tmp_path, "fsync", script)
    assert one.heard() == "opened"
    assert one.go().startswith("failed: writing to")
    assert one.go() == "5"
    one.end()


@pytest.mark.parametrize("fault", ["sync", "write"])
@pytest.mark.parametrize("mode", ["fsync", "interval"])
def test_an_error_of_the_disk_is_final(tmp_path: Path, mode: str, fault: str) -> None:
    script = """
    append(3)
    for _ in range(2):
        ask("now")
        try:
            append(1)
            journal.sync()
        except DiskFailedError as error:
            print(error, flush=True)
    ask("end")
    """
    one = Journaling(tmp_path, mode, script)
    assert one.heard() == "opened"
    assert one.go() == "now"
    one.disk.set(
        sync_error=errno.EIO if fault == "sync" else 0, write_error=errno.ENOSPC if fault == "write" else 0
    )
    told = one.go()
    assert told.startswith(f"writing to {tmp_path / 'd'} failed")
    one.disk.set()
    assert one.heard() == "now"
    syncs, writes = one.disk.syncs, one.disk.writes
    assert one.go() == told, "the disk is fine again, and nothing is tried again"
    assert (one.disk.syncs, one.disk.writes) == (syncs, writes)
    one.end()
