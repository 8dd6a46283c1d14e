"""A client of etcd's JSON gateway over HTTP, under trio.

Each call asks one member, and goes on to the next only if the first cannot be reached. All else that fails is
`EtcdAwayError`, once: the caller knows whether it may ask again, and a transaction may have been applied. How
long a member may be silent is decided by `members`; the next call asks another one then.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self, TypeVar

import httpx
import msgspec
import trio

from greenroom.errors import UsageError
from greenroom_cluster.coordination.etcd import gateway
from greenroom_cluster.coordination.etcd.gateway import (
    Compare,
    EtcdAwayError,
    EtcdRefusedError,
    ForbiddenError,
    GivenLease,
    Header,
    Operation,
    Range,
    Ranged,
    SignedIn,
    SignedOutError,
    Transacted,
    Version,
    Watched,
)
from greenroom_cluster.coordination.etcd.members import Members
from greenroom_cluster.coordination.etcd.settings import EtcdSettings

SILENCE_SECONDS = 12 * 60.0
"""Etcd says every ten minutes that nothing has changed; a watch that is silent for longer is dead."""
_VERSION_MIN = (3, 4)
_WATCH_HEADERS = {"Grpc-Metadata-hasleader": "true"}
"""Without it, a watch at a member that is cut off stays open and says nothing."""

Reply = TypeVar("Reply")


class EtcdClient:
    """Asks one etcd cluster. Use it as an async context manager.

    Every method raises EtcdAwayError if etcd cannot be asked now, and EtcdRefusedError if it will not do
    what it was asked until somebody changes something. `password` is asked for the password, and may raise
    UsageError, whenever the user signs in: it may have been changed.
    """

    def __init__(
        self,
        settings: EtcdSettings,
        tls: ssl.SSLContext | None = None,
        *,
        password: Callable[[], str] = str,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._password = password
        self._members = Members(settings.urls, settings.timeout_seconds)
        self._token = ""
        self._known: set[str] = set()
        secure = any(url.startswith("https:") for url in settings.urls)
        self._http = httpx.AsyncClient(
            verify=tls or (ssl.create_default_context() if secure else False),
            timeout=httpx.Timeout(settings.timeout_seconds),
            trust_env=False,  # what the environment says of proxies is meant for the web
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    # --- keys --------------------------------------------------------------------------------------------

    async def range(self, request: Range) -> Ranged:
        """Read keys as they are now, wherever they were written."""
        return await self._ask("/v3/kv/range", gateway.range_body(request), Ranged)

    async def transact(
        self, compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> Transacted:
        """Do all of `success` if all compares hold, else all of `failure`.

        After EtcdAwayError it may have been done. Raises LeaseOverError if a key is to go with a lease that
        is over, ValueError if it is too much for one transaction.
        """
        body = gateway.transaction_body(compares, success, failure)
        return await self._ask("/v3/kv/txn", body, Transacted)

    @asynccontextmanager
    async def watch(self, request: Range, start_revision: int) -> AsyncIterator[AsyncIterator[Watched]]:
        """Watch keys from a revision on; gives an iterator of what comes.

        It ends after a part that is `canceled`; if that has a `compact_revision`, read the keys, and watch
        from the revision of that reply on. It raises EtcdAwayError when the member ends the watch otherwise.
        """
        body = gateway.watch_body(request, start_revision)
        url = await self._checked()
        silence = httpx.Timeout(self._settings.timeout_seconds, read=SILENCE_SECONDS)
        headers = self._headers() | _WATCH_HEADERS
        try:
            async with self._http.stream(
                "POST", f"{url}/v3/watch", content=body, headers=headers, timeout=silence
            ) as response:
                if response.status_code != httpx.codes.OK:
                    self._refuse(url, await response.aread(), response.status_code)
                yield self._parts(url, response)
        except SignedOutError as error:
            raise self._signed_out(url, error) from None
        except httpx.HTTPError as error:
            raise self._away(url, error) from None

    async def _parts(self, url: str, response: httpx.Response) -> AsyncIterator[Watched]:
        try:
            async for line in response.aiter_lines():
                part = gateway.decoded_part(line.encode(), Watched)
                self._members.heard(url, part.header)
                yield part
                if part.canceled:
                    return  # nothing more would come, and the connection stays open for ever
        except SignedOutError as error:
            raise self._signed_out(url, error) from None
        except httpx.HTTPError as error:
            raise self._away(url, error) from None
        self._members.failed(url)
        raise EtcdAwayError(f"the watch at {url} has ended")

    def _signed_out(self, url: str, error: SignedOutError) -> EtcdAwayError:
        """Forget the token, so that the next request signs in."""
        self._token = ""
        return EtcdAwayError(f"the watch at {url} has ended: {error}")

    # --- leases ------------------------------------------------------------------------------------------

    async def grant(self, ttl_seconds: int) -> GivenLease:
        """Make a lease; etcd may give more than was asked for."""
        body = msgspec.json.encode({"TTL": ttl_seconds})
        return await self._ask("/v3/lease/grant", body, GivenLease)

    async def keep_alive(self, lease: int) -> GivenLease:
        """Renew a lease; the reply has a time of 0 if it is over."""
        body = msgspec.json.encode({"ID": lease})
        part = await self._ask("/v3/lease/keepalive", body, _Kept)
        return part.result

    async def revoke(self, lease: int) -> None:
        """End a lease, and remove its keys; one that is over is fine."""
        with suppress(EtcdRefusedError):
            await self._ask("/v3/lease/revoke", msgspec.json.encode({"ID": lease}), _Headed)

    # --- one request -------------------------------------------------------------------------------------

    async def _ask(self, path: str, body: bytes, kind: type[Reply]) -> Reply:
        try:
            return await self._ask_once(path, body, kind)
        except SignedOutError:
            # Tokens live in one member's memory, and end with it.
            await self._sign_in()
        try:
            return await self._ask_once(path, body, kind)
        except SignedOutError as error:
            raise EtcdRefusedError(
                f"etcd does not take the token of user {self._settings.user!r}: {error}"
            ) from None

    async def _ask_once(self, path: str, body: bytes, kind: type[Reply]) -> Reply:
        for _ in range(len(self._members)):
            url = await self._checked()
            try:
                answer = await self._sent(url, path, body)
            except _UnreachedError as error:
                unreached = error
                continue
            reply = gateway.decoded(answer, kind)
            self._members.heard(url, getattr(reply, "header", Header()))
            return reply
        raise unreached

    async def _sent(self, url: str, path: str, body: bytes) -> bytes:
        began = trio.current_time()
        try:
            response = await self._http.post(
                f"{url}{path}", content=body, headers=self._headers(), timeout=self._patience()
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _UnreachedError(str(self._away(url, error))) from None
        except httpx.RemoteProtocolError as error:
            if self._token:
                # Some releases end the connection instead of saying that a token is not valid.
                self._token = ""
                raise SignedOutError(f"{url} ended the connection without a word") from None
            raise self._away(url, error) from None
        except httpx.HTTPError as error:
            raise self._away(url, error) from None
        if response.status_code != httpx.codes.OK:
            self._refuse(url, response.content, response.status_code)
        self._members.answered(trio.current_time() - began)
        return response.content

    def _patience(self) -> httpx.Timeout:
        return httpx.Timeout(self._members.patience_seconds)

    def _refuse(self, url: str, body: bytes, status: int) -> None:
        try:
            gateway.raise_failure(body, status)
        except EtcdAwayError as error:
            self._members.failed(url)
            raise EtcdAwayError(f"{url} answers: {error}") from None
        except ForbiddenError as error:
            raise EtcdRefusedError(
                f"etcd does not let user {self._settings.user!r} have the keys below "
                f"{self._settings.prefix!r} ({error}): grant that user a role that may read and write them, "
                "or give another with --etcd-user, or another prefix with --store"
            ) from None

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    def _away(self, url: str, error: httpx.HTTPError) -> EtcdAwayError:
        if isinstance(error, httpx.TimeoutException):
            self._members.silent(url)
        else:
            self._members.failed(url)
        told = f"{url} does not answer: {type(error).__name__} {error}".rstrip()
        if url.startswith("https:") and isinstance(error, httpx.NetworkError):
            told += "; does it speak TLS? If not, name it by etcd:// in --store"
        return EtcdAwayError(told)

    # --- members -----------------------------------------------------------------------------------------

    async def _checked(self) -> str:
        """Return the URL of a member that was found to be new enough."""
        failure = EtcdAwayError("no member of etcd is named")
        for _ in range(len(self._members)):
            url = self._members.current
            if url in self._known:
                return url
            try:
                await self._look_up(url)
            except EtcdAwayError as error:
                failure = error
                continue
            return url
        raise failure

    async def _look_up(self, url: str) -> None:
        try:
            response = await self._http.get(f"{url}/version", timeout=self._patience())
        except httpx.HTTPError as error:
            raise self._away(url, error) from None
        if response.status_code != httpx.codes.OK:
            self._members.failed(url)
            raise EtcdAwayError(
                f"{url}/version answers with HTTP status {response.status_code}: is that etcd?"
            )
        version = gateway.decoded(response.content, Version).etcdserver
        if _numbers(version) < _VERSION_MIN:
            raise EtcdRefusedError(f"{url} is etcd {version}: 3.4 or later is needed")
        self._known.add(url)

    async def _sign_in(self) -> None:
        """Get a token for the user."""
        self._token = ""
        if not self._settings.user:
            raise EtcdRefusedError("etcd demands a user: give --etcd-user and --etcd-password-file")
        try:
            body = msgspec.json.encode({"name": self._settings.user, "password": self._password()})
        except UsageError as error:
            raise EtcdRefusedError(str(error)) from None
        try:
            self._token = (await self._ask_once("/v3/auth/authenticate", body, SignedIn)).token
        except EtcdRefusedError as error:
            raise EtcdRefusedError(
                f"etcd does not let user {self._settings.user!r} in ({error}): give another with "
                "--etcd-user, or its password in the file of --etcd-password-file"
            ) from None


class _UnreachedError(EtcdAwayError):
    """A member cannot be connected to, so nothing was sent."""


class _Headed(msgspec.Struct, frozen=True):
    header: Header = Header()


class _Kept(msgspec.Struct, frozen=True):
    """A renewed lease, as the one part of a stream."""

    result: GivenLease = GivenLease()

    @property
    def header(self) -> Header:
        """Who has answered."""
        return self.result.header


def _numbers(version: str) -> tuple[int, ...]:
    """Return major and minor of a version; raises EtcdAwayError if it is none."""
    try:
        major, minor, *_ = version.split(".")
        return int(major), int(minor)
    except ValueError:
        raise EtcdAwayError(f"{version!r} is no version of etcd") from None
