"""Accepts connections, and enforces the handshake and the limits of each.

Whatever arrives, even from strangers, ends at most its own connection: a failure of a handler is one
(rate-limited) log line without payloads, and a lack of descriptors refuses only the newest connection.

The first frame must be a `wire.Hello`, within `hello_seconds`. Its role selects the `Service` that decodes
and handles the rest. An unacceptable hello is answered by a `wire.Goodbye` that says why.

`connections_max` bounds clients, and `of_identity_max` those of one holder of a certificate. Peers and
operators have room of their own: otherwise an actor full of idle clients could get no new backup, and could
not be asked for its state.
"""

import errno
import itertools
import os
import socket
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
import trio
from msgspec.structs import replace

from greenroom import wire
from greenroom.addresses import join_address
from greenroom.errors import RemoteProtocolError, UsageError
from greenroom.framing import FRAME_BYTES_MAX, encode_greeting
from greenroom.identities import IdentityRole
from greenroom.proofs import NONCE_BYTES, Challenge, Proof
from greenroom.tls.channel import TlsError
from greenroom.tls.sockets import TlsSocket
from greenroom_cluster.links.handshake import (
    NOT_ALLOWED,
    TLS_REQUIRED,
    AwaitProof,
    Door,
    DoorEffect,
    Finish,
    Say,
    Serve,
    Tell,
)
from greenroom_cluster.links.places import IDENTITY_CONNECTIONS_MAX, TOO_MANY, Places
from greenroom_cluster.runtime.budget import BUFFER_BYTES_MAX, SWEEP_SECONDS, BufferBudget
from greenroom_cluster.runtime.clocks import wall_us
from greenroom_cluster.runtime.connection import OUTBOUND_BYTES_MAX, FramedConnection
from greenroom_cluster.runtime.descriptors import SpareDescriptor, connections_within
from greenroom_cluster.runtime.judging import cut_off, judge_forever
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.moving import Mixed, Plain
from greenroom_cluster.runtime.ports import listening_socket
from greenroom_cluster.runtime.proving import (
    UNPROVEN_MAX,
    Gate,
    Keys,
    PlaintextError,
    Waiting,
    credentials_in,
    secrets_in,
)
from greenroom_cluster.runtime.reading import READ_BYTES, ConnectionEndedError
from greenroom_cluster.runtime.refusals import (
    UNABLE,
    UNTRUSTED,
    tell_crowded,
    tell_guessing,
    tell_refused,
)
from greenroom_cluster.runtime.sockets import charged_as, remote_host
from greenroom_cluster.runtime.tasks import open_tasks
from greenroom_cluster.tokens.files import Tokens
from greenroom_cluster.tokens.table import PLAINTEXT, Uncertified

RESERVED_CONNECTIONS = 256
"""Room beside the clients for peers, operators, and connections that have not sent a hello yet."""

_BACKLOG = 1024
# Each costs a tenth of a millisecond with the beginning and end of its task, and callers wait meanwhile.
_ACCEPTS_PER_TURN = 4
_RETRY_SECONDS = 0.1
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Handler = Callable[[FramedConnection, wire.Hello, int], Awaitable[None]]

_hello_decoder = msgspec.msgpack.Decoder(wire.Hello)
_proof_decoder = msgspec.msgpack.Decoder(Proof)
_log = structlog.get_logger(__name__)
_limited_log = LimitedLog(_log)


