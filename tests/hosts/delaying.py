"""A wire that takes its time: `python -m tests.hosts.delaying ONE OTHER SECONDS`.

Frames that come in at one interface go out at the other, each so much later, in both directions. The header
of virtio is kept before each frame, because it says what the interfaces leave to be done: checksums and
segments. Writes a line once it runs.
"""

import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_IGNORE_OUTGOING = 23
_ETH_P_ALL = 3
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_FRAME_BYTES_MAX = 1 << 17
_BUFFER_BYTES = 16 << 20


def _open(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    opened.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
    opened.bind((interface, _ETH_P_ALL))
    opened.setblocking(False)
    return opened


def main() -> None:
    one, other, delay_seconds = _open(sys.argv[1]), _open(sys.argv[2]), float(sys.argv[3])
    opposite = {one.fileno(): other, other.fileno(): one}
    poll = select.poll()
    for each in (one, other):
        poll.register(each, select.POLLIN)
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()
    sys.stdout.write("\n")
    sys.stdout.flush()
    while True:
        wait = max(0.0, waiting[0][0] - time.monotonic()) * 1000 if waiting else None
        for descriptor, _ in poll.poll(wait):
            source = one if descriptor == one.fileno() else other
            with suppress(BlockingIOError):
                while True:
                    frame = source.recv(_FRAME_BYTES_MAX)
                    waiting.append((time.monotonic() + delay_seconds, opposite[descriptor], frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, target, frame = waiting.popleft()
            with suppress(OSError):  # as a wire loses what nobody can take
                target.send(frame)


if __name__ == "__main__":
    main()
