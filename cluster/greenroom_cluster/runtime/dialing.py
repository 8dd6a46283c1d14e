"""Opens a connection to another process of the cluster and exchanges hellos."""

import errno
import math
import os
import socket
from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol

import msgspec
import structlog
import trio

from greenroom import wire
from greenroom.addresses import join_address, parse_address
from greenroom.deadlines import NEVER_NS
from greenroom.errors import RemoteProtocolError, UsageError
from greenroom.framing import encode_greeting
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.proofs import NONCE_BYTES
from greenroom.silence import LINK
from greenroom.tls.channel import TlsError
from greenroom.tls.sockets import Stream
from greenroom.tls.standing import Objection, Proven
from greenroom_cluster.links import redial, seeking
from greenroom_cluster.links.redial import DIAL_NS
from greenroom_cluster.runtime.connection import OUTBOUND_BYTES_MAX, FramedConnection
from greenroom_cluster.runtime.judging import cut_off, judge_forever
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.proving import NoTlsError, Safeguard, Trust
from greenroom_cluster.runtime.reading import ConnectionEndedError
from greenroom_cluster.runtime.tasks import open_tasks
from greenroom_cluster.tokens.standing import Standing

_log = structlog.get_logger(__name__)
_limited_log = LimitedLog(_log)

_answer_decoder = msgspec.msgpack.Decoder(wire.Hello | wire.Goodbye)


class DialFailedError(Exception):
    """The other side could not be reached, or refused. `code` is that of its `Goodbye`, or `NOT_TRUSTED`."""

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
    trust: Safeguard | None = None,
) -> tuple[FramedConnection, wire.Hello]:
    """Connect to `address` ("host:port"), send `hello`; return the connection and the other side's hello.

    The caller sets what the connection speaks, and closes it. `nursery` as for FramedConnection. `trust` says
    how it is secured.
    Raises DialFailedError, also if a process other than the hello's target answers; RemoteProtocolError if it
    does not speak greenroom's protocol; UsageError for a malformed address.
    """
    line = _Line(address, hello, nursery, seconds, outbound_bytes_max, trust)
    event: redial.RedialInput = redial.Tick()
    try:
        while True:
            for effect in line.step(event):
                match effect:
                    case redial.Up(answer=answer):
                        return line.hand_over(), answer
                    case redial.Failed(reason=reason, code=code):
                        raise line.error or DialFailedError(reason, code)
            event = await line.next_event()
    finally:
        line.reset()


