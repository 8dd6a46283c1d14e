"""One question to one process of a cluster, and the map from whoever gives it."""

import os
from collections.abc import Sequence

import trio

from greenroom import wire
from greenroom.cluster_map import ClusterMap
from greenroom.errors import ProtocolError, UnavailableError, UsageError
from greenroom.framing import messages_decoder
from greenroom.negotiation import hello
from greenroom.proofs import NOT_PROVEN
from greenroom.tls.demands import Demand
from greenroom_cluster.links.handshake import NOT_ALLOWED, SECRET_REQUIRED, TLS_REQUIRED
from greenroom_cluster.links.redial import NOT_TRUSTED
from greenroom_cluster.runtime.dialing import DialFailedError, dial
from greenroom_cluster.runtime.proving import Keys, Safeguard, trust_of
from greenroom_cluster.runtime.reading import ConnectionEndedError
from greenroom_cluster.runtime.tasks import open_tasks

INSPECT_SECONDS = 2.0
_UNTRUSTED = frozenset({NOT_TRUSTED, NOT_ALLOWED.code, TLS_REQUIRED.code, SECRET_REQUIRED.code, NOT_PROVEN})

_decoder = messages_decoder(wire.ServerMessage)


def hello_as_admin(cluster: str, target: bytes = b"", role: str = wire.ROLE_ADMIN) -> wire.Hello:
    """Return the hello of a command; `role` may be that of an operator instead."""
    return hello(cluster, role, os.urandom(16), target)


class NoNodeError(UnavailableError):
    """No address gave the cluster map. `untrusted`: one side lacks a certificate or secret."""

    def __init__(self, message: str, *, untrusted: bool = False) -> None:
        super().__init__(message)
        self.untrusted = untrusted


class UntrustedError(UnavailableError):
    """Somebody answers, and one side has no certificate or secret that the other trusts."""


async def ask_once(
    address: str,
    hello: wire.Hello,
    question: wire.Frame,
    seconds: float,
    trust: Safeguard | None,
) -> wire.ServerMessage:
    """Send one message and return the first one that comes back.

    Raises UnavailableError, naming address and reason, and UsageError if it serves another cluster.
    """
    try:
        with trio.fail_after(seconds):
            async with open_tasks() as nursery:
                connection, _ = await dial(address, hello, nursery, seconds=seconds, trust=trust)
                try:
                    connection.speak(_decoder)
                    connection.send([question])
                    answer: wire.ServerMessage = (await connection.receive())[0]
                finally:
                    connection.close()
                    nursery.cancel_scope.cancel()
    except trio.TooSlowError:
        raise UnavailableError(f"{address} did not answer within {seconds} s") from None
    except (DialFailedError, ConnectionEndedError, ProtocolError) as error:
        if isinstance(error, DialFailedError) and error.code == "wrong-cluster":
            raise UsageError(
                f"{address} serves another cluster than {hello.cluster!r}: give its name with --cluster "
                "(GREENROOM_CLUSTER)"
            ) from None
        reason = str(error)
        told = reason if address in reason else f"{address} ended the connection without an answer: {reason}"
        if isinstance(error, DialFailedError) and error.code in _UNTRUSTED:
            if error.code == NOT_PROVEN:
                told += (
                    "; run as the same user, or name the file of the secret that the servers have with "
                    "--secret-file (GREENROOM_SECRET_FILE)"
                )
            raise UntrustedError(told) from None
        raise UnavailableError(told) from None
    if isinstance(answer, wire.Goodbye):
        raise UnavailableError(f"{address} refused: {answer.message}")
    return answer


async def fetch_map(
    addresses: Sequence[str],
    cluster: str,
    seconds: float = INSPECT_SECONDS,
    *,
    credentials: Keys | None,
    role: str = wire.ROLE_ADMIN,
) -> ClusterMap:
    """Return the cluster map from the first node or coordinator that gives it to somebody in that role.

    Raises NoNodeError if none does, UsageError if each of them serves another cluster.
    """
    reasons = []
    mistakes = []
    untrusted = 0
    trust = trust_of(credentials, Demand(cluster, ("node", "coordinator")))
    for address in addresses:
        try:
            greeting = hello_as_admin(cluster, role=role)
            answer = await ask_once(address, greeting, wire.Subscribe(0, 0), seconds, trust)
        except UnavailableError as error:
            reasons.append(str(error))
            untrusted += isinstance(error, UntrustedError)
            continue
        except UsageError as error:
            mistakes.append(str(error))
            continue
        if isinstance(answer, wire.MapFull):
            return answer.map
        reasons.append(f"{address} answered {type(answer).__name__} instead of the map")
    if mistakes and not reasons:
        raise UsageError(mistakes[0])
    text = "; ".join(reasons + mistakes) or "no address was given"
    raise NoNodeError(text, untrusted=0 < untrusted == len(reasons))
