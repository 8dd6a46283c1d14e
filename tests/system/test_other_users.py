"""Another user of the host, with no right but to look at `/proc` and to connect to ports of loopback."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from greenroom import wire
from greenroom.framing import FrameBuffer, encode_frames, encode_greeting, messages_decoder
from greenroom.loopback_secrets import usual_files
from greenroom.proofs import NONCE_BYTES
from greenroom_cluster.config import NodeOptions
from greenroom_cluster.runtime.local import open_local_cluster
from tests.listening import as_root, listening_ports
from tests.system.attacks import Ports
from tests.system.canaries import canaries
from tests.system.stage import SETTINGS, SharedCluster, succeeded

pytestmark = [pytest.mark.system, pytest.mark.trio]

NOBODY = 65534
SHARED_MEMORY = Path("/dev/shm")
# Runs as that user, on any Python 3: whatever looks like a name in tractor's arguments is tried at each port,
# again and again, so that one that is being started is tried too.
ATTACK = r"""
import ast, glob, socket, struct, sys
def text(value):
    value = value.encode()
    return b"\xd9" + bytes([len(value)]) + value
def frame(payload):
    return struct.pack("<I", len(payload)) + payload
def names():
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            arguments = open(path, "rb").read().decode(errors="replace").split("\0")
        except OSError:
            continue
        for option, value in zip(arguments, arguments[1:]):
            if option == "--uid" and value.startswith("('"):
                yield ast.literal_eval(value)
def attack(port, name, uuid):
    uid = b"\x92" + text(name) + text(uuid)
    command = b"\x81" + text("cmd") + b"\x95" + text("self") + text("cancel") + b"\x80" + uid + text("1")
    with socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(frame(uid))
        connection.settimeout(0.1)
        answer = connection.recv(4096)
        if answer[4:5] == b"\x92":
            connection.sendall(frame(command))
            connection.settimeout(2)
            print("obeyed", port, name, connection.recv(4096), flush=True)
print("ready", flush=True)
while True:
    for port in map(int, sys.argv[1:]):
        for name, uuid in set(names()):
            try:
                attack(port, name, uuid)
            except OSError:
                pass
    print("round", flush=True)
"""


# Runs as that user, on any Python 3: at each port it sends a hello, as given in hexadecimal, then what an
# answer with a proof allows to try, and then requests. It prints whatever is answered.
STRANGER = r"""
import socket, struct, sys
requests = bytes.fromhex(sys.argv[1])
def said(connection):
    data = b""
    try:
        while True:
            chunk = connection.recv(65536)
            if not chunk:
                return data
            data += chunk
            if len(data) >= 4 and len(data) >= 4 + struct.unpack(">I", data[:4])[0]:
                return data
    except OSError:
        return data
for file in sys.argv[2].split(":"):
    try:
        print("read", open(file).read())
    except OSError:
        pass
for target in sys.argv[3:]:
    port, greeting = target.split("=")
    for way in ("reflected", "guessed", "nothing"):
        with socket.create_connection(("127.0.0.1", int(port)), 5) as connection:
            connection.settimeout(5)
            connection.sendall(bytes.fromhex(greeting))
            first = said(connection)
            print("first", port, first.hex())
            at = first.find(b"\xc4\x40")
            mac = first[at + 34:at + 66] if at >= 0 and way == "reflected" else bytes(32)
            proof = b"" if way == "nothing" else b"\0\0\0\x24\x92\x03\xc4\x20" + mac
            try:
                connection.sendall(proof + requests)
            except OSError:
                pass
            print("then", port, said(connection).hex())
print("done", flush=True)
"""


class Attacker:
    """The process of the other user; `said` is what it printed."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self.said = ""

    async def rounds(self, count: int) -> None:
        """Wait until it has tried everything so many times more."""
        wanted = self.said.count("round") + count
        assert self._process.stdout is not None
        with trio.fail_after(60):
            while self.said.count("round") < wanted:
                chunk = await self._process.stdout.receive_some()
                assert chunk, "the attacker ended; see its standard error"
                self.said += chunk.decode()


