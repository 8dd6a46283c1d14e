"""Whom the authority of a local cluster certifies."""

from pathlib import Path

import pytest
from cryptography import x509

from greenroom.identities import IdentityRole, parse_identity
from greenroom_cluster.runtime.own_authority import OwnAuthority


@pytest.mark.parametrize("role", ["client", "node", "operator"])
def test_nobody_gets_a_namespace_of_its_own(tmp_path: Path, role: IdentityRole) -> None:
    """So a start without TLS has the sessions that one with it kept, and the other way round."""
    issued = OwnAuthority(tmp_path, "greenroom").files(role, "app")
    assert issued.tls_cert is not None
    certificate = x509.load_pem_x509_certificate(Path(issued.tls_cert).read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    identity = parse_identity(uri)
    assert (identity.role, identity.name, identity.namespace) == (role, "app", "")
