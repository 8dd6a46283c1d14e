"""Sessions leave a running cluster and come back: into another, and over an orderly end of `greenroom up`."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import trio

from greenroom import ClusterStore, GreenroomError, SessionData, SessionNotFoundError, new_session_id
from greenroom_cluster.backups.copying import copy_shards
from greenroom_cluster.backups.files import Backup, Part
from greenroom_cluster.backups.restoring import RestoringStore, restore_sessions
from greenroom_cluster.backups.taking import take_backup
from greenroom_cluster.config import NodeOptions
from greenroom_cluster.runtime.local import open_local_cluster
from greenroom_cluster.runtime.ports import free_port
from tests.system.stage import SETTINGS, SharedCluster, tree

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(180)]

COMMAND = [sys.executable, "-m", "greenroom_cluster"]
OTHER = msgspec.structs.replace(
    SETTINGS, nodes=1, replicas=1, shards=4, cluster="other", node=NodeOptions(actors=1)
)


def session(number: int, *, user_id: str | None = None) -> SessionData:
    return SessionData(
        session_id=new_session_id(),
        expires=datetime.now(UTC) + timedelta(hours=1),
        user_id=user_id,
        label=f"device {number}",
        data={"n": number, "at": datetime(2026, 5, 1, tzinfo=UTC), "bulk": b"x" * (number * 50)},
    )


async def created(store: ClusterStore, count: int) -> list[SessionData]:
    sessions = [session(number, user_id=f"user {number % 5}") for number in range(count)]
    async with trio.open_nursery() as nursery:
        for each in sessions:
            nursery.start_soon(store.create, each)
    return sessions


async def test_a_backup_brings_sessions_into_another_cluster(cluster: SharedCluster, tmp_path: Path) -> None:
    async with ClusterStore(",".join(cluster.cluster.seeds)) as store:
        sessions = await created(store, 200)
        await take_backup(
            cluster.cluster.seeds,
            cluster.settings.cluster,
            tmp_path / "b",
            credentials=cluster.cluster.credentials,
        )
        for each in sessions[:10]:
            await store.delete(each.session_id)
    backup = Backup(tmp_path / "b")
    assert backup.heading.shards == SETTINGS.shards
    assert backup.sessions >= 200
    async with (
        open_local_cluster(OTHER) as other,
        RestoringStore(",".join(other.seeds), cluster="other") as store,
    ):
        await store.check(every_shard=True)
        kept = await store.create(session(0))
        assert kept
        first = await restore_sessions(store, backup.stored())
        again = await restore_sessions(store, backup.stored())
        for each in sessions:
            found = await store.get(each.session_id)
            assert found is not None
            assert (found.data, found.user_id, found.label) == (each.data, each.user_id, each.label)
            assert abs(found.expires - each.expires) < timedelta(seconds=1)
        listed = await store.list_by_user("user 1")
        assert len(listed) == 40
        await store.delete_by_handle("user 1", listed[0].handle)
        assert len(await store.list_by_user("user 1")) == 39
    assert first.created == backup.sessions
    assert (again.created, again.existed) == (0, backup.sessions)


async def test_a_copy_outlives_the_loss_of_a_primary(cluster: SharedCluster) -> None:
    await cluster.healthy()
    async with ClusterStore(",".join(cluster.cluster.seeds)) as store:
        sessions = await created(store, 200)
        parts: list[Part] = []
        killed = []

        def take(part: Part) -> None:
            parts.append(part)
            if not killed:
                killed.append(True)
                os.kill(victim.pid, signal.SIGKILL)

        victim = await cluster.busiest_primary()
        await copy_shards(
            cluster.cluster.seeds, cluster.settings.cluster, take, credentials=cluster.cluster.credentials
        )
        digests = [stored.digest for part in parts for stored in part.sessions]
        assert {part.shard for part in parts} == set(range(SETTINGS.shards))
        assert len(digests) == len(set(digests)), "no session is there twice"
        assert len(digests) >= len(sessions)
    await cluster.healthy()


# --- the command line -------------------------------------------------------------------------------------


def up_command(port: int, data_dir: Path) -> list[str]:
    where = ("--listen", f"127.0.0.1:{port}", "--data-dir", str(data_dir))
    size = ("--nodes", "2", "--actors", "1", "--shards", "8")
    return [*COMMAND, "up", *size, *where, "--json"]


@asynccontextmanager
async def up(port: int, data_dir: Path) -> AsyncIterator[trio.Process]:
    """Run `greenroom up` around the body, which ends it."""
    async with running(up_command(port, data_dir)) as process:
        await ready(process)
        yield process
        with trio.fail_after(60):
            await process.wait()


async def ready(process: trio.Process) -> None:
    assert process.stdout is not None
    with trio.fail_after(60):
        assert b'"event":"ready"' in await process.stdout.receive_some()


@asynccontextmanager
async def running(command: list[str], **files: int) -> AsyncIterator[trio.Process]:
    """Run a command around the body; it and all below it are gone afterwards."""
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, **files)
    try:
        yield process
    finally:
        if process.poll() is None:
            for each in tree(process.pid):
                each.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def command(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [*COMMAND, *arguments], capture_stdout=True, capture_stderr=True, check=False
    )


async def test_up_keeps_what_was_acknowledged_over_its_end(tmp_path: Path) -> None:
    """Writers go on until they are refused: what was acknowledged last is there after the next start."""
    port = free_port()
    url = f"127.0.0.1:{port}"
    written: dict[str, int] = {}
    ended: list[str] = []
    async with up(port, tmp_path / "d") as process, ClusterStore(url, deadline_seconds=1) as store:
        sessions = await created(store, 24)
        for each in sessions[:4]:
            await store.delete(each.session_id)
            ended.append(each.session_id)

        async def write(session_id: str) -> None:
            number = 0
            while True:
                number += 1
                try:
                    await store.patch(session_id, set={"round": number})
                except GreenroomError:
                    return
                written[session_id] = number

        async with trio.open_nursery() as writing:
            for each in sessions[4:]:
                writing.start_soon(write, each.session_id)
            while len(written) < 20:
                await trio.lowlevel.checkpoint()
            process.send_signal(signal.SIGINT)
    async with up(port, tmp_path / "d") as process, ClusterStore(url) as store:
        for session_id, number in written.items():
            found = await store.get(session_id)
            assert found is not None
            # A write that was not acknowledged may have taken effect.
            assert found.data["round"] in {number, number + 1}
        for session_id in ended:
            assert await store.get(session_id) is None, "logged out is logged out"
        await store.delete(sessions[-1].session_id)
        assert not (tmp_path / "d" / "sessions.backup").exists(), "they come back once"
        process.kill()
    async with up(port, tmp_path / "d") as process, ClusterStore(url) as store:
        for session_id in written:
            with pytest.raises(SessionNotFoundError):
                await store.patch(session_id, set={"x": 1})
        process.send_signal(signal.SIGINT)


async def test_up_keeps_sessions_when_its_terminal_ends(tmp_path: Path) -> None:
    port = free_port()
    terminal, side = pty.openpty()
    # The tests themselves may run under nohup.
    command = ["env", "--default-signal=HUP", "setsid", "--ctty", *up_command(port, tmp_path / "d")]
    async with running(command, stdin=side, stderr=side) as process:
        os.close(side)
        await ready(process)
        async with ClusterStore(f"127.0.0.1:{port}") as store:
            sessions = await created(store, 24)
        os.close(terminal)
        with trio.fail_after(60):
            await process.wait()
    async with up(port, tmp_path / "d") as again, ClusterStore(f"127.0.0.1:{port}") as store:
        for each in sessions:
            assert await store.get(each.session_id) is not None
        again.send_signal(signal.SIGINT)


async def test_a_start_that_is_ended_while_it_brings_back_keeps_all(tmp_path: Path) -> None:
    port = free_port()
    kept, restoring = tmp_path / "d" / "sessions.backup", tmp_path / "d" / "sessions.restoring"
    async with up(port, tmp_path / "d") as process, ClusterStore(f"127.0.0.1:{port}") as store:
        sessions = [session for _ in range(20) for session in await created(store, 100)]
        process.send_signal(signal.SIGINT)
    async with running(up_command(port, tmp_path / "d")) as process:
        with trio.fail_after(60):
            while not restoring.exists():
                await trio.lowlevel.checkpoint()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    assert kept.exists()
    assert not restoring.exists()
    async with up(port, tmp_path / "d") as process, ClusterStore(f"127.0.0.1:{port}") as store:
        for each in sessions:
            assert await store.get(each.session_id) is not None
        process.send_signal(signal.SIGINT)


async def test_a_start_that_did_not_finish_is_for_an_operator(tmp_path: Path) -> None:
    (tmp_path / "sessions.restoring").write_bytes(b"")
    refused = await command("up", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0")
    assert refused.returncode == 2
    assert b"sessions.restoring" in refused.stderr
    assert b"greenroom restore" in refused.stderr


async def test_the_four_commands(cluster: SharedCluster, tmp_path: Path) -> None:
    await cluster.healthy()
    connect = ("--connect", cluster.cluster.seeds[0])
    file, lines = str(tmp_path / "b"), str(tmp_path / "lines")
    async with ClusterStore(",".join(cluster.cluster.seeds)) as store:
        sessions = await created(store, 20)
        for name, path in (("backup", file), ("export", lines)):
            taken = await command(name, path, *connect, "--json")
            assert taken.returncode == 0, taken.stderr
            assert msgspec.json.decode(taken.stdout)["sessions"] >= 20
            assert (await command(name, path, *connect)).returncode == 2, "never over a file"
        for each in sessions[:5]:
            await store.delete(each.session_id)
        warned = await command("restore", file, *connect)
        assert warned.returncode == 2
        assert b"--accept-ended" in warned.stderr
        assert await store.get(sessions[0].session_id) is None
        early = await command(
            "restore", file, *connect, "--accept-ended", "--created-before", "2020-01-01T00:00:00Z", "--json"
        )
        assert msgspec.json.decode(early.stdout)["created"] == 0
        restored = await command("restore", file, *connect, "--accept-ended", "--json")
        assert msgspec.json.decode(restored.stdout)["created"] == 5
        for each in sessions:
            assert await store.get(each.session_id) is not None
        await store.delete(sessions[0].session_id)
        imported = await command("import", lines, *connect, "--accept-ended")
        assert b"sessions created: 1" in imported.stdout
        found = await store.get(sessions[0].session_id)
        assert found is not None
        assert found.data == sessions[0].data
        await trio.Path(lines).write_bytes(await trio.Path(lines).read_bytes() + b"{}\n")
        refused = await command("import", lines, *connect, "--accept-ended")
        assert refused.returncode == 2
        assert b"is not a session" in refused.stderr
        nobody = f"127.0.0.1:{free_port()}"
        for where, status, option in (
            (("--connect", nobody), 3, b"--connect"),
            ((*connect, "--cluster", "other"), 2, b"--cluster"),
        ):
            refused = await command("restore", file, *where, "--accept-ended")
            assert refused.returncode == status
            assert option in refused.stderr
            assert refused.stderr.count(b"\n") == 1, refused.stderr


async def test_streams_that_end_early_are_told_in_one_line(cluster: SharedCluster, tmp_path: Path) -> None:
    await cluster.healthy()
    connect = f"--connect {cluster.cluster.seeds[0]}"
    greenroom = f"{sys.executable} -m greenroom_cluster"
    async with ClusterStore(",".join(cluster.cluster.seeds)) as store:
        await created(store, 100)
    lines = tmp_path / "lines"
    assert (await command("export", str(lines), *connect.split())).returncode == 0
    for shell, status, part in (
        (f"{greenroom} export - {connect} | head -c 10", 1, "Broken pipe"),
        (f"{greenroom} export - {connect} >/dev/full", 1, "No space left"),
        (f"{greenroom} export - {connect} >&-", 2, "standard output is closed"),
        (f"{greenroom} import - {connect} --accept-ended <&-", 2, "standard input is closed"),
        (f"{greenroom} backup - {connect}", 2, "greenroom export"),
        (f"{greenroom} restore - {connect} --accept-ended", 2, "greenroom export"),
        (f"{greenroom} restore <(cat {lines}) {connect} --accept-ended", 2, "not a file on a disk"),
    ):
        ended = await trio.run_process(
            ["bash", "-o", "pipefail", "-c", shell], capture_stdout=True, capture_stderr=True, check=False
        )
        assert ended.returncode == status, (shell, ended.stderr)
        (told,) = ended.stderr.decode().splitlines()
        assert told.startswith("greenroom: ")
        assert part in told
    for shell in (
        f"{greenroom} backup {tmp_path}/quiet {connect} >&-",
        f"{greenroom} restore {tmp_path}/quiet {connect} --accept-ended --json >&-",
    ):
        ended = await trio.run_process(["bash", "-c", shell], capture_stderr=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, b"")
    piped = await trio.run_process(
        ["bash", "-c", f"{greenroom} import <(cat {lines}) {connect} --accept-ended"], capture_stdout=True
    )
    assert b"sessions created: 0" in piped.stdout


async def test_a_failure_as_json_says_nothing_of_health(tmp_path: Path) -> None:
    nowhere = ("--connect", f"127.0.0.1:{free_port()}", "--json")
    refused = await command("backup", str(tmp_path / "b"), *nowhere)
    assert refused.returncode == 3
    assert set(msgspec.json.decode(refused.stdout)) == {"error"}
    refused = await command("health", *nowhere)
    assert set(msgspec.json.decode(refused.stdout)) == {"healthy", "error"}