class NoSecretError(Exception):
    """We demand a proof, and have no secret to judge it by. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Service:
    """A listener's service for one role: `handle(connection, hello, number)` until the connection ends.

    `number` is unique within the listener. With `target_required` the hello must name our identity. At most
    `read_bytes` of a connection are read at once. `answers_shared`: long replies to all connections share the
    same bytes, so more connections hold no more memory.
    """

    decoder: "msgspec.msgpack.Decoder[list[Any]]"
    handle: Handler
    frame_bytes_max: int = FRAME_BYTES_MAX
    target_required: bool = False
    read_bytes: int = READ_BYTES
    answers_shared: bool = False


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Our identity, the sender of our hello, and the limits of connections. Port 0: any free one.

    `connections_max` is how many clients are served at a time, `of_identity_max` how many of one holder of a
    certificate or token, or of the secret of loopback. `option` is the option that sets the port, for
    errors. `buffer_bytes_max` bounds what all but peers hold together; see BufferBudget. With credentials of
    TLS nothing but TLS is spoken, or plaintext with some networks too, and one of `tokens` is taken for a
    certificate; without, the address must be on loopback unless `insecure`, and a secret may be proven. Who
    has a certificate in one of the roles `refused` is not served.
    """

    cluster: str
    identity: bytes
    host: str = "127.0.0.1"
    port: int = 0
    option: str = "--listen"
    connections_max: int = 10_000
    of_identity_max: int = IDENTITY_CONNECTIONS_MAX
    hello_seconds: float = 5.0
    outbound_bytes_max: int = OUTBOUND_BYTES_MAX
    buffer_bytes_max: int = BUFFER_BYTES_MAX
    credentials: Keys | None = None
    tokens: Tokens | None = None
    insecure: bool = False
    refused: frozenset[IdentityRole] = frozenset()


