"""The certificate, key and CAs of this process: read from files, and again when these change.

The standard library shows no own certificate, so it is read by a handshake in memory with ourselves. That
also proves that key, certificate and CAs fit together, and that all of it is valid now.
"""

import ssl
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from greenroom import private_files
from greenroom.errors import UsageError
from greenroom.file_watch import Mark, Watch, mark_at
from greenroom.identities import Identity, IdentityError, identity_of
from greenroom.tls.channel import PROTOCOL, Channel, TlsError
from greenroom.tls.sockets import TlsSocket
from greenroom.tls.standing import Authorities, Proven, Trusted, anchors_of

LOOK_SECONDS = 10.0
"""How often it is looked whether files have changed, at most."""

_FILE_BYTES_MAX = 1 << 20


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of PEM files: certificate with chain, its key, CAs to trust; of a list of revoked serial numbers.

    `flags`: errors name them as options of the command line, not as arguments.
    """

    cert: str
    key: str
    ca: str
    deny: str = ""
    flags: bool = False

    def option(self, name: str) -> str:
        """Return how one of them is given."""
        return f"--tls-{name} (GREENROOM_TLS_{name.upper()})" if self.flags else f"tls_{name}"

    def paths(self) -> tuple[Path, ...]:
        """Return the paths that are given."""
        return tuple(Path(each) for each in (self.cert, self.key, self.ca, self.deny) if each)


class Loaded(msgspec.Struct, frozen=True):
    """What the files held: contexts for both directions, our identity, and whom we trust."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    identity: Identity
    serial: int
    ends_at: float
    trusted: Trusted

    def identity_in(self, certificate: dict[str, Any]) -> Identity:
        """Return whose verified certificate this is. Raises TlsError if nobody's."""
        try:
            return identity_of(certificate)
        except IdentityError as error:
            raise TlsError(str(error)) from None

    def prove(self, tls: TlsSocket) -> Proven:
        """Return who is at the other end, after the handshake. Raises TlsError if nobody that counts.

        Files may have been read anew since the handshake began.
        """
        certificate = tls.certificate
        anchors = anchors_of(certificate, authorities_in(tls.context))
        identity = self.identity_in(certificate)
        proven = Proven(identity, serial_of(certificate), ends_at_of(certificate), anchors)
        if objection := self.objection(proven):
            raise TlsError(objection)
        return proven

    def objection(self, proven: Proven) -> str:
        """Return why a certificate counts no more, as a clause; empty if it does."""
        return self.trusted.objection(proven, time.time())


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
    _check_key(files)
    server = _context(ssl.PROTOCOL_TLS_SERVER, files)
    client = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    certificate = _own_certificate(server, files)
    try:
        identity = identity_of(certificate)
    except IdentityError as error:
        raise UsageError(f"{files.option('cert')}: {error}") from None
    authorities: frozenset[bytes] = frozenset().union(*authorities_in(server).values())
    trusted = Trusted(authorities, _revoked(files))
    return Loaded(server, client, identity, serial_of(certificate), ends_at_of(certificate), trusted)


def _check_key(files: TlsFiles) -> None:
    try:
        mode = Path(files.key).stat().st_mode
    except OSError as error:
        raise UsageError(_unreadable(files, "key", error)) from None
    if objection := private_files.objection(mode):
        raise UsageError(f"{files.option('key')}: {files.key} {objection}")


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
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
    _load_certificate(context, files)
    try:
        context.load_verify_locations(cafile=files.ca)
    except OSError as error:
        raise UsageError(_unreadable(files, "ca", error)) from None
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
        raise UsageError(
            f"{files.option('cert')}: {files.cert} with the key {files.key} cannot be used: they must be PEM "
            f"({(error.reason or 'unknown').lower().replace('_', ' ')})"
        ) from None
    except OSError as error:
        raise UsageError(_unreadable(files, "cert", error)) from None


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


def _revoked(files: TlsFiles) -> frozenset[int]:
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


def _unreadable(files: TlsFiles, name: str, error: OSError) -> str:
    path = getattr(files, name)
    if isinstance(error, ssl.SSLError):
        return f"{files.option(name)}: {path} holds no certificate in PEM"
    if name == "deny" and isinstance(error, FileNotFoundError):
        return f"{files.option(name)}: {path} is not there: while nobody is revoked, give an empty file"
    return f"{files.option(name)}: {path} cannot be read ({error.strerror or error})"


def _ignore(_: Loaded) -> None:
    """Tell nobody."""


class Credentials:
    """What this process shows and whom it trusts, by the files as they are now.

    `refused(text)` is called if changed files cannot be used, once for each reason; what was in use stays in
    use. `taken(loaded)` is called after they were read anew. Raises UsageError at construction.
    """

    def __init__(
        self,
        files: TlsFiles,
        refused: Callable[[str], None],
        taken: Callable[[Loaded], None] = _ignore,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._refused = refused
        self._taken = taken
        self._told = ""
        self._clock = clock
        self._watch = Watch(_marks(files), clock(), LOOK_SECONDS)
        self._loaded = load(files)
        self.failures = 0

    def current(self) -> Loaded:
        """Return what is in use, after a look at the files if one is due."""
        if self._watch.is_due(self._clock()) and self._watch.has_changed(_marks(self._files)):
            self._read()
        return self._loaded

    def reload(self) -> bool:
        """Read the files now, changed or not; return whether they can be used, which is told in any case."""
        self._watch.has_changed(_marks(self._files))
        self._told = ""
        return self._read()

    def _read(self) -> bool:
        try:
            self._loaded = load(self._files)
        except UsageError as error:
            self.failures += 1
            if str(error) != self._told:
                self._told = str(error)
                self._refused(
                    f"the changed TLS files are not used, the former ones stay in use: {self._told}"
                )
            return False
        self._told = ""
        self._taken(self._loaded)
        return True


def _marks(files: TlsFiles) -> tuple[Mark, ...]:
    return tuple(map(mark_at, files.paths()))
