"""What processes are handed at their start: all their settings, and nothing that only some may know."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from greenroom_cluster.config import (
    ActorOptions,
    CoordinatorProcessSettings,
    NodeOptions,
    NodeSettings,
    ProcessOptions,
)
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.restarts import RestartSettings
from greenroom_cluster.runtime.actor import ActorSettings
from greenroom_cluster.runtime.coordinator import CoordinatorServerSettings
from greenroom_cluster.runtime.documents import Membership, decode_settings, encode_settings

HANDED = [ActorSettings, CoordinatorServerSettings, NodeSettings, CoordinatorProcessSettings]
# A secret is handed on as the path of a file that only its owner may read.
SECRET = re.compile(r"secret|token|password|passphrase|credential|private|(^|_)keys?(_|$)")
PATH = re.compile(r"_(file|path|dir)$")
# Bytes can be anything; these are in the public map.
BYTES = {"incarnation"}


def fields(settings: type[msgspec.Struct]) -> Iterator[tuple[str, Any]]:
    """Yield (name, type) of all fields, also of the structs within."""
    for field in msgspec.structs.fields(settings):
        yield field.name, field.type
        for inner in (field.type, *get_args(field.type)):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                yield from fields(inner)


def is_path(kind: Any) -> bool:
    return kind is Path or any(is_path(inner) for inner in get_args(kind))


def holds_secret(name: str, kind: Any) -> bool:
    return (SECRET.search(name) is not None and PATH.search(name) is None and not is_path(kind)) or (
        bytes in (kind, *get_args(kind)) and name not in BYTES
    )


@pytest.mark.parametrize("settings", HANDED)
def test_settings_of_processes_hold_no_secret(settings: type[msgspec.Struct]) -> None:
    found = dict(fields(settings))
    assert len(found) > 3
    assert not [name for name, kind in found.items() if holds_secret(name, kind)]


def test_a_secret_would_be_seen() -> None:
    class Inner(msgspec.Struct):
        tls_key: str
        tls_key_file: str
        other_key: Path | None
        monkey: str

    class Outer(msgspec.Struct):
        inner: Inner | None
        nonce: bytes
        cookie_secret: str

    found = {name for name, kind in fields(Outer) if holds_secret(name, kind)}
    assert found == {"tls_key", "nonce", "cookie_secret"}


PROCESS = ProcessOptions(
    restarts=RestartSettings(restarts_max=7), hang_seconds=3.0, logs=LogSettings("json", "debug")
)


@pytest.mark.parametrize(
    "settings",
    [
        NodeSettings(
            name="n1",
            advertise="h:1",
            node=NodeOptions(actors=3, actor=ActorOptions(memory_max="1GiB", durability="fsync")),
            data_dir=Path("/data"),
            process=PROCESS,
        ),
        CoordinatorProcessSettings(data_dir=Path("/data"), shards=8, adopt_from="a:1,b:2", process=PROCESS),
    ],
    ids=["node", "coordinator"],
)
def test_settings_arrive_as_they_were(settings: NodeSettings | CoordinatorProcessSettings) -> None:
    membership = Membership(4711, settings)
    assert decode_settings(encode_settings(membership), Membership) == membership
