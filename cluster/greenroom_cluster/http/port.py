"""The port itself: bound when the process starts, and served in its loop, beside what the process is for.

Nothing of HTTP is loaded before somebody connects, for most processes of most clusters are never asked. The
connections are bounded in number; one more ends the oldest, so that nobody keeps probes out.
"""

import errno
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import structlog
import trio

from greenroom.addresses import join_address, parse_address
from greenroom.errors import UsageError
from greenroom.tls.channel import TlsError
from greenroom_cluster.http.guard import Guard
from greenroom_cluster.http.view import View
from greenroom_cluster.http.visitor import Visitor
from greenroom_cluster.runtime.judging import cut_off, judge_forever
from greenroom_cluster.runtime.listener import describe_error
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.ports import listening_socket
from greenroom_cluster.runtime.proving import Crowd, Keys
from greenroom_cluster.runtime.tasks import only_error, open_tasks
from greenroom_cluster.tls_options import ServerTlsOptions
from greenroom_cluster.tokens.files import Tokens

if TYPE_CHECKING:
    from greenroom_cluster.http.site import Site

OPTION = "--http (GREENROOM_HTTP)"
VISITORS_MAX = 64
_PACKAGES = {"hypercorn": "hypercorn", "prometheus_client": "prometheus-client", "starlette": "starlette"}
_RETRY_SECONDS = 0.1
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)

_log = structlog.get_logger(__name__)
_limited_log = LimitedLog(_log)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where the port is, and how the process secures its own. Port 0: any free one.

    `keys` are what its other ports are secured by, and `tls` the files of that.
    """

    cluster: str
    listen: str
    tls: ServerTlsOptions
    keys: Keys | None = None
    tokens: Tokens | None = None
    insecure: bool = False


def check_installed() -> None:
    """Raise UsageError if what serves HTTP is not installed."""
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(
            f"{OPTION} needs {' and '.join(missing)}, which the extra `http` brings: install "
            'the wheel of greenroom-cluster with it, or give --http ""'
        )


class HttpPort:
    """An HTTP port, bound at construction (UsageError if it cannot be). `run` serves until cancelled."""

    def __init__(self, settings: HttpSettings, view: View) -> None:
        check_installed()
        self._view = view
        host, port = parse_address(settings.listen, any_port=True)
        self._host = host
        self._socket = listening_socket(
            host,
            port,
            OPTION,
            backlog=VISITORS_MAX,
            secured=settings.tls.files() is not None,
            insecure=settings.insecure,
        )
        try:
            self._guard = Guard(
                settings.cluster,
                host,
                str(self._socket.getsockname()[0]),
                tls=settings.tls,
                keys=settings.keys,
                tokens=settings.tokens,
            )
        except BaseException:
            self._socket.close()
            raise
        self._visitors = Crowd(VISITORS_MAX, "are open")
        self._open: set[Visitor] = set()
        self._site: Site | None = None
        self._loading = trio.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        scheme = "http" if self._guard.context is None else "https"
        return f"{scheme}://{join_address(self._host, self._socket.getsockname()[1])}"

    async def run(self) -> NoReturn:
        """Accept and serve until cancelled."""
        listener = trio.socket.from_stdlib_socket(self._socket)
        _log.info("http_listens", url=self.url)
        try:
            async with open_tasks() as nursery:
                if self._guard.context is not None:
                    nursery.start_soon(judge_forever, self._guard.standing, lambda: self._open, cut_off)
                try:
                    await self._accept(listener, nursery)
                finally:
                    # A viewer that reads nothing must not hold up the end of the process.
                    for visitor in self._open:
                        visitor.hurry()
        finally:
            listener.close()

    async def _accept(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> NoReturn:
        while True:
            try:
                sock, remote = await listener.accept()
            except OSError as error:
                await self._survive(error)
            else:
                nursery.start_soon(self._serve, sock, remote)

    async def _survive(self, error: OSError) -> None:
        _limited_log.error("accept_failed", error=error.strerror or str(error), open=len(self._visitors))
        # Without a descriptor the connection stays in the backlog, and would be tried again at once.
        await trio.sleep(0 if error.errno == errno.ECONNABORTED else _RETRY_SECONDS)

    async def _serve(self, sock: trio.socket.SocketType, remote: tuple[str, int]) -> None:
        visitor = Visitor(sock, remote)
        self._visitors.enter(visitor)
        self._open.add(visitor)
        try:
            with visitor.scope:
                await self._speak(visitor)
        except TlsError as error:
            _limited_log.info("http_refused", remote=visitor.remote, reason=str(error))
        except Exception as error:  # noqa: BLE001  one connection's failure must never reach the others
            if not isinstance(only_error(error), _GONE):
                # Pages tell of theirs themselves. This is a stranger's doing, whom Hypercorn did not expect.
                _limited_log.warning("http_broken", remote=visitor.remote, error=describe_error(error))
        finally:
            self._visitors.leave(visitor)
            self._open.discard(visitor)
            visitor.socket.close()

    async def _speak(self, visitor: Visitor) -> None:
        site = await self._loaded()
        context = self._guard.context
        if context is not None:
            certificate = await visitor.shake_hands(context)
            visitor.proven = self._guard.prove(certificate, context) if certificate else None
        await site.serve(visitor)

    async def _loaded(self) -> "Site":
        async with self._loading:
            if self._site is None:
                # In a thread: it takes a third of a second, and this loop has heartbeats to send.
                self._site = await trio.to_thread.run_sync(self._load)
            return self._site

    def _load(self) -> "Site":
        from greenroom_cluster.http.site import Site

        return Site(self._view, self._guard)
