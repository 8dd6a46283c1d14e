"""How a store secures its connections."""

import socket

from greenroom.tls.channel import TlsError
from greenroom.tls.credentials import Credentials
from greenroom.tls.demands import node_of
from greenroom.tls.sockets import TlsSocket, Want


class Security:
    """What the store of one cluster shows to the nodes, and whom it trusts."""

    def __init__(self, credentials: Credentials, cluster: str) -> None:
        self._credentials = credentials
        self._cluster = cluster

    def reload(self) -> bool:
        """Read the files anew; return whether they can be used."""
        return self._credentials.reload()

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
            raise TlsError(f"it ended the TLS handshake ({reason}); has it TLS?") from None
        if want == "done":
            found = self._credentials.current().identity_in(tls.certificate)
            node_of(self._cluster, node).check(found)
        return want
