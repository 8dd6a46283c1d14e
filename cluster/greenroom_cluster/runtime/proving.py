"""Handshakes of TLS under trio: who is at the other end of a connection, before anything else is said."""

import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol, TypeAlias
from weakref import WeakKeyDictionary

import structlog
import trio
from msgspec.structs import replace

from greenroom.errors import UsageError
from greenroom.framing import encode_greeting
from greenroom.identities import Identity, IdentityRole
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.tls.channel import HAS_IT_TLS, TlsError
from greenroom.tls.credentials import BearerCredentials, Credentials, Loaded
from greenroom.tls.demands import Demand
from greenroom.tls.sockets import TlsSocket
from greenroom.tls.standing import Proven
from greenroom.tokens import Token
from greenroom_cluster.links.handshake import TLS_REQUIRED
from greenroom_cluster.proof_options import ProofOptions
from greenroom_cluster.runtime import reloading
from greenroom_cluster.runtime.handshake_turn import HandshakeTurn
from greenroom_cluster.runtime.moving import Mixed, Plain
from greenroom_cluster.runtime.ports import bound_host
from greenroom_cluster.runtime.sockets import remote_host
from greenroom_cluster.tls_options import NodeTlsOptions, ServerTlsOptions, TlsOptions
from greenroom_cluster.tokens.failures import Failures, source_of
from greenroom_cluster.tokens.files import Tokens
from greenroom_cluster.tokens.standing import Standing
from greenroom_cluster.tokens.table import TokenTable, Uncertified

UNPROVEN_MAX = 512
"""Connections to a listener whose other side has not said who it is: the oldest makes room for a new one."""
HANDSHAKES_MAX = 64
"""Handshakes at once in a listener, once something has come: the oldest makes room for a new one."""

Keys: TypeAlias = Credentials | BearerCredentials | LoopbackSecrets | Mixed
"""What a process has to secure its connections by. Only a command has a token."""

Unproven: TypeAlias = Literal["plaintext", "uncertified"]
"""Who has not proven who it is, and may go on: without TLS, or with a token."""

_scratch = memoryview(bytearray(16 * 1024))
_log = structlog.get_logger(__name__)

_PLAINTEXT_REFUSED = encode_greeting(TLS_REQUIRED)


class PlaintextError(Exception):
    """The other side does not speak TLS; it has been told so."""


class NoTlsError(TlsError):
    """The other side has ended the connection without a word of TLS."""


def credentials_in(keys: Keys | None) -> Credentials | None:
    """Return what a process has to speak TLS with, None if nothing."""
    if isinstance(keys, Mixed):
        return keys.credentials
    return keys if isinstance(keys, Credentials) else None


def secrets_in(keys: Keys | None) -> LoopbackSecrets | None:
    """Return by what a process secures plaintext, None if by nothing, or if it speaks none."""
    if isinstance(keys, Mixed):
        return keys.secrets
    return keys if isinstance(keys, LoopbackSecrets) else None


def credentials_of(
    options: TlsOptions, cluster: str, role: IdentityRole, name: str = ""
) -> Credentials | None:
    """Return what a process in this role shows and trusts; None without TLS. Raises UsageError."""
    files = options.files()
    if files is None:
        return None

    def check(identity: Identity) -> None:
        if (identity.cluster, identity.role) != (cluster, role) or (name and identity.name != name):
            raise UsageError(
                f"{files.option('cert')}: the certificate is that of {identity.uri}, and this is "
                f"greenroom://{cluster}/{role}/{name or '*'}: {_mended(identity, cluster, role)}"
            )

    credentials = Credentials(files, _tell_refused, _tell_taken, check=check)
    reloading.note(credentials)
    return credentials


def _mended(identity: Identity, cluster: str, role: IdentityRole) -> str:
    """Return what to do about a certificate that is not that of the process which shows it."""
    if identity.role != role:
        return f"give it the certificate of a {role}"
    if identity.cluster != cluster:
        return "name the cluster with --cluster (GREENROOM_CLUSTER), or give it a certificate of this one"
    return "name the node with --name (GREENROOM_NAME), or give it its own certificate"


