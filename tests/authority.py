"""Certificates for tests: an authority in memory, and the files of those that it certifies."""

import datetime as dt
import ipaddress
import itertools
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from greenroom.tls.credentials import TlsFiles

_DAY = dt.timedelta(days=1)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Holder:
    """A certificate with its key, as PEM."""

    certificate: bytes
    key: bytes
    ca: bytes
    serial: int

    def files(self, folder: Path, name: str = "", *, flags: bool = False) -> TlsFiles:
        """Write the three files and return their paths."""
        name = name or f"holder{next(_numbers)}"
        cert, key, ca = folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.ca.pem"
        cert.write_bytes(self.certificate)
        key.touch(0o600)
        key.write_bytes(self.key)
        ca.write_bytes(self.ca)
        return TlsFiles(cert=str(cert), key=str(key), ca=str(ca), flags=flags)


class Authority:
    """A CA."""

    def __init__(self, name: str = "test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self._certificate = (
            self._builder(self._name, self._key.public_key(), days=3650, ago=1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, *uris: str, days: float = 30, ago: float = 1, server: bool | None = None, ca: bytes = b""
    ) -> Holder:
        """Certify a new key. `days` from now on; `server`: whether for servers too, else as the role says."""
        key = ec.generate_private_key(ec.SECP256R1())
        if server is None:
            server = any(f"/{role}/" in uri for uri in uris for role in ("node", "coordinator"))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + [ExtendedKeyUsageOID.SERVER_AUTH] * server
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        certificate = (
            self._builder(x509.Name([]), key.public_key(), days=days, ago=ago)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = certificate.public_bytes(serialization.Encoding.PEM)
        return Holder(public, private, ca or self.pem, certificate.serial_number)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, days: float, ago: float
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - ago * _DAY)
            .not_valid_after(now + days * _DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(ours, critical=False)
        )