class Listener:
    """A bound TCP listener. `run` serves until cancelled. `clock_us` returns the time for its hellos.

    Raises UsageError at construction if the address cannot be listened on.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        services: Mapping[str, Service],
        clock_us: Callable[[], int] = wall_us,
    ) -> None:
        self._settings = settings
        self._services = services
        self._clock_us = clock_us
        beside = 0 if settings.credentials is None else UNPROVEN_MAX
        within = connections_within(settings.connections_max + RESERVED_CONNECTIONS + beside)
        within = max(1, within - beside)
        # If few files may be open, most of them are for clients.
        self._clients_max = min(settings.connections_max, max(within - RESERVED_CONNECTIONS, within * 3 // 4))
        self._open_max = min(self._clients_max + RESERVED_CONNECTIONS, within)
        limited = self._clients_max < settings.connections_max
        if limited:
            _log.warning(
                "connections_limited",
                connections_max=self._clients_max,
                wanted=settings.connections_max,
                reason="the limit of open files is too low; raise it (ulimit -n)",
            )
        self._numbers = itertools.count(1)
        self._open: set[FramedConnection] = set()
        self._budget = BufferBudget(settings.buffer_bytes_max)
        self._spare = SpareDescriptor()
        self._nursery: trio.Nursery | None = None
        keys = settings.credentials
        self._plain = Plain(keys.networks) if isinstance(keys, Mixed) else None
        credentials = credentials_in(keys)
        self._gate = None if credentials is None else Gate(credentials, self._plain, settings.tokens)
        self._secrets = secrets_in(keys)
        self._waiting: Waiting | None = self._gate
        if self._gate is None and self._secrets is not None:
            self._waiting = Waiting()
        self._door = Door(
            settings.cluster,
            settings.identity,
            {role: service.target_required for role, service in services.items()},
            settings.refused,
        )
        self._places = Places(
            self._clients_max, settings.of_identity_max, several=credentials is not None, scarce=limited
        )
        self._full = encode_greeting(self._places.full)
        self._socket = listening_socket(
            settings.host,
            settings.port,
            settings.option,
            backlog=_BACKLOG,
            secured=credentials_in(settings.credentials) is not None,
            insecure=settings.insecure,
        )
        self._bound = str(self._socket.getsockname()[0])
        self._closed = False

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    @property
    def served(self) -> Counter[str]:
        """How many connections are served, by the role of their hello."""
        return self._places.served

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def address(self, advertise_host: str = "") -> str:
        """Return `host:port` at which others reach this listener, with `advertise_host` if given."""
        return join_address(advertise_host or self._settings.host, self.port)

    async def run(self) -> None:
        """Accept and serve until cancelled; then every connection is closed."""
        try:
            async with open_tasks() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._sweep_forever)
                if (gate := self._gate) is not None:
                    nursery.start_soon(judge_forever, gate.standing, lambda: self._open, cut_off)
                if self._plain is not None:
                    nursery.start_soon(self._plain.tell_forever, self.address())
                try:
                    await self._accept_forever(nursery)
                finally:
                    self.close()
        finally:
            for connection in list(self._open):
                connection.close()

    def close(self) -> None:
        """Stop accepting; open connections go on."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()
            self._spare.give_up()

    # --- accepting ---------------------------------------------------------------------------------------

    async def _accept_forever(self, nursery: trio.Nursery) -> None:
        for turn in itertools.count(1):
            if turn % _ACCEPTS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            if self._closed:
                return
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_readable(self._socket.fileno())
                except trio.ClosedResourceError:
                    return
            except OSError as error:
                await self._survive(error)
            else:
                self._admit(sock, nursery)

    def _admit(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        # If all must prove something, there is room of its own for those who have not.
        if self._waiting is None and len(self._open) >= self._open_max:
            tell_crowded(TOO_MANY)
            self._refuse(sock)
            return
        tls = None if self._gate is None else self._gate.wrap(sock)
        try:
            connection = FramedConnection(
                tls or sock,
                nursery,
                outbound_bytes_max=self._settings.outbound_bytes_max,
            )
        except OSError:  # it was reset before it was accepted
            sock.close()
            return
        if self._waiting is None:
            self._open.add(connection)
        else:
            self._waiting.enter(connection)
        nursery.start_soon(self._serve, connection, next(self._numbers), tls)

    def _refuse(self, sock: socket.socket) -> None:
        # Not worth a task if the kernel does not take it at once: refusals must stay cheap.
        try:
            sock.settimeout(0)
            sock.send(self._full)
        except OSError:
            pass
        finally:
            sock.close()

    async def _survive(self, error: OSError) -> None:
        """Go on after a failed accept: other connections must not suffer from it."""
        _limited_log.error("accept_failed", error=error.strerror or str(error), open=len(self._open))
        if error.errno not in _OUT_OF_RESOURCES:  # the connection was gone before we accepted it
            return
        # With the spare descriptor we accept the newest connection and refuse it. In the backlog it would
        # wait, and keep this loop spinning.
        if self._spare.give_up():
            try:
                sock, _ = self._socket.accept()
            except OSError:
                pass
            else:
                self._refuse(sock)
        if self._spare.take_back():
            await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(_RETRY_SECONDS)

    async def _sweep_forever(self) -> None:
        while True:
            await trio.sleep(SWEEP_SECONDS)
            self._budget.sweep()

    # --- one connection ----------------------------------------------------------------------------------

    async def _serve(self, connection: FramedConnection, number: int, tls: TlsSocket | None) -> None:
        try:
            await self._greet_and_handle(connection, number, tls)
        except TlsError as error:
            tell_refused(connection, UNTRUSTED, str(error), number=number)
            await connection.finish()
        except PlaintextError:
            detail = f"it speaks no TLS: {TLS_REQUIRED.message}"
            tell_refused(connection, TLS_REQUIRED.code, detail, number=number)
            await connection.finish()
        except NoSecretError as error:
            tell_refused(connection, UNABLE, str(error), number=number)
            connection.greet(NOT_ALLOWED)
            await connection.finish()
        except ConnectionEndedError as error:
            _log.debug("connection_ended", remote=connection.remote, number=number, reason=str(error))
        except RemoteProtocolError as error:
            _limited_log.warning(
                "connection_broke_protocol", remote=connection.remote, number=number, error=str(error)
            )
            connection.abort(str(error))
        except Exception as error:  # noqa: BLE001 - one connection's failure must never reach the others
            _limited_log.error(
                "connection_failed", remote=connection.remote, number=number, error=describe_error(error)
            )
            connection.abort("its handler failed")
        finally:
            connection.close()
            self._open.discard(connection)
            if self._waiting is not None:
                self._waiting.leave(connection)
            if self._plain is not None:
                self._plain.leave(connection)

    async def _greet_and_handle(
        self, connection: FramedConnection, number: int, tls: TlsSocket | None
    ) -> None:
        said = False
        with trio.move_on_after(self._settings.hello_seconds) as scope:
            uncertified = PLAINTEXT
            if tls is not None:
                uncertified = await self._prove(connection, tls)
            hello = await connection.receive_first(_hello_decoder)
            effects = self._answer_to(hello, connection, uncertified)
            match effects:
                case [Say(greeting=greeting), AwaitProof() as awaited]:
                    connection.greet(greeting)
                    effects = self._door.proven(awaited, await connection.receive_first(_proof_decoder))
                    said = True
        if scope.cancelled_caught:
            raise RemoteProtocolError(f"no hello came within {self._settings.hello_seconds} s")
        await self._take_in(connection, said=said)
        holder = await self._perform(effects, connection, hello.role, number)
        if holder is None:
            return
        self._places.take(hello.role, holder)
        try:
            # What proves who it is has served its purpose, and may be a token.
            await self._services[hello.role].handle(connection, replace(hello, auth=b""), number)
        finally:
            self._places.give_back(hello.role, holder)

    def _answer_to(
        self, hello: wire.Hello, connection: FramedConnection, uncertified: Uncertified
    ) -> list[DoorEffect]:
        identity = None if connection.proven is None else connection.proven.identity
        return self._door.receive(
            hello,
            self._clock_us(),
            self._places.refusal,
            identity,
            self._challenge(connection),
            uncertified,
        )

    def _challenge(self, connection: FramedConnection) -> Challenge | None:
        if self._secrets is None or connection.proven is not None:
            return None
        try:
            return self._secrets.challenge_at(self._bound, connection.came_in_at(), os.urandom(NONCE_BYTES))
        except UsageError as error:
            raise NoSecretError(str(error)) from None

    async def _perform(
        self, effects: list[DoorEffect], connection: FramedConnection, role: str, number: int
    ) -> str | None:
        """Perform what the door decided; return for whom the connection is served, None if it is not."""
        served_for = None
        for effect in effects:
            match effect:
                case Serve(agreement=agreement, bearer=bearer, holder=holder):
                    served_for = holder
                    connection.agreement = agreement
                    connection.proven = connection.proven or bearer
                    self._prepare(connection, role, number)
                case Say(greeting=greeting):
                    connection.greet(greeting)
                case Tell(message=message):
                    connection.send([message])
                case Finish(code=code, detail=detail, guessed=guessed):
                    self._tell_why(connection, code, detail, number, guessed=guessed)
                    await connection.finish()
                    return None
        return served_for

    def _tell_why(
        self, connection: FramedConnection, code: str, detail: str, number: int, *, guessed: bool
    ) -> None:
        """Log why a connection is refused: `guessed` is one that showed what is no token."""
        host = remote_host(connection.remote)
        if guessed and self._gate is not None and self._gate.note_failure(host):
            tell_guessing(host)
        elif code == TOO_MANY:
            tell_crowded(code)
        else:
            tell_refused(connection, code, detail, number=number)

    async def _prove(self, connection: FramedConnection, tls: TlsSocket) -> Uncertified:
        """Learn who is there, or by what to judge its hello."""
        assert self._gate is not None
        try:
            match await self._gate.prove(connection, tls):
                case "plaintext":
                    connection.go_on_with(tls.without_tls())
                case "uncertified":
                    return self._gate.uncertified(wall_us() / 1e6)
                case proven:
                    connection.proven = proven
            return PLAINTEXT
        except TlsError:
            if tls.established:  # it is told, but not why
                connection.greet(NOT_ALLOWED)
            raise
        except (OSError, trio.ClosedResourceError) as error:
            raise ConnectionEndedError(f"it ended during the TLS handshake: {error}") from None

    async def _take_in(self, connection: FramedConnection, *, said: bool) -> None:
        """Count a connection, now that its other side has proven itself, or refuse it.

        `said`: we have said our hello already.
        """
        if self._waiting is None:
            return
        self._waiting.leave(connection)
        if len(self._open) >= self._open_max:
            if said:
                connection.send([self._places.full])
            else:
                connection.greet(self._places.full)
            await connection.finish()
            raise ConnectionEndedError("too many connections")
        self._open.add(connection)

    def _prepare(self, connection: FramedConnection, role: str, number: int) -> None:
        service = self._services[role]
        connection.speak(service.decoder, service.frame_bytes_max, service.read_bytes)
        if role != wire.ROLE_PEER:
            holder = connection.holder
            # An app has as many connections as it likes, at hosts of its choice: it is one account.
            source = charged_as(connection.remote, number) if holder is None else holder.uri
            connection.account(self._budget, source, queued=not service.answers_shared)


def describe_error(error: BaseException) -> str:
    """Return the type and place of an error, without its text and values, which may hold user data."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"
