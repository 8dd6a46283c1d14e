"""Whether a certificate is in order, and what to do about it if not.

Pure: time comes in, and what was read from files.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from greenroom.identities import ORGANIZATION, Identity, IdentityError, identity_of, issuer_of
from greenroom.private_files import is_private

_LEFT_MIN = 1 / 3
"""The part of its lifetime that a certificate has left when it should be renewed."""
_GOOD = "good"
_AUTHORITY_LEFT_MIN = timedelta(days=180)
_NAMES: Mapping[x509.ObjectIdentifier, str] = MappingProxyType(
    {
        NameOID.ORGANIZATION_NAME: "organizationName",
        NameOID.ORGANIZATIONAL_UNIT_NAME: "organizationalUnitName",
        NameOID.COMMON_NAME: "commonName",
        NameOID.DN_QUALIFIER: "dnQualifier",
    }
)


class KeyFound(msgspec.Struct, frozen=True):
    """What was found of a holder's key: its public half, its file's mode, or why it cannot be read."""

    public: bytes = b""
    mode: int = 0
    error: str = ""


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate, and what is to be done about it: nothing if there are no `problems`."""

    file: str
    identity: str
    role: str
    ends: datetime
    serial: str
    issuer: str
    chain: str
    key: str
    problems: tuple[str, ...]


def serial_text(serial: int) -> str:
    """Return a serial number as deny lists have it, and `ssl`: hexadecimal, in capitals, of whole bytes."""
    digits = f"{serial:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"


def public_bytes(key: Any) -> bytes:
    """Return a public key as bytes to compare."""
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def described(certificate: x509.Certificate) -> Mapping[str, Any]:
    """Return a certificate as `ssl.SSLObject.getpeercert` does, so that one rule decides here and there."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        uris: list[str] = []
    else:
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return {
        "subjectAltName": tuple(("URI", uri) for uri in uris),
        "issuer": tuple(
            tuple((_NAMES.get(each.oid, each.oid.dotted_string), each.value) for each in relative)
            for relative in certificate.issuer.rdns
        ),
        "serialNumber": serial_text(certificate.serial_number),
    }


def identity_in(certificate: x509.Certificate) -> Identity:
    """Return the identity in a certificate that its issuer may certify. Raises IdentityError."""
    return identity_of(described(certificate))


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether this authority has signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_due(certificate: x509.Certificate, now: datetime, left: timedelta | None = None) -> bool:
    """Whether a certificate should be renewed: less than `left` is left, or a third of its lifetime."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return ends - now < ((ends - begins) * _LEFT_MIN if left is None else left)


def examine(
    file: str,
    certificate: x509.Certificate,
    *,
    trusted: Sequence[x509.Certificate],
    key: KeyFound | None,
    denied: Collection[str],
    now: datetime,
) -> Examined:
    """Return what there is to say about a holder's certificate.

    `trusted` are the authorities that its holder trusts. With `key` None only the certificate is looked at.
    """
    problems = []
    identity: Identity | None = None
    try:
        identity = identity_in(certificate)
    except IdentityError as error:
        problems.append(f"{error}")
    role = "" if identity is None else identity.role
    chain = _chain(certificate, trusted, now)
    if chain != _GOOD:
        problems.append(f"{chain}: copy the ca.pem of its authority, or issue another certificate")
    problems += _usage_problems(certificate, role) + _time_problems(certificate, now)
    serial = serial_text(certificate.serial_number)
    if serial in denied:
        problems.append("it is revoked: issue another if its holder is to have one")
    key_problem = "" if key is None else _key_problem(certificate, key)
    if key_problem:
        problems.append(key_problem)
    issuer = issuer_of(described(certificate))
    return Examined(
        file=file,
        identity="" if identity is None else identity.uri,
        role=role,
        ends=certificate.not_valid_after_utc,
        serial=serial,
        issuer=issuer.key_id if issuer else certificate.issuer.rfc4514_string(),
        chain=chain,
        key="" if key is None else ("wrong" if key_problem else "fits"),
        problems=tuple(problems),
    )


def examine_authority(file: str, certificate: x509.Certificate, *, now: datetime) -> Examined:
    """Return what there is to say about an authority."""
    document = described(certificate)
    issuer = issuer_of(document)
    problems = []
    if certificate.not_valid_after_utc - now < _AUTHORITY_LEFT_MIN:
        problems.append("it ends soon: make another with `greenroom certs rotate-ca trust-both`")
    return Examined(
        file=file,
        identity=certificate.subject.rfc4514_string()
        if issuer is None
        else f"{ORGANIZATION}://{issuer.cluster}",
        role="authority" if issuer is None else f"authority for {issuer.purpose}",
        ends=certificate.not_valid_after_utc,
        serial=serial_text(certificate.serial_number),
        issuer=issuer.key_id if issuer else certificate.issuer.rfc4514_string(),
        chain=_GOOD,
        key="",
        problems=tuple(problems),
    )


def _chain(certificate: x509.Certificate, trusted: Sequence[x509.Certificate], now: datetime) -> str:
    if not trusted:
        return "there is no ca.pem"
    issuers = [each for each in trusted if is_issued_by(certificate, each)]
    if not issuers:
        return "no authority in ca.pem has issued it"
    return _GOOD if any(each.not_valid_after_utc > now for each in issuers) else "its authority has ended"


def _usage_problems(certificate: x509.Certificate, role: str) -> list[str]:
    wanted = {ExtendedKeyUsageOID.CLIENT_AUTH}
    if role in {"node", "coordinator"}:
        wanted.add(ExtendedKeyUsageOID.SERVER_AUTH)
    try:
        found = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []
    return [] if wanted <= found else [f"its extended key usage does not fit a {role}: issue another"]


def _time_problems(certificate: x509.Certificate, now: datetime) -> list[str]:
    if certificate.not_valid_after_utc <= now:
        return ["it has ended: renew it"]
    if certificate.not_valid_before_utc > now:
        return ["it is not valid yet: is this host's clock right?"]
    return ["it ends soon: renew it"] if is_due(certificate, now) else []


def _key_problem(certificate: x509.Certificate, key: KeyFound) -> str:
    if key.error:
        return key.error
    if key.public != public_bytes(certificate.public_key()):
        return "its key is that of another certificate: run `greenroom certs renew` again"
    if not is_private(key.mode):
        return f"its key has mode {key.mode:04o}: others can read it; set it to 0600, and renew it"
    return ""
