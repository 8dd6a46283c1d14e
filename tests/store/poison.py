"""Stored data that cannot be read, and how it gets into a MemoryStore."""

from msgspec.structs import replace

from greenroom import MemoryStore
from greenroom.ids import digest_of

NEWER = b"\x81\xa1x\xd4\x63\x00"
"""A dict with an extension of kind 99, as a later version may write it."""

POISONS = {
    "empty": b"",
    "no msgpack": b"\xc1",
    "cut off": b"\x81\xa1x",
    "no dict": b"\x01",
    "key None": b"\x81\xc0\x01",
    "key float": b"\x81\xcb" + bytes(8) + b"\x01",
    "key bytes": b"\x81\xc4\x01k\x01",
    "key bytes below": b"\x81\xa1x\x81\xc4\x01k\x01",
    "65 levels": b"\x81\xa1x" + b"\x91" * 65 + b"\x00",
    "100,000 levels": b"\x81\xa1x" + b"\x91" * 100_000 + b"\x00",
    "no date": b"\x81\xa1x\xd4\x03\x00",
}


def poison(store: MemoryStore, session_id: str, data: bytes, *, expires_us: int | None = None) -> None:
    """Replace the data of a stored session, and its end, past everything that checks them."""
    records, digest = store._table.sessions, digest_of(session_id)
    record = replace(records[digest], data=data)
    if expires_us is not None:
        record = replace(record, expires_us=expires_us)
    records[digest] = record


def holds(store: MemoryStore, session_id: str) -> bool:
    """Whether there is anything under this id, readable or not."""
    return digest_of(session_id) in store._table.sessions