def tokens_of(options: NodeTlsOptions, cluster: str) -> Tokens | None:
    """Return the tokens that a node and its actors know; None if they take none. Raises UsageError."""
    if options.tokens is None:
        return None
    tokens = Tokens(options.tokens, cluster, _tell_tokens_refused, _tell_tokens_taken)
    reloading.note(tokens)
    return tokens


def own_secret(options: ProofOptions, cluster: str, host: str) -> LoopbackSecrets | None:
    """Return the secret that a process without TLS proves, and demands; None if none is used.

    It is made unless it is there, if it is demanded at the host that it listens at. Raises UsageError.
    """
    found = options.secrets(cluster)
    if found is not None and found.covers(bound_host(host)):
        found.make()
    return found


def keys_of(
    tls: ServerTlsOptions,
    proof: ProofOptions,
    cluster: str,
    role: IdentityRole,
    host: str,
    *,
    name: str = "",
) -> Keys | None:
    """Return by what a process that listens at a host secures its connections: TLS, else a secret, or both.

    `role` and `name` are what its certificate must say. Raises UsageError.
    """
    credentials = credentials_of(tls, cluster, role, name)
    networks = tls.networks()
    if credentials is None:
        return own_secret(proof, cluster, host)
    if networks is None:
        return credentials
    return Mixed(credentials, own_secret(proof, cluster, host), networks)


def _tell_refused(text: str) -> None:
    _log.error("tls_files_refused", reason=text)


def _tell_taken(loaded: Loaded) -> None:
    _log.info(
        "tls_files_read",
        identity=loaded.identity.uri,
        serial=f"{loaded.serial:X}",
        ends=datetime.fromtimestamp(loaded.ends_at, UTC).isoformat(),
        denied=len(loaded.trusted.revoked),
    )


def _tell_tokens_refused(text: str) -> None:
    _log.error("tokens_refused", reason=text)


def _tell_tokens_taken(table: TokenTable) -> None:
    _log.info("tokens_read", tokens=len(table))


@dataclass(frozen=True, slots=True)
class Trust:
    """How a connection to another process is secured: what we show, and who must answer.

    `mixed`: while the cluster is moved to TLS, who does not speak it yet.
    """

    credentials: Credentials | BearerCredentials
    demand: Demand
    mixed: Mixed | None = None

    @property
    def token(self) -> Token | None:
        """What is shown to who has proven to be the one demanded, if that is no certificate."""
        return self.credentials.current().token

    async def secure(self, sock: socket.socket) -> tuple[TlsSocket, Proven]:
        """Return the socket with TLS around it, and who answers there.

        Raises TlsError, and closes the socket, if it must not be; NoTlsError if it has said nothing in TLS.
        """
        shown = self.credentials.current()
        tls = TlsSocket(sock, shown.client, server_side=False)
        try:
            await shake_hands(tls)
            proven = self.credentials.current().prove(tls)
            self.demand.check(proven.identity)
            proven = replace(proven, shown=shown.trusted.shown)
        except TlsError as error:
            tls.close()
            if tls.heard:
                raise
            raise NoTlsError(str(error)) from None
        except OSError as error:
            tls.close()
            reason = error.strerror or str(error)
            kind = TlsError if tls.heard else NoTlsError
            raise kind(f"it ended the TLS handshake ({reason}); {HAS_IT_TLS}") from None
        except BaseException:
            tls.close()
            raise
        return tls, proven

    @property
    def turn(self) -> trio.Lock:
        """What is held while one link of this process is replaced: a second one waits for it."""
        return _turns.setdefault(self.credentials, trio.Lock())


_turns: WeakKeyDictionary[Credentials | BearerCredentials, trio.Lock] = WeakKeyDictionary()


Safeguard: TypeAlias = Trust | LoopbackSecrets
"""How a connection that we open is secured: by TLS, or on loopback by a secret that both sides prove."""


def trust_of(keys: Keys | None, demand: Demand) -> Safeguard | None:
    """Return how to secure a connection; None if it is not secured. A token is for nodes alone."""
    if isinstance(keys, Mixed):
        return Trust(keys.credentials, demand, keys)
    if isinstance(keys, BearerCredentials):
        return Trust(keys, replace(demand, roles=("node",)))
    return Trust(keys, demand) if isinstance(keys, Credentials) else keys


