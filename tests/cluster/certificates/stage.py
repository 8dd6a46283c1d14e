"""Authorities, holders and handshakes in memory."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from greenroom.identities import Identity, IdentityRole, Purpose
from greenroom_cluster.certificates import issuing
from greenroom_cluster.certificates.holders import Holder, certificates_pem, key_pem, new_key

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
CLUSTER = "shop"


def make_authority(
    purpose: Purpose = "all", *, cluster: str = CLUSTER, now: datetime = NOW
) -> issuing.Authority:
    return issuing.create_authority(
        cluster, purpose, key=new_key(), serial=x509.random_serial_number(), now=now
    )


def hold(
    authority: issuing.Authority,
    role: IdentityRole,
    name: str = "n1",
    *,
    cluster: str = CLUSTER,
    trusted: tuple[issuing.Authority, ...] | None = None,
    now: datetime = NOW,
    **more: Any,
) -> Holder:
    """Return what a holder is given, which trusts its own authority unless others are named."""
    key = new_key()
    certificate = issuing.issue(
        authority,
        Identity(cluster, role, name),
        key.public_key(),
        serial=x509.random_serial_number(),
        now=now,
        **more,
    )
    return Holder(certificate, key, tuple(each.certificate for each in trusted or (authority,)))


def sub_authority(
    authority: issuing.Authority, name: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Return the certificate of an authority below another, as who has the key of that might make it."""
    public = key.public_key()
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        issuing._builder(name, authority.certificate.subject, public, 5, NOW, NOW + 30 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(issuing._usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(authority.key, hashes.SHA256())
    )


def context(holder: Holder, files: Path, *more: x509.Certificate, server: bool) -> ssl.SSLContext:
    """Return a context as strict as those of servers and stores."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=certificates_pem(holder.trusted).decode())
    chain, key = files / f"{server}.pem", files / f"{server}.key"
    chain.write_bytes(certificates_pem([holder.certificate, *more]))
    key.write_bytes(key_pem(holder.key))
    made.load_cert_chain(chain, key)
    return made


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the certificates that server and client see of each other. Raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(up, down, server_side=True)
    here = client.wrap_bio(down, up, server_side=False)
    waiting = [here, there]
    for _ in range(6):
        for each in list(waiting):
            try:
                each.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(each)
    assert not waiting
    seen = there.getpeercert(), here.getpeercert()
    assert seen[0] is not None
    assert seen[1] is not None
    return seen[0], seen[1]


def meet(server: Holder, client: Holder, files: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the certificates that two holders see of each other. Raises ssl.SSLError."""
    return handshake(context(server, files, server=True), context(client, files, server=False))
