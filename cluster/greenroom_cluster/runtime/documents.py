"""Settings as one document, in which a process hands them to one that it starts."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from greenroom_cluster.config import CoordinatorProcessSettings, NodeSettings

Settings = TypeVar("Settings")


class Membership(msgspec.Struct, frozen=True):
    """The settings of a member of a local cluster, which ends when the process `parent_pid` does."""

    parent_pid: int
    settings: CoordinatorProcessSettings | NodeSettings


def encode_settings(settings: msgspec.Struct) -> bytes:
    """Return settings as bytes."""
    return msgspec.msgpack.encode(settings, enc_hook=_encode_path)


def decode_settings(document: bytes, kind: type[Settings]) -> Settings:
    """Return what `encode_settings` was given. Raises msgspec.ValidationError for anything else."""
    return msgspec.msgpack.decode(document, type=kind, dec_hook=_decode_path)


def _encode_path(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} cannot be part of settings")


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} cannot be part of settings")
