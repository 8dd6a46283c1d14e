"""The options of TLS: the files that a process shows and trusts, and whom a server serves without."""

from pathlib import Path
from typing import Annotated

import msgspec

from greenroom.errors import UsageError
from greenroom.tls.credentials import TlsFiles
from greenroom_cluster.flags import Flag
from greenroom_cluster.networks import Networks, networks_of

_PLAINTEXT_FROM = "--plaintext-from (GREENROOM_PLAINTEXT_FROM)"


class TlsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a process that speaks TLS: all three, or none for plaintext."""

    tls_cert: Annotated[
        Path | None,
        Flag(help="With TLS: certificate of this process and its chain, in PEM.", shown_default=False),
    ] = None
    tls_key: Annotated[
        Path | None, Flag(help="With TLS: its private key, of mode 0600.", shown_default=False)
    ] = None
    tls_ca: Annotated[Path | None, Flag(help="With TLS: CAs of all others, in PEM.", shown_default=False)] = (
        None
    )
    tls_deny: Annotated[
        Path | None,
        Flag(help="With TLS: revoked serial numbers, one in hexadecimal a line.", shown_default=False),
    ] = None

    def check(self) -> None:
        """Raise UsageError, naming the options, if some are missing."""
        given = {"--tls-cert": self.tls_cert, "--tls-key": self.tls_key, "--tls-ca": self.tls_ca}
        missing = [name for name, path in given.items() if path is None]
        if missing and (len(missing) < len(given) or self.tls_deny is not None):
            raise UsageError(f"TLS needs {' and '.join(missing)} too")

    def files(self) -> TlsFiles | None:
        """Return the files; None without TLS. Raises UsageError if some are missing."""
        self.check()
        if self.tls_cert is None:
            return None
        return TlsFiles(
            cert=str(self.tls_cert),
            key=str(self.tls_key),
            ca=str(self.tls_ca),
            deny="" if self.tls_deny is None else str(self.tls_deny),
            flags=True,
        )


class ServerTlsOptions(TlsOptions, frozen=True, kw_only=True):
    """The files of a process that others connect to.

    `plaintext_from` lists networks, separated by commas: while a cluster is moved to TLS, whoever connects
    from there is served without, and those there who do not speak TLS yet are spoken to without.
    """

    plaintext_from: Annotated[
        str,
        Flag(
            help="While a cluster is moved to TLS: networks, as CIDR with commas, whose processes and apps "
            "may speak plaintext still.",
            shown_default=False,
        ),
    ] = ""

    def check(self) -> None:
        """Raise UsageError, naming the options, if something cannot be."""
        TlsOptions.check(self)
        if self.networks() is not None and self.tls_cert is None:
            raise UsageError(
                f"{_PLAINTEXT_FROM} is for a process that speaks TLS: give --tls-cert, --tls-key and --tls-ca"
            )

    def networks(self) -> Networks | None:
        """Return the networks that may speak plaintext; None if none may. Raises UsageError."""
        return networks_of(self.plaintext_from, _PLAINTEXT_FROM) if self.plaintext_from else None
