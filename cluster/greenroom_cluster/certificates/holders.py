"""The files of a holder: NAME.pem, its certificate; NAME.key, its key; and ca.pem, whom it trusts."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from greenroom.errors import GreenroomError, UsageError
from greenroom.identities import issuer_of
from greenroom_cluster.backups.new_file import NewFile
from greenroom_cluster.certificates.examining import KeyFound, described, public_bytes
from greenroom_cluster.lasting_files import replace_file, sync_directory

TRUSTED = "ca.pem"
_FILE_BYTES_MAX = 1 << 20


class Holder(msgspec.Struct, frozen=True):
    """What a holder is given: its certificate, the key of it, and the authorities that it trusts."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    trusted: tuple[x509.Certificate, ...]

    def __repr__(self) -> str:
        return f"Holder({self.certificate.subject.rfc4514_string()!r})"


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key, on the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey, encryption: KeySerializationEncryption | None = None) -> bytes:
    """Return a key as a file holds it, in the form PKCS8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def certificates_pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return certificates as a file holds them."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def certificate_file(directory: Path, name: str) -> Path:
    """Return the file of a holder's certificate. Raises UsageError if its name is that of another file."""
    file = directory / f"{name}.pem"
    if file.name == TRUSTED:
        raise UsageError(
            f"a holder cannot be called {name!r}, because {TRUSTED} is the file of whom it trusts"
        )
    return file


def key_file(certificate: Path) -> Path:
    """Return the file of the key beside that of a certificate."""
    return certificate.with_name(f"{certificate.name.removesuffix('.pem')}.key")


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a file. Raises UsageError."""
    found = certificates_in(read_file(path))
    if not found:
        raise UsageError(f"{path} holds no certificate in PEM form that can be read")
    return found


def certificates_in(text: bytes) -> list[x509.Certificate]:
    """Return the certificates in a text; none if it is no PEM."""
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError:
        return []


def read_file(path: Path) -> bytes:
    """Return what a file holds. Raises UsageError."""
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None
    if len(content) > _FILE_BYTES_MAX:
        raise UsageError(f"{path} is no such file: it holds more than {_FILE_BYTES_MAX >> 20} MiB")
    return content


def find_key(certificate: Path) -> KeyFound:
    """Return what is to be seen of the key beside a certificate."""
    path = key_file(certificate)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        key = load_pem_private_key(read_file(path), password=None)
    except FileNotFoundError:
        return KeyFound(error=f"its key, {path.name}, is not there")
    except (OSError, UsageError):
        return KeyFound(error=f"its key, {path.name}, cannot be read: run this as its owner")
    except (ValueError, TypeError):
        # Not the library's own words: they may tell of the key.
        return KeyFound(mode=mode, error=f"its key, {path.name}, is none, or has a passphrase")
    return KeyFound(public=public_bytes(key.public_key()), mode=mode)


def check_free(directory: Path, name: str) -> None:
    """Raise UsageError if files of a new holder would be in the way of others."""
    path = certificate_file(directory, name)
    for file in (path, key_file(path)):
        if file.exists():
            raise UsageError(
                f"{file} is there already: `greenroom certs renew {path}`; or, if it is revoked or "
                "another's, name another directory with --out"
            )


def write_new(directory: Path, name: str, holder: Holder) -> Path:
    """Write the files of a new holder, and return that of its certificate; no other holder is replaced.

    A directory that is missing is made, for this user alone. Raises UsageError or GreenroomError, and then
    nothing of the holder is left.
    """
    path = certificate_file(directory, name)
    make_directory(directory)
    _check_trusted(directory, holder.trusted)
    with NewFile(path) as certificate, NewFile(key_file(path)) as key:
        key.write(key_pem(holder.key))
        certificate.write(certificates_pem([holder.certificate]))
        # First: what bears the holder's name would be in the way of a second attempt.
        with _told(path):
            write_trusted(directory, holder.trusted)
        _finish({key_file(path): key, path: certificate})
    return path


def _finish(files: Mapping[Path, NewFile]) -> None:
    """Give new files their names, all or none."""
    named = []
    try:
        for path, file in files.items():
            named.append(path)
            file.finish()
    except BaseException as error:
        if isinstance(error, UsageError):
            # Somebody else has made a file of that name meanwhile.
            named.pop()
        for path in named:
            path.unlink(missing_ok=True)
        raise


def replace(path: Path, holder: Holder) -> None:
    """Replace certificate and key of a holder, and whom it trusts.

    All is written before the first file changes. Raises GreenroomError, and then the former ones are there.
    """
    staged = {
        key_file(path): key_pem(holder.key),
        path: certificates_pem([holder.certificate]),
    }
    former = path.with_name(f"{path.name}.former-key")
    _check_trusted(path.parent, holder.trusted)
    try:
        with _told(path):
            write_trusted(path.parent, holder.trusted)
            for file, content in staged.items():
                replace_file(_next(file), content, like=file)
            former.unlink(missing_ok=True)
            if key_file(path).exists():
                os.link(key_file(path), former)
            _next(key_file(path)).rename(key_file(path))
            try:
                _next(path).rename(path)
            except BaseException:
                former.rename(key_file(path))
                raise
            sync_directory(path.parent)
    finally:
        # `replace_file` leaves what it could not finish, which may be a key.
        unfinished = (file.with_suffix(".tmp") for file in (*map(_next, staged), path.with_name(TRUSTED)))
        for file in (*map(_next, staged), *unfinished, former):
            file.unlink(missing_ok=True)


def bring_trusted(directory: Path, trusted: Sequence[x509.Certificate]) -> bool:
    """Have the holders in a directory trust these, and return whether they did not. Raises GreenroomError."""
    _check_trusted(directory, trusted)
    with _told(directory / TRUSTED):
        return write_trusted(directory, trusted)


def write_trusted(directory: Path, trusted: Sequence[x509.Certificate]) -> bool:
    """Write whom the holders in a directory trust, unless it is there already; return whether it was not.

    Raises OSError.
    """
    content = certificates_pem(trusted)
    path = directory / TRUSTED
    if path.exists() and path.read_bytes() == content:
        return False
    replace_file(path, content)
    return True


def _check_trusted(directory: Path, trusted: Sequence[x509.Certificate]) -> None:
    """Raise UsageError if a directory's holders trust what `greenroom certs` would take from them."""
    path = directory / TRUSTED
    clusters = {_cluster(each) for each in trusted}
    for each in certificates_in(read_file(path)) if path.exists() else ():
        if each not in trusted and _cluster(each) not in clusters:
            raise UsageError(
                f"{path} trusts {each.subject.rfc4514_string()}, which would be removed: name another "
                "directory with --out, or have that authority trusted with `greenroom certs trust`"
            )


def _cluster(authority: x509.Certificate) -> str | None:
    issuer = issuer_of(described(authority))
    return None if issuer is None else issuer.cluster


def make_directory(directory: Path) -> None:
    """Make a directory for this user alone, if it is missing. Raises UsageError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory} cannot be made ({error.strerror}): name another with --out") from error


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Have a failing write say what to do."""
    try:
        yield
    except OSError as error:
        raise GreenroomError(
            f"{path} could not be written ({error.strerror}), and is as before: make room there, or run "
            "this as the owner of its directory"
        ) from error