class _Line:
    """The socket of a `Redial`: performs its effects on the socket, and brings the events that follow."""

    def __init__(
        self,
        address: str,
        hello: wire.Hello,
        nursery: trio.Nursery,
        seconds: float = DIAL_NS / 1e9,
        outbound_bytes_max: int = OUTBOUND_BYTES_MAX,
        trust: Safeguard | None = None,
    ) -> None:
        self._hello = hello
        self._trust = trust
        self._redial = redial.Redial(address, hello, round(seconds * 1e9))
        self._nursery = nursery
        self._outbound_bytes_max = outbound_bytes_max
        self._connection: FramedConnection | None = None
        # The connection while its user has it, and another that is to take its place.
        self._in_use: FramedConnection | None = None
        self._spare: tuple[FramedConnection, redial.Replaced] | None = None
        self._answerer = b""
        self._connect_seconds = math.inf
        self._seeking = seeking.Seeking(self._redial.addresses)
        self._held = trio.Event()
        self._next: Callable[[], Awaitable[redial.RedialInput]] = trio.sleep_forever
        self.error: Exception | None = None

    def step(self, event: redial.RedialInput) -> list[redial.RedialEffect]:
        """Pass the redial an event; perform the effects on the socket, and return all effects."""
        self._next = trio.sleep_forever
        effects = self._redial.step(_now_ns(), event)
        for effect in effects:
            match effect:
                case redial.Open(connect_ns=connect_ns):
                    self.error = None
                    self._connect_seconds = connect_ns / 1e9
                    self._next = self._open
                case redial.Greet(hello=hello):
                    self._greet(hello)
                case redial.Prove(proof=proof):
                    self.connection.send_encoded(encode_greeting(proof))
                case redial.Up(answer=answer, agreement=agreement):
                    if self._spare is not None:
                        self._connection, self._spare = self._spare[0], None
                    self.connection.agreement = agreement
                    self._answerer = answer.sender
                case redial.Reset():
                    self.reset()
        return effects

    @property
    def connection(self) -> FramedConnection:
        """The open connection."""
        assert self._connection is not None
        return self._connection

    def hand_over(self) -> FramedConnection:
        """Return the connection, which the caller owns from now on."""
        connection, self._connection = self.connection, None
        return connection

    def reset(self) -> None:
        """End the connection, if there is one, with a reset."""
        connection, self._connection = self._connection, None
        self._in_use = None
        if connection is not None:
            connection.abort("the link ended")

    def stop(self) -> None:
        """End the connection, and keep none any more."""
        self.step(redial.Stop())
        if self._spare is not None:
            self._spare[0].abort("the link ended")

    def use(self, run: Callable[[FramedConnection], Awaitable[bool]]) -> None:
        """Have `run` use the connection, until it returns or raises."""

        async def used() -> redial.RedialInput:
            self._in_use = self.connection
            shuns = False
            self._seek(seeking.Held(self._redial.address, self._answerer))
            self._held.set()
            try:
                if shuns := await run(self._in_use):
                    self._seek(seeking.Shunned(self._redial.address))
            except ConnectionEndedError:
                if self._spare is None:
                    raise
            finally:
                self._seek(seeking.Released())
            return redial.Ended("finished", shuns=shuns) if self._spare is None else self._spare[1]

        self._next = used

    @property
    def address(self) -> str:
        """The address that is connected to, or tried next."""
        return self._redial.address

    async def next_event(self) -> redial.RedialInput:
        """Wait for the next event on the socket, or for the time at which the redial is due."""
        due_ns = self._redial.next_deadline()
        seconds = math.inf if due_ns == NEVER_NS else max(0.0, (due_ns - _now_ns()) / 1e9)
        event: redial.RedialInput = redial.Tick()
        with trio.move_on_after(seconds):
            try:
                event = await self._next()
            except ConnectionEndedError as error:
                event = redial.Ended(str(error))
            except (RemoteProtocolError, UsageError) as error:
                self.error = error
                event = redial.Ended(str(error))
        return event

    async def judge_forever(self, trust: Trust) -> NoReturn:
        """Replace or end the connection in use when a certificate at either end counts no more."""

        async def end(connection: FramedConnection, objection: Objection) -> None:
            if not objection.waits:
                await cut_off(connection, objection)
                return
            async with trust.turn:
                if connection is self._in_use:
                    await self._replace(connection, objection)

        await judge_forever(lambda: Standing(trust.credentials.current().trusted), self._judged, end)

    def _judged(self) -> list[FramedConnection]:
        return [] if self._in_use is None else [self._in_use]

    async def _replace(self, former: FramedConnection, objection: Objection) -> None:
        """Have another connection take the place of this one; if there is none, it goes on for now."""
        try:
            spare, answer = await dial(self._redial.address, self._hello, self._nursery, trust=self._trust)
        except (DialFailedError, RemoteProtocolError, UsageError) as error:
            told = f"{objection.reason}; another connection cannot take its place: {error}"
            _limited_log.info("link_not_renewed", address=self._redial.address, reason=told)
            return
        if former is not self._in_use or former.ended:
            spare.abort("it is not needed any more")
            return
        self._spare = spare, redial.Replaced(answer, spare.agreement)
        former.abort(f"another connection took its place: {objection.reason}")
        _limited_log.info("link_renewed", address=self._redial.address, reason=objection.reason)

    @property
    def has_others(self) -> bool:
        """Whether there is more than one address."""
        return len(self._redial.addresses) > 1

    async def seek_forever(self, nursery: trio.Nursery) -> NoReturn:
        """Dial the other addresses while one is in use, and go to whoever answers there."""
        while True:
            due_ns = self._seeking.next_deadline()
            seconds = math.inf if due_ns == NEVER_NS else max(0.0, (due_ns - _now_ns()) / 1e9)
            with trio.move_on_after(seconds):
                await self._held.wait()
            self._held = trio.Event()
            for effect in self._seek(seeking.Tick()):
                if isinstance(effect, seeking.Dial):
                    nursery.start_soon(self._look_at, effect.address)

    def _seek(self, event: seeking.SeekingInput) -> list[seeking.SeekingEffect]:
        return self._seeking.step(_now_ns(), event)

    async def _look_at(self, address: str) -> None:
        """Go to whoever answers at another address, if it is another one."""
        try:
            spare, answer = await dial(address, self._hello, self._nursery, trust=self._trust)
        except (DialFailedError, RemoteProtocolError, UsageError):
            self._seek(seeking.Unanswered(address))
            return
        former = self._in_use
        taken = seeking.Take() in self._seek(seeking.Answered(address, answer.sender))
        if not taken or former is None or former.ended or self._spare is not None:
            spare.abort("it is not needed")
            return
        _limited_log.info("link_moved", address=address, former=self._redial.address)
        self._spare = spare, redial.Replaced(answer, spare.agreement, address)
        former.abort(f"another process answers at {address}")

    async def _open(self) -> redial.RedialInput:
        try:
            stream, proven, secrets, reached = await self._secured()
            self._connection = FramedConnection(
                stream,
                self._nursery,
                outbound_bytes_max=self._outbound_bytes_max,
                silence=LINK,
            )
            self._connection.proven = proven
        except TlsError as error:
            return redial.Ended(f"{self._redial.address} is not trusted: {error}", redial.NOT_TRUSTED)
        except OSError as error:
            return redial.Ended(f"{self._redial.address} cannot be reached: {error.strerror or error}")
        except UnicodeError:
            return redial.Ended(f"{self._redial.address!a} cannot be reached: that is not a host name")
        if secrets is not None:
            return redial.Opened(secrets.challenge(reached, os.urandom(NONCE_BYTES)))
        # A token is shown to who has proven to be the one that must answer, and to nobody else.
        shown = trust.token if isinstance(trust := self._trust, Trust) and proven is not None else None
        return redial.Opened(shown)

    async def _secured(self) -> tuple[Stream, Proven | None, LoopbackSecrets | None, str]:
        """Connect; return the connection, who has proven to answer, or by what that is proven, and where.

        Raises OSError.
        """
        sock, reached = await self._connected()
        trust = self._trust
        if not isinstance(trust, Trust):
            return sock, None, trust, reached
        try:
            return *await trust.secure(sock), None, reached
        except NoTlsError:
            mixed = trust.mixed
            if mixed is None or not mixed.may_be_plain(reached):
                raise
        sock, reached = await self._connected()
        if not mixed.may_be_plain(reached):  # its name has another address now
            sock.close()
            raise TlsError("it has no TLS, and --plaintext-from does not name its network")
        return sock, None, mixed.secrets, reached

    async def _connected(self) -> tuple[socket.socket, str]:
        with trio.move_on_after(self._connect_seconds):
            return await _connect(self._redial.address)
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    def _greet(self, hello: wire.Hello) -> None:
        self._next = self._answer
        self.connection.greet(hello)

    async def _answer(self) -> redial.RedialInput:
        try:
            return redial.Answer(await self.connection.receive_first(_answer_decoder))
        except ConnectionEndedError as error:
            return redial.Ended(f"{self._redial.address} ended the connection: {error}")


