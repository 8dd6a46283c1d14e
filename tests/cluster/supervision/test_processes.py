"""Identity, life and death of processes, as the kernel tells them."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio

from greenroom.errors import UsageError
from greenroom_cluster.runtime import processes
from greenroom_cluster.runtime.ports import check_port, free_port, wait_for_ports

SLEEPER = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]


@pytest.fixture
def sleeper():
    """A process that waits for a signal, once it runs."""
    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_start_ticks_of_this_process_are_those_that_the_kernel_tells():
    ticks = processes.start_ticks(os.getpid())
    assert ticks is not None
    assert processes.is_alive(os.getpid(), ticks)
    assert not processes.is_alive(os.getpid(), ticks + 1), "the id alone proves nothing"


def test_a_command_with_spaces_and_parentheses_is_read_right():
    """The name in /proc/PID/stat is whatever a thread calls itself."""
    with Path("/proc/self/comm").open("r+") as name:
        former = name.read()
        name.write("a) S 1 (b")
        try:
            name.flush()
            assert processes.start_ticks(os.getpid()) is not None
        finally:
            name.seek(0)
            name.write(former.strip())


def test_zombie_is_not_alive(sleeper):
    handle = processes.ProcessHandle(sleeper.pid)
    assert processes.is_alive(handle.pid, handle.started_ticks)
    assert not handle.exited()
    assert handle.exit_status() is None
    handle.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert processes.start_ticks(sleeper.pid) == handle.started_ticks
    assert not processes.is_alive(handle.pid, handle.started_ticks)
    assert handle.exited()
    assert handle.exit_status() == -signal.SIGKILL
    handle.close()
    handle.kill()
    assert handle.exited()


def test_children_and_their_command_lines(sleeper):
    assert sleeper.pid in processes.children_of(os.getpid())
    assert sleeper.pid in processes.descendants_of(os.getpid())
    assert processes.command_line(sleeper.pid) == SLEEPER


@pytest.mark.trio
async def test_exit_is_seen_at_once(sleeper):
    handle = processes.ProcessHandle(sleeper.pid)
    sleeper.send_signal(signal.SIGTERM)
    with trio.fail_after(1):
        await handle.wait_exited()
    assert handle.exit_status() == -signal.SIGTERM
    handle.close()


def test_a_process_that_is_no_more_cannot_be_held():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        processes.ProcessHandle(process.pid)
    assert processes.start_ticks(process.pid) is None
    assert processes.command_line(process.pid) == []


def test_host_identity_is_stable_here():
    assert processes.host_identity() == processes.host_identity()
    assert len(processes.host_identity().split("/")) == 2


GRANDCHILD = """
import os, signal, sys
from greenroom_cluster.runtime.processes import exit_with_parent
exit_with_parent(int(sys.argv[1]))
print("watching", os.getpid(), flush=True)
signal.pause()
"""


def test_exits_with_its_parent():
    child = (
        "import os, subprocess, sys;"
        f"subprocess.Popen([sys.executable, '-c', {GRANDCHILD!r}, str(os.getpid())]).wait()"
    )
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline().split()[1])
        handle = processes.ProcessHandle(pid)
        parent.kill()
        watcher = threading.Thread(target=trio.run, args=(handle.wait_exited,))
        watcher.start()
        watcher.join(2)
        assert handle.exited()
        handle.close()


def test_exits_at_once_if_its_parent_is_another():
    """The parent was gone before it could be watched."""
    process = subprocess.run(
        [sys.executable, "-c", GRANDCHILD, "1"], capture_output=True, text=True, check=False, timeout=20
    )
    assert process.returncode == processes.EXIT_ORPHANED
    assert process.stdout == ""


def test_a_free_port_can_be_listened_on():
    port = free_port()
    check_port("127.0.0.1", port)
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert port < lowest or lowest < 12_000


def test_address_of_another_machine_is_refused():
    with pytest.raises(UsageError, match="--advertise"):
        check_port("192.0.2.1", 7400, "--advertise")


@pytest.mark.trio
async def test_ports_are_waited_for_while_who_held_them_ends():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="--option"):
            await wait_for_ports("127.0.0.1", [port], "--option", 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_ports, "127.0.0.1", [port], "--option", 20)
            await trio.testing.wait_all_tasks_blocked()
            taken.close()
    check_port("127.0.0.1", port)
