"""Which certificates are meant by who revokes some."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from greenroom.errors import UsageError
from greenroom.identities import Identity, parse_identity
from greenroom_cluster.certificates.authority import AuthorityDirectory
from greenroom_cluster.certificates.denied import is_serial
from greenroom_cluster.certificates.examining import identity_in, serial_text
from greenroom_cluster.certificates.holders import read_certificates


def serials_of(authority: AuthorityDirectory, text: str, *, now: datetime) -> list[str]:
    """Return the serial numbers meant by a file, a serial number, or an identity. Raises UsageError."""
    if "://" in text:
        identity = parse_identity(text)
        found = [each for each in authority.issued(now, former=True) if identity_in(each) == identity]
        if not found:
            raise UsageError(
                f"{authority.path} knows of no certificate of {text} that is still valid"
                + _alike(authority, identity, now)
            )
        return [serial_text(each.serial_number) for each in found]
    if Path(text).exists():
        return [serial_text(read_certificates(Path(text))[0].serial_number)]
    if is_serial(text):
        return [serial_text(int(text, 16))]
    raise UsageError(f"{text!r} is no file, no serial number in hexadecimal, and no identity")


def unknown_to(authority: AuthorityDirectory, serials: Iterable[str], *, now: datetime) -> list[str]:
    """Return those of no certificate that an authority has issued, or that has ended."""
    known = {serial_text(each.serial_number) for each in authority.issued(now, former=True)}
    return [each for each in dict.fromkeys(serials) if each not in known]


def _alike(authority: AuthorityDirectory, wanted: Identity, now: datetime) -> str:
    """Say which identities of the same role and name there are, in other namespaces."""
    known = {identity_in(each) for each in authority.issued(now, former=True)}
    alike = sorted(each.uri for each in known if (each.role, each.name) == (wanted.role, wanted.name))
    return f", but of {', '.join(alike)}" if alike else ""
