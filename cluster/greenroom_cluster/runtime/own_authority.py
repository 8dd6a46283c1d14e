"""Certificates of a local cluster, issued by an authority of its own, whose key is never written."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from greenroom.identities import DEFAULT_NAMESPACE, Identity, IdentityRole
from greenroom_cluster.certificates.holders import Holder, key_file, make_directory, new_key, write_new
from greenroom_cluster.certificates.issuing import create_authority, issue
from greenroom_cluster.tls_options import TlsOptions

LIFETIME = timedelta(days=30)
"""How long such a cluster can run."""


class OwnAuthority:
    """Issues into a directory that goes with the cluster. Nothing is issued to a holder twice."""

    def __init__(self, directory: Path, cluster: str) -> None:
        self._directory = directory
        self._cluster = cluster
        self._authority = create_authority(
            cluster,
            "all",
            key=new_key(),
            serial=x509.random_serial_number(),
            now=datetime.now(UTC),
            lifetime=LIFETIME,
        )
        self._issued: dict[tuple[IdentityRole, str], TlsOptions] = {}

    def files(self, role: IdentityRole, name: str) -> TlsOptions:
        """Return the files of a holder, which are written at the first time."""
        known = self._issued.get((role, name))
        if known is not None:
            return known
        key = new_key()
        # As without TLS: what one run keeps in its directory is for the apps of the next, whichever it has.
        namespace = DEFAULT_NAMESPACE if role == "client" else ""
        certificate = issue(
            self._authority,
            Identity(self._cluster, role, name, namespace),
            key.public_key(),
            serial=x509.random_serial_number(),
            now=datetime.now(UTC),
            lifetime=LIFETIME,
        )
        folder = self._directory / role / name
        make_directory(self._directory / role)
        make_directory(folder)
        written = write_new(folder, name, Holder(certificate, key, (self._authority.certificate,)))
        made = TlsOptions(tls_cert=written, tls_key=key_file(written), tls_ca=folder / "ca.pem")
        self._issued[role, name] = made
        return made