async def _connect(address: str) -> tuple[socket.socket, str]:
    """Return a connected socket, and the address that it has reached, with a number for its host."""
    host, port = parse_address(address)
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
            return sock, join_address(str(target[0]), port)
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
        # On a port without a listener the kernel may connect the socket to itself, which takes the port.
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


class LinkUser(Protocol):
    """The user of a connection that is kept open."""

    def begin(self, connection: FramedConnection, address: str) -> None:
        """Note a new connection, and to where; nothing has been received on it yet."""

    async def use(self, connection: FramedConnection) -> bool:
        """Use it until it ends, or is of no more use; return whether who answers there is of none at all."""

    def end(self) -> None:
        """Note that it has ended."""

    def failed(self, reason: str, code: str) -> None:
        """Note why there is no connection, with the code of the `Goodbye` that answered our hello, if any."""


async def stay_connected(
    address: str,
    hello: wire.Hello,
    nursery: trio.Nursery,
    user: LinkUser,
    *,
    what: str,
    trust: Safeguard | None = None,
) -> NoReturn:
    """Keep a connection to `address` open until cancelled, as `Redial` decides. `what` names it in logs."""
    line = _Line(address, hello, nursery, trust=trust)
    async with open_tasks() as tasks:
        if isinstance(trust, Trust):
            tasks.start_soon(line.judge_forever, trust)
        if line.has_others:
            tasks.start_soon(line.seek_forever, tasks)
        await _keep(line, address, user, what)
    raise AssertionError("it ends by being cancelled alone")


_REASONS_MAX = 32


async def _keep(line: _Line, address: str, user: LinkUser, what: str) -> NoReturn:
    told: set[str] = set()  # of several addresses each has its reason
    event: redial.RedialInput = redial.Tick()
    try:
        while True:
            for effect in line.step(event):
                match effect:
                    case redial.Up():
                        _log.debug("link_up", link=what, address=address)
                        told.clear()
                        line.use(user.use)
                        user.begin(line.connection, line.address)
                    case redial.Down():
                        user.end()
                    case redial.Failed(reason=reason, code=code):
                        user.failed(reason, code)
                        if reason not in told:
                            _limited_log.info("link_down", link=what, address=address, reason=reason)
                            if len(told) >= _REASONS_MAX:
                                told.clear()
                            told.add(reason)
            event = await line.next_event()
    finally:
        line.stop()


def _now_ns() -> int:
    return int(trio.current_time() * 1e9)
