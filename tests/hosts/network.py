"""Hosts as network namespaces, with veth pairs to a bridge in a namespace of its own. For root on Linux.

Nothing of it has a name outside, so that two runs do not meet: a namespace is held by a process that reads
its stdin, and is gone with it. What is started there by `bound` is killed by the kernel when this process
ends, in whatever way.

Faults are silent, as a cable is that was pulled somewhere: no port loses its carrier, and nothing is refused.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_TOOLS = ("ip", "nsenter", "setpriv", "unshare")
_NOBODY = "02:ff:ff:ff:ff:ff"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _why_not() -> str:
    """Return why no hosts can be made here; empty: they can be."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "hosts are network namespaces, which root on Linux makes"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"hosts need {', '.join(missing)}: apt-get install iproute2 util-linux"
    trial = "ip link add switch type bridge && ip link add one type veth peer name other"
    tried = subprocess.run(["unshare", "--net", "sh", "-c", trial], capture_output=True, check=False)
    return f"this kernel makes no hosts: {tried.stderr.decode().strip()}" if tried.returncode else ""


_reason = _why_not()
needs_hosts = pytest.mark.skipif(bool(_reason), reason=_reason)


class Namespace:
    """A network namespace, for as long as its holder lives."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.read(1), "its holder has ended"
        self.pid = self._holder.pid
        self.enter = ("nsenter", f"--net=/proc/{self.pid}/ns/net")
        """What stands before a command to run it there."""
        self.bound = (*self.enter, "setpriv", "--pdeathsig", "KILL")
        """The same, for a command that ends with the thread that starts it, and so with this process."""

    def run(self, command: str) -> None:
        """Run a command line there, to its end."""
        subprocess.run([*self.enter, *command.split()], check=True, capture_output=True)

    def close(self) -> None:
        """Remove it, once no other process is in it."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


class Network:
    """Hosts of these names, on one switch. Each has two addresses, so that it can be cut off from one."""

    def __init__(self, names: Sequence[str]) -> None:
        self._stack = ExitStack()
        self._numbers = {name: number for number, name in enumerate(names, 1)}
        self._slow: dict[str, subprocess.Popen[bytes]] = {}
        with ExitStack() as stack:
            self._switch = self._made(stack)
            self._hosts = {name: self._made(stack) for name in names}
            self._switch.run("ip link add switch type bridge forward_delay 0")
            self._switch.run("ip link set switch up")
            for name in names:
                self._plug_in(name)
            self._stack = stack.pop_all()

    def _made(self, stack: ExitStack) -> Namespace:
        namespace = Namespace()
        stack.callback(namespace.close)
        return namespace

    def _plug_in(self, name: str) -> None:
        host, number = self._hosts[name], self._numbers[name]
        port = self._port(name)
        self._switch.run(f"ip link add {port} type veth peer name eth0 netns {host.pid}")
        self._switch.run(f"ip link set {port} master switch up")
        host.run("ip link set lo up")
        host.run(f"ip link set eth0 address 02:00:00:00:00:{number:02x} up")
        for address in self.addresses(name):
            host.run(f"ip address add {address}/24 dev eth0")

    def close(self) -> None:
        """Remove everything."""
        for name in list(self._slow):
            self.quicken(name)
        self._stack.close()

    # --- where things are --------------------------------------------------------------------------------

    def addresses(self, name: str) -> tuple[str, str]:
        """Return the host's two addresses."""
        number = self._numbers[name]
        return f"10.77.0.{number}", f"10.77.1.{number}"

    def address(self, name: str) -> str:
        """Return the host's first address."""
        return self.addresses(name)[0]

    def namespaces(self) -> list[Path]:
        """Return the files of all namespaces."""
        return [Path(f"/proc/{each.pid}/ns/net") for each in (self._switch, *self._hosts.values())]

    def host(self, name: str) -> Namespace:
        """Return the namespace of a host."""
        return self._hosts[name]

    def _port(self, name: str) -> str:
        return f"port{self._numbers[name]}"

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Be on that host: sockets that this thread makes meanwhile are there."""
        with Path("/proc/thread-self/ns/net").open() as home:
            with Path(f"/proc/{self._hosts[name].pid}/ns/net").open() as there:
                _go_to(there.fileno())
            try:
                yield
            finally:
                _go_to(home.fileno())

    # --- faults ------------------------------------------------------------------------------------------

    def cut(self, name: str) -> None:
        """Cut a host off from everything; what is on it reaches each other still."""
        self._switch.run(f"ip link set {self._port(name)} nomaster")

    def mend(self, name: str) -> None:
        """Put a host that was cut off back on the switch."""
        self._switch.run(f"ip link set {self._port(name)} master switch")

    def lose(self, sender: str, *addresses: str) -> None:
        """Lose all that a host sends to these addresses from now on."""
        for address in addresses:
            self._hosts[sender].run(f"ip neigh replace {address} lladdr {_NOBODY} dev eth0 nud permanent")

    def find(self, sender: str, *addresses: str) -> None:
        """Have what a host sends to these addresses arrive again."""
        for address in addresses:
            self._hosts[sender].run(f"ip neigh del {address} dev eth0")

    def slow(self, name: str, delay_seconds: float) -> None:
        """Delay each frame from and to a host by so much, in a process between its port and the switch."""
        port = self._port(name)
        self._switch.run(f"ip link add {port}in type veth peer name {port}out")
        for each in (f"{port}in up", f"{port} nomaster", f"{port}out master switch up"):
            self._switch.run(f"ip link set {each}")
        delaying = [sys.executable, "-m", "tests.hosts.delaying", port, f"{port}in", str(delay_seconds)]
        self._slow[name] = subprocess.Popen([*self._switch.bound, *delaying], stdout=subprocess.PIPE)
        assert (out := self._slow[name].stdout) is not None
        assert out.read(1), "what delays has ended"

    def quicken(self, name: str) -> None:
        """Delay them no longer."""
        process = self._slow.pop(name)
        process.kill()
        process.communicate()
        self._switch.run(f"ip link del {self._port(name)}in")
        self.mend(name)


def _go_to(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
