"""The options of TLS: the files that a process shows and trusts, and whom a server serves without."""

from pathlib import Path
from typing import Annotated

import msgspec

from greenroom.errors import UsageError
from greenroom.tls.credentials import BearerFiles, TlsFiles
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


class NodeTlsOptions(ServerTlsOptions, frozen=True, kw_only=True):
    """The files of a node and its actors, who let in apps with a token too."""

    tokens: Annotated[
        Path | None,
        Flag(help="With TLS: file of the tokens of apps and observers, of mode 0600.", shown_default=False),
    ] = None

    def check(self) -> None:
        """Raise UsageError, naming the options, if something cannot be."""
        ServerTlsOptions.check(self)
        if self.tokens is not None and self.tls_cert is None:
            raise UsageError(
                "--tokens: a token is taken within TLS only: give --tls-cert, --tls-key and --tls-ca too"
            )

    def files(self) -> TlsFiles | None:
        """Return the files; None without TLS. Raises UsageError if some are missing."""
        files = ServerTlsOptions.files(self)
        if files is None or self.tokens is None:
            return files
        return msgspec.structs.replace(files, optional=True)


class AccessTlsOptions(TlsOptions, frozen=True, kw_only=True):
    """The files of a command that shows a certificate, or a token instead."""

    token_file: Annotated[
        Path | None,
        Flag(
            help="To look only, with TLS: file of a token (0600) instead of a certificate.",
            shown_default=False,
        ),
    ] = None

    def check(self) -> None:
        """Raise UsageError, naming the options, if some are missing or contradict each other."""
        if self.token_file is None:
            TlsOptions.check(self)
        elif self.tls_cert is not None or self.tls_key is not None:
            raise UsageError("--token-file is instead of a certificate: give it, or --tls-cert and --tls-key")
        elif self.tls_ca is None:
            raise UsageError("--token-file is sent within TLS only: give --tls-ca too, the CAs of the nodes")

    def bearer_files(self) -> BearerFiles | None:
        """Return the files of who has a token; None without one. Raises UsageError as `check` does."""
        self.check()
        if self.token_file is None:
            return None
        deny = "" if self.tls_deny is None else str(self.tls_deny)
        return BearerFiles(token=str(self.token_file), ca=str(self.tls_ca), deny=deny, flags=True)
