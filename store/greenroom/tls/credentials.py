"""The certificate, key and CAs of this process: read from files, and again when these change.

The standard library shows no own certificate, so it is read by a handshake in memory with ourselves. That
also proves that key, certificate and CAs fit together, and that all of it is valid now.
"""

import os
import ssl
import stat
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import msgspec

from greenroom import private_files
from greenroom.errors import UsageError
from greenroom.identities import Identity, IdentityError, identity_of
from greenroom.rereading import LOOK_SECONDS as LOOK_SECONDS
from greenroom.rereading import Reread, ignore
from greenroom.tls.channel import PROTOCOL, Channel, TlsError
from greenroom.tls.standing import Authorities, Proven, Trusted, anchors_of
from greenroom.tokens import Token, read_token

_FILE_BYTES_MAX = 1 << 20


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of PEM files: certificate with chain, its key, CAs to trust; of a list of revoked serial numbers.

    `flags`: errors name them as options of the command line, not as arguments. `optional`: who connects may
    show no certificate, and has to show a token then.
    """

    cert: str
    key: str
    ca: str
    deny: str = ""
    flags: bool = False
    optional: bool = False

    def option(self, name: str) -> str:
        """Return how one of them is given."""
        return _option(name, flags=self.flags)

    def paths(self) -> tuple[Path, ...]:
        """Return the paths that are given."""
        return tuple(Path(each) for each in (self.cert, self.key, self.ca, self.deny) if each)


def _option(name: str, *, flags: bool) -> str:
    return f"--tls-{name} (GREENROOM_TLS_{name.upper()})" if flags else f"tls_{name}"


class BearerFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of a file with a token, of CAs to trust, and of a list of revoked serial numbers."""

    token: str
    ca: str
    deny: str = ""
    flags: bool = False

    def option(self, name: str) -> str:
        """Return how one of them is given."""
        if name != "token":
            return _option(name, flags=self.flags)
        return "--token-file (GREENROOM_TOKEN_FILE)" if self.flags else "token_file"

    def paths(self) -> tuple[Path, ...]:
        """Return the paths that are given."""
        return tuple(Path(each) for each in (self.token, self.ca, self.deny) if each)


class Secured(Protocol):
    """A connection of TLS after its handshake."""

    @property
    def certificate(self) -> dict[str, Any]:
        """The verified certificate of the other side."""

    @property
    def context(self) -> ssl.SSLContext:
        """What this side verifies the other by."""


class Trusting(msgspec.Struct, frozen=True, kw_only=True):
    """How this process opens connections: whom it trusts, and the token that it shows, if it has one."""

    client: ssl.SSLContext
    trusted: Trusted
    token: Token | None = None

    def identity_in(self, certificate: dict[str, Any]) -> Identity:
        """Return whose verified certificate this is. Raises TlsError if nobody's."""
        try:
            return identity_of(certificate)
        except IdentityError as error:
            raise TlsError(str(error)) from None

    def prove(self, tls: Secured) -> Proven:
        """Return who is at the other end, after the handshake. Raises TlsError if nobody that counts.

        Files may have been read anew since the handshake began.
        """
        certificate = tls.certificate
        anchors = anchors_of(certificate, authorities_in(tls.context))
        identity = self.identity_in(certificate)
        proven = Proven(identity, serial_of(certificate), ends_at_of(certificate), anchors)
        if (objection := self.trusted.objection(proven, time.time())) is not None:
            raise TlsError(objection.reason)
        return proven


class Loaded(Trusting, frozen=True, kw_only=True):
    """What the files held: contexts for both directions, our identity, and whom we trust."""

    server: ssl.SSLContext
    identity: Identity
    serial: int
    ends_at: float


class Bearing(Trusting, frozen=True, kw_only=True):
    """What the files of who has a token held."""

    token: Token


def authorities_in(context: ssl.SSLContext) -> Authorities:
    """Return the authorities that a context trusts."""
    found: dict[Any, frozenset[bytes]] = {}
    both = zip(context.get_ca_certs(), context.get_ca_certs(binary_form=True), strict=True)
    for told, certificate in both:
        name = told["subject"]
        found[name] = found.get(name, frozenset()) | {sha256(certificate).digest()}
    return found


