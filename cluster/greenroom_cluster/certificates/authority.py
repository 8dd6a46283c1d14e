"""An authority in a directory of its own, which belongs on no node.

`authority.json` says which authorities there are and which one issues; it is replaced at once, so that an
interrupted command has done all or nothing. `ca-KEY.key` are their keys. `issued` and `former` hold every
certificate that was issued, so that it can be revoked although its holder is gone. `ca.pem` (whom holders
trust) and `authority.pem` (for who runs the other authority) follow from it.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key

from greenroom.errors import GreenroomError, UsageError
from greenroom.identities import ROLES_OF, Identity, Issuer, Purpose, issuer_of
from greenroom.private_files import is_private
from greenroom_cluster.certificates.denied import read_denied
from greenroom_cluster.certificates.examining import (
    KeyFound,
    described,
    identity_in,
    is_issued_by,
    public_bytes,
    serial_text,
)
from greenroom_cluster.certificates.holders import (
    Holder,
    certificates_in,
    certificates_pem,
    key_pem,
    new_key,
    read_file,
    write_trusted,
)
from greenroom_cluster.certificates.issuing import (
    Authority,
    create_authority,
    hosts_of,
    issue,
    key_id,
    lifetime_of,
)
from greenroom_cluster.certificates.lifetimes import AUTHORITY_DAYS
from greenroom_cluster.certificates.rotation import OwnAuthorities, Step
from greenroom_cluster.lasting_files import lock_directory, replace_file, sync_directory

STATE = "authority.json"
OWN = "authority.pem"
DENIED = "denied.txt"
_ISSUED = "issued"
_FORMER = "former"

Passphrase: TypeAlias = Callable[[], bytes]
"""Asked only if a key has a passphrase."""


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal[1]
    issuing: str
    own: tuple[str, ...]
    others: tuple[str, ...]


def create(
    path: Path,
    cluster: str,
    purpose: Purpose,
    passphrase: bytes | None,
    *,
    now: datetime,
    others: Sequence[x509.Certificate] = (),
    lifetime: timedelta = timedelta(days=AUTHORITY_DAYS),
) -> "AuthorityDirectory":
    """Make an authority in a directory, for this user alone. Raises UsageError if there is one already."""
    with _locked(path):
        if (path / STATE).exists():
            raise UsageError(f"there is an authority in {path} already: name another directory with --ca")
        key = new_key()
        made = create_authority(
            cluster, purpose, key=key, serial=x509.random_serial_number(), now=now, lifetime=lifetime
        )
        directory = AuthorityDirectory(path, (made.certificate,), tuple(others), key_id(key.public_key()))
        directory.check_others(others)
        with _told(path):
            directory.write_key(key, passphrase)
            directory.write()
            if not directory.deny_list.exists():
                replace_file(directory.deny_list, b"")
        return directory


@contextmanager
def open_authority(path: Path) -> Iterator["AuthorityDirectory"]:
    """Open the authority in a directory, for this process alone. Raises UsageError."""
    if not (path / STATE).exists():
        raise UsageError(
            f"there is no authority in {path}: name its directory with --ca (GREENROOM_CERTS_CA), or "
            "make one with `greenroom certs init`"
        )
    with _locked(path):
        directory = read_authority(path)
        with _told(path):
            directory.write_public()
        yield directory


def read_authority(path: Path) -> "AuthorityDirectory":
    """Return what an authority's directory says of itself; nothing is changed. Raises UsageError."""
    try:
        stored = msgspec.json.decode(read_file(path / STATE), type=_Stored)
        own = tuple(certificates_in("".join(stored.own).encode()))
        others = tuple(certificates_in("".join(stored.others).encode()))
        return AuthorityDirectory(path, own, others, stored.issuing)
    except (msgspec.DecodeError, ValueError) as error:
        raise UsageError(
            f"{path / STATE} is damaged, or of a later release ({error}): restore the directory from a copy"
        ) from None


