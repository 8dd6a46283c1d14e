"""Whom an HTTP port shows the state of the cluster, by what its process knows of secrets and certificates."""

import ssl
from dataclasses import dataclass
from typing import Any

import trio
from msgspec.structs import replace

from greenroom.errors import UsageError
from greenroom.rereading import ignore
from greenroom.tls.credentials import Credentials
from greenroom.tls.standing import Proven
from greenroom_cluster.http.door import (
    Asked,
    Refusal,
    objection,
    objection_in_plaintext,
    objection_in_tls,
)
from greenroom_cluster.runtime import reloading
from greenroom_cluster.runtime.clocks import wall_us
from greenroom_cluster.runtime.proving import Keys, credentials_in, secrets_in
from greenroom_cluster.tls_options import ServerTlsOptions
from greenroom_cluster.tokens.failures import Failures, source_of
from greenroom_cluster.tokens.files import Tokens
from greenroom_cluster.tokens.standing import Standing
from greenroom_cluster.tokens.table import TokenTable, Uncertified

_ONE_OF_MANY = Refusal(429, "ten requests from there within a minute held no token that is known")


@dataclass(frozen=True, slots=True)
class _Shown:
    certificate: dict[str, Any]
    context: ssl.SSLContext


class Guard:
    """Judges the requests at one port. `own_host` is the one that it was given, `bound` what that stands for.

    With TLS who connects may show no certificate, because probes have none. Raises UsageError.
    """

    def __init__(
        self,
        cluster: str,
        own_host: str,
        bound: str,
        *,
        tls: ServerTlsOptions,
        keys: Keys | None,
        tokens: Tokens | None,
    ) -> None:
        self._cluster = cluster
        self._own_host = own_host
        self._bound = bound
        self._tokens = tokens
        self._secrets = secrets_in(keys)
        self._failures = Failures()
        self._credentials: Credentials | None = None
        if (files := tls.files()) is not None:
            # What comes of reading them is told by those of the process's own ports.
            own = credentials_in(keys)
            check = ignore if own is None else own.check
            self._credentials = Credentials(replace(files, optional=True), ignore, check=check)
            reloading.note(self._credentials)

    @property
    def context(self) -> ssl.SSLContext | None:
        """By what the port speaks TLS now; None if it does not."""
        return None if self._credentials is None else self._credentials.current().server

    def prove(self, certificate: dict[str, Any], context: ssl.SSLContext) -> Proven:
        """Return who has shown this verified certificate. Raises TlsError if nobody that counts."""
        assert self._credentials is not None
        return self._credentials.current().prove(_Shown(certificate, context))

    def standing(self) -> Standing:
        """Return whom the process trusts now. With TLS only."""
        assert self._credentials is not None
        return Standing(self._credentials.current().trusted)

    def objection(self, asked: Asked) -> Refusal | None:
        """Return why a request is answered by nothing, whatever it asks for; None if it may be."""
        return objection(asked, self._own_host, secured=self._credentials is not None)

    def objection_to_looking(
        self, asked: Asked, proven: Proven | None, host: str, *, counted_once: bool = False
    ) -> Refusal | None:
        """Return why who asks from that host is not shown the state of the cluster; None if it is.

        `counted_once`: the token that is shown did count, so it is no guess, whatever has become of it.
        """
        refusal = self._judge(asked, proven)
        if refusal is None or not refusal.guessed or counted_once:
            return refusal
        # After that, for all users of a host come from one address: guesses bar nobody who need not guess.
        return _ONE_OF_MANY if self._failures.note(source_of(host), trio.current_time()) else refusal

    def _judge(self, asked: Asked, proven: Proven | None) -> Refusal | None:
        if self._credentials is None:
            try:
                token = None if self._secrets is None else self._secrets.http_token_at(self._bound)
            except UsageError as error:
                return Refusal(503, str(error))
            return objection_in_plaintext(asked, token)
        wall_seconds = wall_us() / 1e6
        if proven is not None:
            # A connection lasts, and what it was verified by may count no more. One that may wait is
            # answered until the port ends it.
            counts_no_more = self.standing().objection(proven, wall_seconds)
            if counts_no_more is not None and not counts_no_more.waits:
                return Refusal(403, counts_no_more.reason)
        table = TokenTable() if self._tokens is None else self._tokens.current()
        identity = None if proven is None else proven.identity
        return objection_in_tls(asked, identity, self._cluster, Uncertified(table, wall_seconds))
