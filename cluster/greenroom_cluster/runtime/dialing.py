"""Opens a connection to another process of the cluster and exchanges hellos."""

import os
import socket

import msgspec
import trio
from greenroom import wire

from greenroom_cluster.runtime.addresses import split_address
from greenroom_cluster.runtime.connection import (
    LINK_KEEPALIVE_SECONDS,
    OUTBOUND_BYTES_MAX,
    ConnectionEndedError,
    FramedConnection,
)

DIAL_SECONDS = 2.0

_answer_decoder = msgspec.msgpack.Decoder(wire.Hello | wire.Goodbye)


class DialFailedError(Exception):
    """The other side could not be reached, or refused. `code` is that of its `Goodbye`, else empty."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


async def dial(
    address: str,
    hello: wire.Hello,
    nursery: trio.Nursery,
    *,
    seconds: float = DIAL_SECONDS,
    outbound_bytes_max: int = OUTBOUND_BYTES_MAX,
) -> tuple[FramedConnection, wire.Hello]:
    """Connect to `address` ("host:port"), send `hello`; return the connection and the other side's hello.

    The caller sets what the connection speaks, and closes it. `nursery` as for FramedConnection.
    Raises DialFailedError; RemoteProtocolError if something else than greenroom answers; UsageError for a
    malformed address.
    """
    try:
        with trio.fail_after(seconds):
            sock = await _connect(address)
            connection = FramedConnection(
                sock,
                nursery,
                outbound_bytes_max=outbound_bytes_max,
                keepalive_seconds=LINK_KEEPALIVE_SECONDS,
            )
            try:
                connection.send([hello])
                answer = await connection.receive_first(_answer_decoder)
            except BaseException:
                connection.abort("the handshake failed")
                raise
    except trio.TooSlowError:
        raise DialFailedError(f"{address} did not answer within {seconds} s") from None
    except OSError as error:
        raise DialFailedError(f"{address} cannot be reached: {error.strerror or error}") from None
    except ConnectionEndedError as error:
        raise DialFailedError(f"{address} ended the connection: {error}") from None
    if isinstance(answer, wire.Goodbye):
        connection.close()
        raise DialFailedError(f"{address} refused: {answer.message} ({answer.code})", answer.code)
    return connection, answer


async def _connect(address: str) -> socket.socket:
    host, port = split_address(address)
    # Numeric hosts are answered without a thread.
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for family, kind, protocol, _, target in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(0)
            await _connect_to(sock, target)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError("the host has no address")


async def _connect_to(sock: socket.socket, target: tuple[object, ...]) -> None:
    try:
        sock.connect(target)
    except BlockingIOError:
        await trio.lowlevel.wait_writable(sock.fileno())
    else:
        await trio.lowlevel.checkpoint()
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
