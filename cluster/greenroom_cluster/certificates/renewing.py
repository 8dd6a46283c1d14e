"""A new key and certificate in the files of a holder."""

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from greenroom.errors import UsageError
from greenroom_cluster.certificates.authority import AuthorityDirectory, Passphrase
from greenroom_cluster.certificates.holders import bring_trusted, find_key, read_certificates, replace


def renew_holder(
    authority: AuthorityDirectory,
    path: Path,
    passphrase: Passphrase,
    *,
    now: datetime,
    lifetime: timedelta | None = None,
) -> x509.Certificate:
    """Renew the certificate in a file, with its key, and return the new one.

    Raises UsageError or GreenroomError, naming the file, and then all is as before.
    """
    former = read_certificates(path)[0]
    try:
        holder = authority.renewed(former, find_key(path), passphrase, now=now, lifetime=lifetime)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    try:
        replace(path, holder)
    except BaseException:
        authority.withdraw(holder.certificate)
        raise
    authority.supersede(former)
    return holder.certificate


def refresh_trusted(authority: AuthorityDirectory, path: Path, certificate: x509.Certificate) -> bool:
    """Bring whom a holder of this authority trusts up to date; return whether it was out of date.

    Else a rotation would be undone where its directory is copied to its host. Raises GreenroomError.
    """
    return authority.has_issued(certificate) and bring_trusted(path.parent, authority.trusted)
