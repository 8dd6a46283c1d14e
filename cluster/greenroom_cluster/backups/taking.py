"""A backup of a running cluster, into a file or as lines of JSON."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from greenroom_cluster.backups.copying import SHARD_SECONDS, copy_shards
from greenroom_cluster.backups.files import FORMAT_VERSION, BackupWriter, Heading, Part
from greenroom_cluster.backups.portable import encode_line
from greenroom_cluster.questions import fetch_map
from greenroom_cluster.runtime.proving import Keys


class Taken(msgspec.Struct, frozen=True):
    """What a backup has, and how large it is."""

    shards: int
    sessions: int
    size_bytes: int


class Copied(msgspec.Struct, frozen=True):
    """How far a copy of all `of` shards has come: `size_bytes` are those written."""

    shards: int
    of: int
    sessions: int
    size_bytes: int


async def take_backup(
    addresses: Sequence[str],
    cluster: str,
    path: Path,
    *,
    seconds: float = SHARD_SECONDS,
    freeze: bool = False,
    credentials: Keys | None,
    told: Callable[[Copied], None] = lambda _: None,
) -> Taken:
    """Write a new file with all sessions of a cluster; `told` hears how far that has come.

    With `freeze`, the cluster serves no clients any more.

    Raises what `NewFile` and `copy_shards` do; there is no file then.
    """
    cluster_map = await fetch_map(addresses, cluster, credentials=credentials)
    shards = cluster_map.shard_count
    heading = Heading(FORMAT_VERSION, cluster, time.time_ns() // 1000, shards)
    done: set[int] = set()
    with BackupWriter(path, heading) as writer:

        def take(part: Part) -> None:
            writer.add(part)
            done.add(part.shard)
            told(Copied(len(done), shards, writer.sessions, writer.written_bytes))

        await copy_shards(
            addresses,
            cluster,
            take,
            seconds=seconds,
            freeze=freeze,
            credentials=credentials,
            cluster_map=cluster_map,
        )
        writer.finish()
        return Taken(len(done), writer.sessions, writer.written_bytes)


async def export_sessions(
    addresses: Sequence[str],
    cluster: str,
    write: Callable[[bytes], None],
    *,
    credentials: Keys | None,
    told: Callable[[Copied], None] = lambda _: None,
) -> Taken:
    """Hand all sessions of a cluster to `write`, as lines of JSON. Raises what `copy_shards` does."""
    cluster_map = await fetch_map(addresses, cluster, credentials=credentials)
    shards = cluster_map.shard_count
    done: set[int] = set()
    sessions = size_bytes = 0

    def take(part: Part) -> None:
        nonlocal sessions, size_bytes
        lines = b"".join(encode_line(stored) for stored in part.sessions)
        write(lines)
        sessions += len(part.sessions)
        size_bytes += len(lines)
        done.add(part.shard)
        told(Copied(len(done), shards, sessions, size_bytes))

    await copy_shards(addresses, cluster, take, credentials=credentials, cluster_map=cluster_map)
    return Taken(len(done), sessions, size_bytes)
