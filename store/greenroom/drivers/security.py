"""How a store secures its connections."""

import socket
from weakref import WeakKeyDictionary

from greenroom.identities import Identity
from greenroom.tls.channel import HAS_IT_TLS, TlsError
from greenroom.tls.credentials import BearerCredentials, Credentials, Loaded
from greenroom.tls.demands import node_of
from greenroom.tls.sockets import TlsSocket, Want
from greenroom.tls.standing import Proven, Trusted
from greenroom.tokens import Token


class Security:
    """What the store of one cluster shows to the nodes, and whom it trusts."""

    def __init__(self, credentials: Credentials | BearerCredentials, cluster: str) -> None:
        self._credentials = credentials
        self._cluster = cluster
        self._proven: WeakKeyDictionary[TlsSocket, Proven] = WeakKeyDictionary()

    @property
    def identity(self) -> Identity | None:
        """Who we show to be by a certificate; None with a token, whose holder its servers know."""
        current = self._credentials.current()
        return current.identity if isinstance(current, Loaded) else None

    @property
    def token(self) -> Token | None:
        """What is shown to who has proven to be a node, if that is no certificate."""
        return self._credentials.current().token

    def reload(self) -> bool:
        """Read the files anew; return whether they can be used."""
        return self._credentials.reload()

    def trusted(self) -> Trusted:
        """Return whom we trust now."""
        return self._credentials.current().trusted

    def proven(self, sock: object) -> Proven | None:
        """Return who is at the other end of a connection; None if nobody has proven to be."""
        return self._proven.get(sock) if isinstance(sock, TlsSocket) else None

    def begin(self, sock: socket.socket) -> TlsSocket:
        """Return a connected socket with TLS around it, to be given to `advance` until that is done."""
        return TlsSocket(sock, self._credentials.current().client, server_side=False)

    def advance(self, tls: TlsSocket, node: str, buffer: bytearray) -> Want:
        """Go on with the handshake; return what to wait for. Raises TlsError, saying why it failed.

        A node must answer, and the one of that name if it is not empty.
        """
        try:
            want = tls.advance(memoryview(buffer))
        except TlsError as error:
            raise TlsError(f"it is not trusted: {error}") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise TlsError(f"it ended the TLS handshake ({reason}); {HAS_IT_TLS}") from None
        if want == "done":
            self._proven[tls] = proven = self._credentials.current().prove(tls)
            node_of(self._cluster, node).check(proven.identity)
        return want