def serial_of(certificate: dict[str, Any]) -> int:
    """Return the serial number of a certificate."""
    return int(certificate["serialNumber"], 16)


def ends_at_of(certificate: dict[str, Any]) -> float:
    """Return when a certificate ends, in seconds since 1970."""
    return float(ssl.cert_time_to_seconds(certificate["notAfter"]))


def load(files: TlsFiles) -> Loaded:
    """Read the files. Raises UsageError, naming the option, for whatever cannot serve."""
    _check_files(files, ("cert", "key", "ca", "deny"))
    server = _own_context(ssl.PROTOCOL_TLS_SERVER, files)
    client = _own_context(ssl.PROTOCOL_TLS_CLIENT, files)
    certificate = _own_certificate(server, files)
    try:
        identity = identity_of(certificate)
    except IdentityError as error:
        raise UsageError(f"{files.option('cert')}: {error}") from None
    if files.optional:
        # Whoever shows one is verified all the same.
        server.verify_mode = ssl.CERT_OPTIONAL
    serial = serial_of(certificate)
    return Loaded(
        server=server,
        client=client,
        identity=identity,
        serial=serial,
        ends_at=ends_at_of(certificate),
        trusted=_trusted(server, files, serial),
    )


def load_bearing(files: BearerFiles) -> Bearing:
    """Read the files of who has a token. Raises UsageError, naming the option, for whatever cannot serve."""
    try:
        token = read_token(Path(files.token))
    except UsageError as error:
        raise UsageError(f"{files.option('token')}: {error}") from None
    _check_files(files, ("ca", "deny"))
    client = _context(ssl.PROTOCOL_TLS_CLIENT)
    _trust(client, files)
    return Bearing(client=client, trusted=_trusted(client, files), token=token)


def _trusted(context: ssl.SSLContext, files: TlsFiles | BearerFiles, shown: int = 0) -> Trusted:
    """Return whom a context trusts, but for who is revoked; `shown` is the serial number of our own."""
    authorities: frozenset[bytes] = frozenset().union(*authorities_in(context).values())
    return Trusted(authorities, _revoked(files), shown)


def _check_files(files: TlsFiles | BearerFiles, names: Sequence[str]) -> None:
    """See that the key is private, and that none of the files is a pipe, which would hold up the process."""
    for name in names:
        path = getattr(files, name)
        if not path:
            continue
        try:
            found = Path(path).stat()
        except OSError as error:
            raise UsageError(_unreadable(files, name, error)) from None
        objection = "" if stat.S_ISREG(found.st_mode) else "is no regular file"
        if not objection and name == "key":
            objection = private_files.objection(found.st_mode, found.st_uid, os.geteuid())
        if objection:
            raise UsageError(f"{files.option(name)}: {path} {objection}")


def _own_context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = _context(protocol)
    _load_certificate(context, files)
    _trust(context, files)
    return context


def _trust(context: ssl.SSLContext, files: TlsFiles | BearerFiles) -> None:
    try:
        context.load_verify_locations(cafile=files.ca)
    except OSError as error:
        raise UsageError(_unreadable(files, "ca", error)) from None


def _context(protocol: int) -> ssl.SSLContext:
    # Not `create_default_context`: that trusts the CAs of the system, and writes keys to SSLKEYLOGFILE.
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    # Addresses move, so no host is compared: the identity in the certificate is.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols([PROTOCOL])
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # Without tickets there is no resumption, which would outlive a revocation.
        context.num_tickets = 0
    return context


