"""How much one read of a TLS connection decrypts, however the other side cuts what it sends."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greenroom.tls.channel import RECORD_BYTES_MAX
from greenroom.tls.credentials import Loaded, load
from greenroom.tls.sockets import OVERHEAD_BYTES_MAX, READ_BYTES, TlsSocket
from tests.authority import Authority

ROOM = 256 * 1024
RECORD_COST_BYTES = 22
"""What a record of TLS 1.3 takes beside its plaintext."""
RECORDS_MAX = (RECORD_BYTES_MAX + OVERHEAD_BYTES_MAX + READ_BYTES) // RECORD_COST_BYTES
"""How many records one read completes at most.

The last part is read where no more than `OVERHEAD_BYTES_MAX` were read in vain. What the read before had of
the first record hides as much again, because its plaintext counts here and its ciphertext counted there.
"""

Connect = Callable[[], tuple[TlsSocket, TlsSocket]]


class Cable:
    """One end of a connection whose kernel takes everything, and gives all of it at once."""

    def __init__(self) -> None:
        self.incoming = bytearray()
        self.other: Cable

    def send(self, data: bytes) -> int:
        self.other.incoming += data
        return len(data)

    def recv_into(self, buffer: memoryview, nbytes: int = 0) -> int:
        if not self.incoming:
            raise BlockingIOError
        count = min(nbytes or len(buffer), len(self.incoming))
        buffer[:count] = self.incoming[:count]
        del self.incoming[:count]
        return count


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Connect:
    authority = Authority()
    names = ("greenroom://shop/node/n1", "greenroom://shop/client/web")
    node, client = (load(authority.issue(name).files(tmp_path_factory.mktemp("files"))) for name in names)
    return lambda: connected(node, client)


def connected(node: Loaded, client: Loaded) -> tuple[TlsSocket, TlsSocket]:
    near, far = Cable(), Cable()
    near.other, far.other = far, near
    here = TlsSocket(cast("Any", near), client.client, server_side=False)
    there = TlsSocket(cast("Any", far), node.server, server_side=True)
    buffer = memoryview(bytearray(4096))
    while (here.advance(buffer), there.advance(buffer)) != ("done", "done"):
        pass
    return here, there


def reads(there: TlsSocket) -> list[int]:
    """Return how much each read brings until nothing is left."""
    buffer, found = memoryview(bytearray(ROOM + RECORD_BYTES_MAX)), []
    while True:
        try:
            count = there.recv_into(buffer, ROOM)
        except BlockingIOError:
            return found
        assert bytes(buffer[:count]) == b"x" * count
        found.append(count)


def test_a_byte_a_record_is_read_in_small_parts(connect: Connect) -> None:
    here, there = connect()
    sent = ROOM // (RECORD_COST_BYTES + 1)
    for _ in range(sent):
        here.send(b"x")
    parts = reads(there)
    assert sum(parts) == sent
    assert max(parts) <= RECORDS_MAX
    assert max(parts) * 5 < sent


def test_long_records_are_read_as_far_as_there_is_room(connect: Connect) -> None:
    here, there = connect()
    for _ in range(2 * ROOM // (16 * 1024)):
        here.send(b"x" * 16 * 1024)
    parts = reads(there)
    assert sum(parts) == 2 * ROOM
    assert parts[0] > ROOM - 2 * RECORD_BYTES_MAX


@settings(max_examples=60, deadline=None)
@example([(1, 2112), (5507, 1), (15_506, 11), (1, 1574)])  # one that a read begins in the middle of
@given(st.lists(st.tuples(st.integers(1, 16_384), st.integers(1, 3000)), min_size=1, max_size=8))
def test_no_cutting_brings_more_records(connect: Connect, runs: list[tuple[int, int]]) -> None:
    here, there = connect()
    sizes = [size for size, count in runs for _ in range(min(count, 1 + 200_000 // size))]
    for size in sizes:
        here.send(b"x" * size)
    left = iter(sizes)
    for part in reads(there):
        records = 0
        while part > 0:
            part -= next(left)
            records += 1
        assert part == 0, "only whole records are read"
        assert records <= RECORDS_MAX
    assert next(left, None) is None
