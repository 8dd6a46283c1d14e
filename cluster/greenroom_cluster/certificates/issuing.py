"""What the certificates of a cluster hold: those of its authorities and those of each role.

Pure: times, keys and serial numbers come in.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from greenroom.errors import UsageError
from greenroom.identities import ORGANIZATION, ROLES_OF, Identity, Purpose
from greenroom_cluster.certificates.lifetimes import AUTHORITY_DAYS, LEAF_DAYS

_BACKDATED = timedelta(hours=1)
"""How far ahead of other hosts' clocks the clock of the issuing host may be."""
_SERVER_ROLES = frozenset({"node", "coordinator"})
_KEY_ID_BYTES = 8
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)
_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


class Authority(msgspec.Struct, frozen=True):
    """What issues certificates: its own certificate, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Authority({self.certificate.subject.rfc4514_string()!r})"


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """Return what an authority is known by, in hexadecimal: the first bytes of its key's identifier."""
    return x509.SubjectKeyIdentifier.from_public_key(key).digest[:_KEY_ID_BYTES].hex()


def create_authority(
    cluster: str,
    purpose: Purpose,
    *,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    now: datetime,
    lifetime: timedelta = timedelta(days=AUTHORITY_DAYS),
) -> Authority:
    """Return a new authority of a cluster. It can make no other authority (path length 0)."""
    public = key.public_key()
    name = _name(
        (NameOID.ORGANIZATION_NAME, ORGANIZATION),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, purpose),
        (NameOID.COMMON_NAME, cluster),
        (NameOID.DN_QUALIFIER, key_id(public)),
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    built = (
        _builder(name, name, public, serial, now, now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
    )
    return Authority(built.sign(key, hashes.SHA256()), key)


def issue(
    authority: Authority,
    identity: Identity,
    public_key: ec.EllipticCurvePublicKey,
    *,
    serial: int,
    now: datetime,
    lifetime: timedelta = timedelta(days=LEAF_DAYS),
    hosts: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:
    """Return a certificate that says who the holder of the key is.

    Only nodes and the coordinator get one that a server may show. It ends with its authority at the latest.
    Raises UsageError if this authority may not certify that identity, or has ended.
    """
    _check_may_certify(authority, identity)
    ends = authority.certificate.not_valid_after_utc
    if ends <= now:
        raise UsageError(
            f"the authority ended at {ends:%Y-%m-%d %H:%M} UTC: make another with `greenroom certs rotate-ca`"
        )
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if identity.role in _SERVER_ROLES:
        usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    subject = _name((NameOID.ORGANIZATIONAL_UNIT_NAME, identity.role), (NameOID.COMMON_NAME, identity.name))
    names = [x509.UniformResourceIdentifier(identity.uri), *hosts]
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    built = (
        _builder(subject, authority.certificate.subject, public_key, serial, now, min(now + lifetime, ends))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
    )
    return built.sign(authority.key, hashes.SHA256())


def lifetime_of(certificate: x509.Certificate) -> timedelta:
    """Return for how long a certificate was issued."""
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc - _BACKDATED


def parse_hosts(text: str) -> tuple[x509.GeneralName, ...]:
    """Return the names of hosts and addresses in a list with commas. Raises UsageError, naming --hosts.

    They mean nothing to this product, which goes by identities.
    """
    return tuple(_host(part.strip()) for part in text.split(",") if part.strip())


def hosts_of(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    """Return the hosts that a certificate names beside its identity."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return tuple(each for each in extension.value if isinstance(each, x509.DNSName | x509.IPAddress))


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        if _HOST_NAME.fullmatch(text) is None:
            raise UsageError(
                f"--hosts takes names of hosts and IP addresses, separated by commas, not {text!r}"
            ) from None
        return x509.DNSName(text)


def _check_may_certify(authority: Authority, identity: Identity) -> None:
    subject = authority.certificate.subject
    cluster = _value(subject, NameOID.COMMON_NAME)
    if cluster != identity.cluster:
        raise UsageError(f"this authority is of cluster {cluster!r}, not of {identity.cluster!r}")
    purpose = _value(subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    if identity.role not in ROLES_OF[purpose]:
        raise UsageError(
            f"this authority is for {purpose} and may not certify the role {identity.role}: name another "
            "directory with --ca"
        )


def _value(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    return str(name.get_attributes_for_oid(oid)[0].value)


def _name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    serial: int,
    now: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*wanted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in wanted for usage in _USAGES})