@asynccontextmanager
async def attacking(ports: set[int]) -> AsyncIterator[Attacker]:
    """Have another user attack these ports during the body."""
    if os.getuid() != 0:
        pytest.skip("only root can start a process of another user")
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("no Python that another user may run")
    command = [python, "-I", "-c", ATTACK, *map(str, sorted(ports))]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/"
    )
    try:
        yield Attacker(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@as_root
async def test_another_user_of_the_host_controls_no_process(small_cluster: SharedCluster) -> None:
    """Names are in the arguments of the actors: said at any port of the tree, they are worth nothing."""
    await small_cluster.healthy()
    ports = listening_ports(small_cluster.cluster.pids())
    async with canaries(small_cluster.cluster), attacking(ports) as attacker:
        await attacker.rounds(3)
    assert "obeyed" not in attacker.said


@as_root
async def test_another_user_of_the_host_does_not_become_an_actor_that_restarts(
    small_cluster: SharedCluster,
) -> None:
    await small_cluster.healthy()
    async with attacking(listening_ports(small_cluster.cluster.pids())) as attacker:
        for _ in range(2):
            victim = await small_cluster.busiest_primary()
            os.kill(victim.pid, signal.SIGKILL)
            await small_cluster.until(succeeded(victim))
            await attacker.rounds(1)
    assert "obeyed" not in attacker.said
    await small_cluster.healthy()
    ours = small_cluster.cluster.pids()
    for actor in (await small_cluster.map()).actors.values():
        assert actor.pid in ours
        assert {int(actor.address.rpartition(":")[2])} == listening_ports([actor.pid])


async def test_a_command_without_the_secret_asks_for_its_file(
    small_cluster: SharedCluster, tmp_path: Path
) -> None:
    """It does not ask for another address: that one is right."""
    await small_cluster.healthy()
    other = tmp_path / "secret"
    other.touch(0o600)
    other.write_text("x" * 40)
    settings = small_cluster.settings
    command = [sys.executable, "-m", "greenroom_cluster", "health", "--cluster", settings.cluster]
    for options in (["--secret-file", str(other)], ["--loopback-proof", "off"]):
        told = await trio.run_process(
            [*command, "--connect", small_cluster.cluster.seeds[0], *options],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert told.returncode == 3
        assert b"--secret-file" in told.stderr
        assert b"--connect" not in told.stderr


async def test_another_user_of_the_host_is_not_served_at_any_port(small_cluster: SharedCluster) -> None:
    """Without the secret: as no role, by no trick with the proof; and its file is out of reach."""
    await small_cluster.healthy()
    ports = Ports(small_cluster, await small_cluster.map())
    nonce = os.urandom(NONCE_BYTES)
    silent = list(ports.hellos())
    asking = [(port, msgspec.structs.replace(each, auth=nonce)) for port, each in silent]
    targets = [f"{port}={encode_greeting(each).hex()}" for port, each in (*silent, *asking)]
    requests = encode_frames([wire.Subscribe(0, 0)])
    files = [str(path) for path in usual_files("greenroom")]
    assert any(map(os.path.exists, files))  # whichever was there before the cluster
    async with canaries(small_cluster.cluster):
        said = await as_nobody(STRANGER, bytes(requests).hex(), ":".join(files), *targets)
    lines = [line.split(" ") for line in said.splitlines()]
    assert lines[-1] == ["done"]
    assert len(lines) == 1 + 2 * 3 * len(targets), "the secret was read"
    first = [greeting_in(data) for what, _, data in lines[:-1] if what == "first"]
    told = [each.code for each in first if isinstance(each, wire.Goodbye)]
    assert told == ["secret-required"] * 3 * len(silent)
    for data in [data for what, _, data in lines[:-1] if what == "then" and data]:
        [payload] = FrameBuffer().feed(bytes.fromhex(data))
        [goodbye] = messages_decoder(wire.Goodbye).decode(payload)
        assert goodbye.code == "not-allowed"


def greeting_in(data: str) -> wire.Hello | wire.Goodbye:
    """Return the greeting that was printed."""
    [payload] = FrameBuffer().feed(bytes.fromhex(data))
    return msgspec.msgpack.decode(payload, type=wire.Hello | wire.Goodbye)


async def as_nobody(script: str, *arguments: str) -> str:
    """Run a script as another user; return what it prints."""
    if os.getuid() != 0:
        pytest.skip("only root can start a process of another user")
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("no Python that another user may run")
    command = [python, "-I", "-c", script, *arguments]
    with trio.fail_after(120):
        ended = await trio.run_process(
            command, capture_stdout=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/"
        )
    return str(ended.stdout.decode())


def below(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


async def test_files_are_their_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the most permissive umask, all that a cluster makes, in its directory and beside it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    shared_memory = below(SHARED_MEMORY)
    former = os.umask(0)
    try:
        settings = msgspec.structs.replace(
            SETTINGS, nodes=2, node=NodeOptions(actors=1), data_dir=tmp_path / "data"
        )
        async with open_local_cluster(settings):
            made = below(tmp_path) - {tmp_path / "tmp"} | below(SHARED_MEMORY) - shared_memory
    finally:
        os.umask(former)
    assert tmp_path / "data" / "map.bin" in made
    open_to_others = [path for path in made if path.lstat().st_mode & 0o077]
    assert not open_to_others
