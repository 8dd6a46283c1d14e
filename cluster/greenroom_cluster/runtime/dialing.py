"""Opens a connection to another process of the cluster and exchanges hellos."""

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import NoReturn

import msgspec
import structlog
import trio

from greenroom import wire
from greenroom.errors import RemoteProtocolError, UsageError
from greenroom_cluster.links.handshake import Refusal, judge
from greenroom_cluster.links.redial import DIAL_NS, Redial
from greenroom_cluster.runtime.addresses import split_address
from greenroom_cluster.runtime.connection import LINK_KEEPALIVE_SECONDS, OUTBOUND_BYTES_MAX, FramedConnection
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.reading import ConnectionEndedError

_log = structlog.get_logger(__name__)
_limited_log = LimitedLog(_log)

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
    seconds: float = DIAL_NS / 1e9,
    outbound_bytes_max: int = OUTBOUND_BYTES_MAX,
) -> tuple[FramedConnection, wire.Hello]:
    """Connect to `address` ("host:port"), send `hello`; return the connection and the other side's hello.

    The caller sets what the connection speaks, and closes it. `nursery` as for FramedConnection.
    Raises DialFailedError, also if another than the hello's target answers; RemoteProtocolError if something
    else than greenroom answers; UsageError for a malformed address.
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
                connection.greet(hello)
                answer = await connection.receive_first(_answer_decoder)
            except BaseException:
                connection.abort("the handshake failed")
                raise
    except trio.TooSlowError:
        raise DialFailedError(f"{address} did not answer within {seconds} s") from None
    except OSError as error:
        raise DialFailedError(f"{address} cannot be reached: {error.strerror or error}") from None
    except UnicodeError:
        raise DialFailedError(f"{address!a} cannot be reached: that is not a name of a host") from None
    except ConnectionEndedError as error:
        raise DialFailedError(f"{address} ended the connection: {error}") from None
    judged = judge(hello, answer)
    if isinstance(judged, Refusal):
        connection.abort("the handshake failed")
        raise DialFailedError(f"{address} {judged.reason}", judged.code)
    connection.agreement = judged.agreement
    return connection, judged.answer


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
    if sock.getsockname() == sock.getpeername():
        # Where nobody listens, the kernel may connect a socket to itself, and so take the port.
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


async def stay_connected(
    address: str,
    hello: wire.Hello,
    nursery: trio.Nursery,
    serve: Callable[[FramedConnection], Awaitable[None]],
    *,
    what: str,
    on_failure: Callable[[str, str], None] | None = None,
) -> NoReturn:
    """Keep a connection to `address` open until cancelled, and run `serve` on each, until it ends.

    `on_failure(reason, code)` is told of every end, with the code of the other side's `Goodbye` if there was
    one in answer to our hello.

    A connection that ended is aborted, so nothing sent on it arrives later than what the next one carries.
    `what` names the link in logs. Whatever goes wrong is a reason to try again (see `Redial`).
    """
    redial = Redial(hello)
    told = ""
    while True:
        code = ""
        now_ns = _now_ns()
        try:
            connection, _ = await dial(address, hello, nursery, seconds=(redial.dial(now_ns) - now_ns) / 1e9)
            try:
                _log.debug("link_up", link=what, address=address)
                told = ""
                await serve(connection)
                reason = "finished"
            finally:
                connection.abort("the link ended")
        except (DialFailedError, ConnectionEndedError, RemoteProtocolError, UsageError) as error:
            reason = str(error)
            code = error.code if isinstance(error, DialFailedError) else ""
        if on_failure is not None:
            on_failure(reason, code)
        if reason != told:
            _limited_log.info("link_down", link=what, address=address, reason=reason)
            told = reason
        now_ns = _now_ns()
        await trio.sleep((redial.ended(now_ns) - now_ns) / 1e9)


def _now_ns() -> int:
    return int(trio.current_time() * 1e9)