async def shake_hands(tls: TlsSocket, turn: HandshakeTurn | None = None) -> None:
    """Perform the handshake. Raises OSError.

    With a `turn`, only one of all handshakes makes a step in one round of the event loop: leases and callers
    do not wait for strangers.
    """
    while True:
        if turn is None:
            want = tls.advance(_scratch)
        else:
            async with turn:
                want = tls.advance(_scratch)
        match want:
            case "done":
                return
            case "read":
                await trio.lowlevel.wait_readable(tls.fileno())
            case "write":
                await trio.lowlevel.wait_writable(tls.fileno())


class Ending(Protocol):
    """A connection that can be ended."""

    remote: str

    def abort(self, reason: str = ...) -> None:
        """End it."""


class Crowd:
    """At most `limit` connections at once: one more ends the oldest, which a stranger may have left so."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._members: dict[Ending, None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def enter(self, connection: Ending) -> None:
        """Take one in."""
        self._members[connection] = None
        if len(self._members) > self._limit:
            oldest = next(iter(self._members))
            del self._members[oldest]
            oldest.abort(f"more than {self._limit} connections {self._what}, and this was the oldest")

    def leave(self, connection: Ending) -> None:
        """Let one go; unknown ones are fine."""
        self._members.pop(connection, None)


class Waiting:
    """The connections of one listener whose other side has not proven itself, each from its beginning on."""

    def __init__(self) -> None:
        self._unproven = Crowd(UNPROVEN_MAX, "have not said who they are")

    def __len__(self) -> int:
        return len(self._unproven)

    def enter(self, connection: Ending) -> None:
        """Note a new connection."""
        self._unproven.enter(connection)

    def leave(self, connection: Ending) -> None:
        """Note that a connection is proven, or has ended."""
        self._unproven.leave(connection)


class Gate(Waiting):
    """The handshakes of one listener. Each connection is in it from its beginning until its hello.

    Whoever connects from one of the networks in `plain` may go on without TLS. With `tokens`, who connects
    may show no certificate.
    """

    def __init__(
        self, credentials: Credentials, plain: Plain | None = None, tokens: Tokens | None = None
    ) -> None:
        super().__init__()
        self._credentials = credentials
        self._plain = plain
        self._tokens = tokens
        self._failures = Failures()
        self._handshakes = Crowd(HANDSHAKES_MAX, "are in the TLS handshake")
        self._turn = HandshakeTurn(lambda: len(self._handshakes))

    @property
    def current(self) -> Loaded:
        """What is in use."""
        return self._credentials.current()

    @property
    def tokens(self) -> TokenTable | None:
        """The tokens that count now; None if none are taken."""
        return None if self._tokens is None else self._tokens.current()

    def standing(self) -> Standing:
        """Return whom we trust now."""
        return Standing(self.current.trusted, self.tokens)

    def uncertified(self, wall_seconds: float) -> Uncertified:
        """Return by what to judge a connection whose other side has shown no certificate."""
        return Uncertified(self.tokens or TokenTable(), wall_seconds)

    def note_failure(self, host: str) -> bool:
        """Note that somebody at this host may be looking for a token; return whether that is often so."""
        return self._failures.note(source_of(host), trio.current_time())

    def wrap(self, sock: socket.socket) -> TlsSocket:
        """Return an accepted socket with TLS around it."""
        return TlsSocket(sock, self.current.server, server_side=True)

    def leave(self, connection: Ending) -> None:
        """Note that a connection has said hello, or has ended."""
        super().leave(connection)
        self._handshakes.leave(connection)

    async def prove(self, connection: Ending, tls: TlsSocket) -> Proven | Unproven:
        """Shake hands; return who is there, or what it is let in by.

        Raises OSError, PlaintextError.
        """
        await trio.lowlevel.wait_readable(tls.fileno())
        if tls.meets_plaintext():
            if self._plain is not None and remote_host(connection.remote) in self._plain.networks:
                self._plain.enter(connection)
                return "plaintext"
            tls.answer_plaintext(_PLAINTEXT_REFUSED)
            raise PlaintextError
        self._handshakes.enter(connection)
        try:
            await shake_hands(tls, self._turn)
        finally:
            self._handshakes.leave(connection)
        if self._tokens is not None and not tls.certificate:
            return "uncertified"
        return self.current.prove(tls)
