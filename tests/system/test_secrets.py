"""Where the private keys of a cluster are: in files of mode 0600, and nowhere that others may look."""

import base64
import re
import stat
from pathlib import Path

import msgspec
import pytest
import trio

from greenroom.loopback_secrets import usual_files
from greenroom_cluster.config import NodeOptions
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.restarts import RestartSettings
from greenroom_cluster.runtime.actor import ActorSettings, run_actor
from greenroom_cluster.runtime.local import open_local_cluster
from greenroom_cluster.runtime.starter import is_starter
from greenroom_cluster.runtime.supervision import ChildProcess, ChildSpec, open_supervisor
from greenroom_cluster.tls_options import NodeTlsOptions
from tests.authority import Authority
from tests.listening import as_root

pytestmark = [pytest.mark.system, pytest.mark.trio]

SETTINGS = LocalClusterSettings(nodes=2, shards=4, listen="127.0.0.1:0", tls=True, node=NodeOptions(actors=1))


def forms_of(pem: bytes) -> list[bytes]:
    """The lines of a key, and its bytes: in them, and in hexadecimal."""
    lines = [line for line in pem.splitlines() if line and not line.startswith(b"-----")]
    raw = base64.b64decode(b"".join(lines))
    # Of DER, what every key begins with is no secret.
    return [*lines, raw[40:60], raw[40:60].hex().encode()]


def seen(pid: int) -> bytes:
    """What root may read of a process without looking into its memory."""
    folder = Path(f"/proc/{pid}")
    found = (folder / "cmdline").read_bytes()
    try:
        return found + (folder / "environ").read_bytes()
    except PermissionError:  # not even that, for its own user
        return found


def limits_of(pid: int) -> str:
    return Path(f"/proc/{pid}/limits").read_text()


async def test_no_process_of_a_cluster_shows_a_key() -> None:
    async with open_local_cluster(SETTINGS) as cluster:
        keys = list(Path(cluster.client_options["tls_key"]).parents[2].rglob("*.key"))
        assert len(keys) == 5
        assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
        secrets = [form for path in keys for form in forms_of(path.read_bytes())]
        pids = cluster.pids()
        assert len([pid for pid in pids if not is_starter(pid)]) == 6
        for pid in pids:
            assert not [secret for secret in secrets if secret in seen(pid)]
            assert re.search(r"Max core file size +0 +0 ", limits_of(pid))


def memory_of(pid: int) -> bytes:
    """All that a process can write to, and so its objects."""
    found = bytearray()
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            places, rights, *_ = line.split()
            begin, end = (int(place, 16) for place in places.split("-"))
            if rights.startswith("rw"):
                memory.seek(begin)
                found += memory.read(end - begin)
    return bytes(found)


@as_root
async def test_starters_know_no_secret() -> None:
    """What they fork would begin with it, and could not be rid of it."""
    settings = msgspec.structs.replace(SETTINGS, tls=False)
    async with open_local_cluster(settings) as cluster:
        pids = cluster.pids()
        starters = [pid for pid in pids if is_starter(pid)]
        assert len(starters) == 3
        (file,) = filter(Path.exists, usual_files(settings.cluster))
        secret = file.read_bytes().strip()
        holders = {pid for pid in pids if secret in memory_of(pid)}
        assert len(holders) >= 5, "both nodes, their actors and the coordinator prove that they know it"
        assert not holders & set(starters)


async def test_no_key_goes_through_the_supervision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a supervisor sends to the actor that it starts, which speaks TLS, is looked at."""
    sent = bytearray()
    send_all = trio.SocketStream.send_all

    async def noting(stream: trio.SocketStream, data: bytes) -> None:
        sent.extend(data)
        await send_all(stream, data)

    monkeypatch.setattr(trio.SocketStream, "send_all", noting)
    holder = Authority().issue("greenroom://shop/node/n1")
    files = holder.files(tmp_path, "n1", flags=True)
    options = NodeTlsOptions(tls_cert=Path(files.cert), tls_key=Path(files.key), tls_ca=Path(files.ca))
    ready = trio.Event()

    def settings(incarnation: bytes) -> ActorSettings:
        return ActorSettings(
            incarnation=incarnation, slot="n1/0", cluster="shop", coordinator="127.0.0.1:1", tls=options
        )

    def on_ready(child: ChildProcess) -> None:
        ready.set()

    async with open_supervisor(
        "n1", restarts=RestartSettings(), on_ready=on_ready, on_exit=lambda _: None
    ) as supervisor:
        supervisor.start_child(ChildSpec("n1/0", run_actor, settings))
        with trio.fail_after(60):
            await ready.wait()
    assert files.key.encode() in sent  # the path is what it is told
    assert not [form for form in forms_of(holder.key) if form in sent]