def _load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except _PasswordAskedError:
        raise UsageError(
            f"{files.option('key')}: {files.key} is encrypted; a process that starts by itself needs a key "
            "without a passphrase, in a file of mode 0600"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(
                f"{files.option('key')}: {files.key} is not the key of the certificate {files.cert}"
            ) from None
        if _is_swapped(files):
            raise UsageError(
                f"{files.option('cert')}: {files.cert} holds a key, and {files.key} a certificate: exchange "
                "them"
            ) from None
        raise UsageError(
            f"{files.option('cert')}: {files.cert} with the key {files.key} cannot be used: they must be PEM "
            f"({(error.reason or 'unknown').lower().replace('_', ' ')})"
        ) from None
    except OSError as error:
        raise UsageError(_unreadable(files, "cert", error)) from None


def _is_swapped(files: TlsFiles) -> bool:
    """Whether each of certificate and key is in the file of the other."""
    try:
        cert, key = Path(files.cert).read_bytes(), Path(files.key).read_bytes()
    except OSError:
        return False
    return b"PRIVATE KEY-----" in cert and b"BEGIN CERTIFICATE" in key and b"BEGIN CERTIFICATE" not in cert


class _PasswordAskedError(Exception):
    """The key is encrypted."""


def _no_password() -> str:
    # Without this, the library would wait for somebody at a terminal.
    raise _PasswordAskedError


def _own_certificate(server: ssl.SSLContext, files: TlsFiles) -> dict[str, Any]:
    """Return our own certificate, once it has proven to be valid. Raises UsageError."""
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    # It shows the certificate, and the other side, which is judged by nobody, verifies it.
    asking.verify_mode = ssl.CERT_NONE
    asking.set_alpn_protocols([PROTOCOL])
    _load_certificate(asking, files)
    here, there = Channel(asking, server_side=False), Channel(server, server_side=True)
    try:
        while not there.established:
            if not here.established:
                here.handshake()
            there.feed(here.take())
            there.handshake()
            here.feed(there.take())
    except TlsError as error:
        raise UsageError(
            f"{files.option('cert')}: {files.cert} cannot be shown to others: {error}. It must be in date, "
            f"and issued by a CA in {files.ca} ({files.option('ca')})"
        ) from None
    return there.certificate


def _revoked(files: TlsFiles | BearerFiles) -> frozenset[int]:
    if not files.deny:
        return frozenset()
    try:
        text = _text(Path(files.deny))
    except OSError as error:
        raise UsageError(_unreadable(files, "deny", error)) from None
    try:
        lines = (line.partition("#")[0].strip().replace(":", "") for line in text.splitlines())
        return frozenset(int(line, 16) for line in lines if line)
    except ValueError:
        raise UsageError(
            f"{files.option('deny')}: {files.deny} must hold one serial number a line, in hexadecimal"
        ) from None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_FILE_BYTES_MAX).decode("ascii", "replace")


def _unreadable(files: TlsFiles | BearerFiles, name: str, error: OSError) -> str:
    path = getattr(files, name)
    if isinstance(error, ssl.SSLError):
        return f"{files.option(name)}: {path} holds no certificate in PEM"
    if name == "deny" and isinstance(error, FileNotFoundError):
        return f"{files.option(name)}: {path} is not there: while nobody is revoked, give an empty file"
    return f"{files.option(name)}: {path} cannot be read ({error.strerror or error})"


class Credentials(Reread[Loaded]):
    """What this process shows and whom it trusts, by the files as they are now; see `Reread`.

    `check` raises UsageError if an identity is not one that this process may have, now or later.
    """

    def __init__(
        self,
        files: TlsFiles,
        refused: Callable[[str], None],
        taken: Callable[[Loaded], None] = ignore,
        *,
        check: Callable[[Identity], None] = ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        def read() -> Loaded:
            loaded = load(files)
            check(loaded.identity)
            return loaded

        self.check = check
        kept = "the changed TLS files are not used, the former ones stay in use"
        super().__init__(files.paths(), read, refused, taken, kept=kept, clock=clock)


class BearerCredentials(Reread[Bearing]):
    """The token that this process shows and whom it trusts, by the files as they are now; see `Reread`.

    They are looked at for each connection: a token whose successor is there may be refused by now.
    """

    def __init__(
        self,
        files: BearerFiles,
        refused: Callable[[str], None],
        taken: Callable[[Bearing], None] = ignore,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        kept = "the changed file of the token, or that of CAs, is not used, and the former stays in use"
        super().__init__(
            files.paths(), lambda: load_bearing(files), refused, taken, kept=kept, look_seconds=0, clock=clock
        )