class AuthorityDirectory:
    """The authorities in a directory: its own, and others that its holders trust too."""

    def __init__(
        self,
        path: Path,
        own: tuple[x509.Certificate, ...],
        others: tuple[x509.Certificate, ...],
        issuing: str,
    ) -> None:
        self.path = path
        self.own = own
        self.others = others
        self.state = OwnAuthorities(tuple(map(_key_id, own)), issuing)

    @property
    def name(self) -> Issuer:
        """The cluster and the purpose of these authorities, and which of them issues."""
        found = _named(self._certificate(self.state.issuing))
        if found is None or found.purpose not in ROLES_OF:
            raise UsageError(f"{self.path / STATE} holds no authority that `greenroom certs` made")
        return found

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """The authorities that holders of this one's certificates trust.

        Also that of clients is trusted by clients: nothing but a client can show a certificate of it.
        """
        return (*self.own, *self.others)

    @property
    def deny_list(self) -> Path:
        """The file of what was revoked, unless --deny names another."""
        return self.path / DENIED

    # --- issuing ---------------------------------------------------------------------------------------

    def issue(
        self,
        identity: Identity,
        passphrase: Passphrase,
        *,
        now: datetime,
        lifetime: timedelta,
        hosts: Sequence[x509.GeneralName] = (),
    ) -> Holder:
        """Return a new key with a certificate for it, which is noted as issued. Raises UsageError."""
        if self.name.purpose == "clients" and not self.others:
            raise UsageError(
                "holders of this authority's certificates would trust no server: give the file "
                f"{OWN} of the servers' authority to `greenroom certs trust` first"
            )
        authority = Authority(self._certificate(self.state.issuing), self._key(passphrase))
        key = new_key()
        certificate = issue(
            authority,
            identity,
            key.public_key(),
            serial=x509.random_serial_number(),
            now=now,
            lifetime=lifetime,
            hosts=hosts,
        )
        noted = self._noted(_ISSUED, certificate)
        with _told(self.path):
            noted.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(noted, certificates_pem([certificate]))
        return Holder(certificate, key, self.trusted)

    def renewed(
        self,
        former: x509.Certificate,
        key: KeyFound,
        passphrase: Passphrase,
        *,
        now: datetime,
        lifetime: timedelta | None = None,
    ) -> Holder:
        """Return a new key and certificate for who has a certificate and this key. Raises UsageError."""
        self._check_renewable(former, key, now)
        return self.issue(
            identity_in(former),
            passphrase,
            now=now,
            lifetime=lifetime_of(former) if lifetime is None else lifetime,
            hosts=hosts_of(former),
        )

    def _check_renewable(self, former: x509.Certificate, key: KeyFound, now: datetime) -> None:
        """Raise UsageError unless the holder of this key may have a new one for the same identity.

        Who can write to a holder's directory must not become another by what is laid there. So the
        certificate is one of these authorities, and the last one; and as it is for all to copy, its key is
        there too.
        """
        if not self.has_issued(former):
            raise UsageError(
                "it is no certificate of this authority, and is not renewed: name another directory with --ca"
            )
        if serial_text(former.serial_number) in read_denied(self.deny_list):
            raise UsageError("it is revoked, and is not renewed: issue another if its holder is to have one")
        if self._noted(_FORMER, former).exists():
            raise UsageError(
                "it has been renewed since, and is not renewed again: use the newer files, or issue another"
            )
        if key.error:
            raise UsageError(f"{key.error}: without it, issue another certificate")
        # After a renewal that was killed, the key beside the former certificate is that of a later one.
        same = (each for each in self.issued(now) if identity_in(each) == identity_in(former))
        if key.public not in {public_bytes(each.public_key()) for each in (former, *same)}:
            raise UsageError("its key is the key of another holder: issue another certificate")

    def withdraw(self, certificate: x509.Certificate) -> None:
        """Forget a certificate that reached nobody."""
        self._noted(_ISSUED, certificate).unlink(missing_ok=True)

    def supersede(self, former: x509.Certificate) -> None:
        """Note that the holder of a certificate has a newer one."""
        noted = self._noted(_ISSUED, former)
        with _told(self.path), suppress(FileNotFoundError):
            (self.path / _FORMER).mkdir(mode=0o700, exist_ok=True)
            noted.rename(self._noted(_FORMER, former))

    def has_issued(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate is of these authorities."""
        return any(is_issued_by(certificate, each) for each in self.own)

    def issued(self, now: datetime, *, former: bool = False) -> list[x509.Certificate]:
        """Return the issued certificates that have not ended, by identity; `former`: superseded ones too."""
        found = [
            certificate
            for folder in ([_ISSUED, _FORMER] if former else [_ISSUED])
            for file in (self.path / folder).glob("*.pem")
            for certificate in certificates_in(read_file(file))
            if certificate.not_valid_after_utc > now
        ]
        return sorted(found, key=lambda each: (identity_in(each).uri, each.not_valid_before_utc))

    def valid(self, now: datetime) -> list[x509.Certificate]:
        """Return the issued certificates that have neither ended nor been revoked."""
        denied = read_denied(self.deny_list)
        return [each for each in self.issued(now) if serial_text(each.serial_number) not in denied]

    # --- whom holders trust ----------------------------------------------------------------------------

    def trust(self, others: Sequence[x509.Certificate]) -> None:
        """Have holders trust these authorities besides one's own, and no others. Raises UsageError."""
        self.check_others(others)
        self.others = tuple(others)
        with _told(self.path):
            self.write()

    def check_others(self, others: Sequence[x509.Certificate]) -> None:
        """Raise UsageError unless holders can trust these authorities too."""
        for each in others:
            if not _is_authority(each):
                raise UsageError(
                    f"{each.subject.rfc4514_string()} is no authority; take the file {OWN} of its directory"
                )
            issuer = _named(each)
            if issuer is not None and issuer.cluster != self.name.cluster:
                raise UsageError(
                    f"that is an authority of cluster {issuer.cluster!r}, and this one is of "
                    f"{self.name.cluster!r}"
                )
            if each in self.own:
                raise UsageError("that is this authority itself, which needs no `greenroom certs trust`")

    # --- rotation --------------------------------------------------------------------------------------

    def rotate(self, step: Step, passphrase: Passphrase, *, now: datetime) -> None:
        """Take the next step to a new authority. Raises UsageError if another step comes next."""
        self.state.check(step)
        if step == "trust-both":
            self._add_authority(passphrase, now)
        elif step == "issue-from-new":
            self.state = self.state.issue_from_new()
        else:
            former, *_ = self.own
            self.state = self.state.drop_old(self._users_of(former, now))
            # First: a key must not stay behind that the directory does not know.
            with _told(self.path):
                self._key_file(_key_id(former)).unlink(missing_ok=True)
                sync_directory(self.path)
            self.own = self.own[1:]
        with _told(self.path):
            self.write()

    def _add_authority(self, passphrase: Passphrase, now: datetime) -> None:
        former = self._certificate(self.state.issuing)
        asked: list[bytes] = []

        def ask() -> bytes:
            asked.append(passphrase())
            return asked[0]

        # Opened, so that the new key gets the passphrase that is known to be right.
        self._key(ask)
        key = new_key()
        made = create_authority(
            self.name.cluster,
            self.name.purpose,  # type: ignore[arg-type]  # `name` has looked
            key=key,
            serial=x509.random_serial_number(),
            now=now,
            lifetime=lifetime_of(former),
        )
        with _told(self.path):
            self.write_key(key, asked[0] if asked else None)
        self.state = self.state.trust_both(key_id(key.public_key()))
        self.own = (*self.own, made.certificate)

    def is_of_former(self, certificate: x509.Certificate) -> bool:
        """Whether an authority issued this that is about to be dropped."""
        return self.state.next_step == "drop-old" and is_issued_by(certificate, self.own[0])

    def _users_of(self, authority: x509.Certificate, now: datetime) -> list[str]:
        return [
            f"{identity_in(each).uri} ({serial_text(each.serial_number)})"
            for each in self.valid(now)
            if is_issued_by(each, authority)
        ]

    # --- files -----------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write which authorities there are. Raises OSError."""
        stored = _Stored(
            format=1,
            issuing=self.state.issuing,
            own=tuple(certificates_pem([each]).decode() for each in self.own),
            others=tuple(certificates_pem([each]).decode() for each in self.others),
        )
        replace_file(self.path / STATE, msgspec.json.format(msgspec.json.encode(stored)) + b"\n")
        self.write_public()

    def write_public(self) -> None:
        """Write the files to hand out, where they differ. Raises OSError."""
        write_trusted(self.path, self.trusted)
        own, content = self.path / OWN, certificates_pem(self.own)
        if not own.exists() or own.read_bytes() != content:
            replace_file(own, content)

    def write_key(self, key: ec.EllipticCurvePrivateKey, passphrase: bytes | None) -> None:
        """Write the key of an authority. Raises OSError."""
        encryption = None if passphrase is None else BestAvailableEncryption(passphrase)
        replace_file(self._key_file(key_id(key.public_key())), key_pem(key, encryption))

    def _key(self, passphrase: Passphrase) -> ec.EllipticCurvePrivateKey:
        path = self._key_file(self.state.issuing)
        content = read_file(path)
        if not is_private(path.stat().st_mode):
            raise UsageError(
                f"others can read {path}, the key of the authority: `chmod 600 {path}`, and rotate the "
                "authority if they should not have it"
            )
        try:
            key = load_pem_private_key(content, password=None)
        except TypeError:
            try:
                key = load_pem_private_key(content, password=passphrase())
            except ValueError:
                raise UsageError(
                    f"the passphrase does not open {path}: give another, or --passphrase-file"
                ) from None
        except ValueError:
            raise UsageError(f"{path} is damaged: restore the directory from a copy") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key_id(key.public_key()) != self.state.issuing:
            raise UsageError(f"{path} holds another key: restore the directory from a copy")
        return key

    def _key_file(self, key: str) -> Path:
        return self.path / f"ca-{key}.key"

    def _noted(self, folder: str, certificate: x509.Certificate) -> Path:
        return self.path / folder / f"{serial_text(certificate.serial_number)}.pem"

    def _certificate(self, key: str) -> x509.Certificate:
        return self.own[self.state.trusted.index(key)]


def _named(authority: x509.Certificate) -> Issuer | None:
    """Return the name of an authority, which is its own issuer."""
    return issuer_of(described(authority))


def _key_id(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("an authority of another kind of key")  # noqa: TRY004  of what a file holds
    return key_id(key)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Have this process alone use an authority's directory, which only its owner may use."""
    try:
        lock = lock_directory(path)
    except BlockingIOError:
        raise GreenroomError(f"another command uses {path}: try again when it has ended") from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be used as the authority's directory ({error.strerror}): name another with --ca"
        ) from error
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if not is_private(mode):
            raise UsageError(
                f"others can use {path}, the authority's directory (mode {mode:04o}): `chmod 700 {path}`"
            )
        yield
    finally:
        os.close(lock)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Have a failing write say what to do."""
    try:
        yield
    except OSError as error:
        raise GreenroomError(
            f"{error.filename or path} could not be written ({error.strerror}): make room there, or run this "
            "as the owner of the authority's directory"
        ) from error
