"""What a certificate of each role holds."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from greenroom.errors import UsageError
from greenroom.identities import IDENTITY_ROLES, PURPOSES, ROLES_OF, IdentityRole, Purpose
from greenroom_cluster.certificates import issuing
from greenroom_cluster.certificates.examining import identity_in, is_issued_by
from tests.cluster.certificates.stage import DAY, NOW, hold, make_authority

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)
AUTHORITIES = {purpose: make_authority(purpose) for purpose in PURPOSES}


def value_of(certificate: x509.Certificate, kind: Any) -> Any:
    return certificate.extensions.get_extension_for_class(kind).value


@pytest.mark.parametrize("role", IDENTITY_ROLES)
def test_leaf_lasts_90_days_and_is_for_one_use(role: IdentityRole) -> None:
    certificate = hold(AUTHORITIES["all"], role).certificate
    assert certificate.not_valid_after_utc == NOW + 90 * DAY
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert certificate.public_key().curve.name == "secp256r1"
    uses = set(value_of(certificate, x509.ExtendedKeyUsage))
    serves = ExtendedKeyUsageOID.SERVER_AUTH in uses
    assert serves is (role in {"node", "coordinator"})
    assert uses - {ExtendedKeyUsageOID.SERVER_AUTH} == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not value_of(certificate, x509.BasicConstraints).ca


@pytest.mark.parametrize("purpose", PURPOSES)
def test_authority_lasts_ten_years_and_makes_no_other(purpose: Purpose) -> None:
    certificate = AUTHORITIES[purpose].certificate
    assert certificate.not_valid_after_utc - NOW > 3650 * DAY
    constraints = value_of(certificate, x509.BasicConstraints)
    assert (constraints.ca, constraints.path_length) == (True, 0)
    assert is_issued_by(certificate, certificate)


@pytest.mark.parametrize("role", IDENTITY_ROLES)
@pytest.mark.parametrize("purpose", PURPOSES)
def test_authority_issues_only_to_those_it_is_for(purpose: Purpose, role: IdentityRole) -> None:
    if role in ROLES_OF[purpose]:
        assert identity_in(hold(AUTHORITIES[purpose], role).certificate).role == role
    else:
        with pytest.raises(UsageError, match="--ca"):
            hold(AUTHORITIES[purpose], role)


def test_authority_issues_for_its_own_cluster_only() -> None:
    with pytest.raises(UsageError, match="of cluster 'shop', not of 'other'"):
        hold(AUTHORITIES["all"], "node", cluster="other")


def test_authority_that_has_ended_issues_nothing() -> None:
    with pytest.raises(UsageError, match="rotate-ca"):
        hold(AUTHORITIES["all"], "node", now=NOW + 3660 * DAY)


@given(cluster=NAMES, name=NAMES, role=st.sampled_from(IDENTITY_ROLES))
def test_every_name_is_certified_as_it_is(cluster: str, name: str, role: IdentityRole) -> None:
    authority = issuing.Authority(_renamed(cluster), AUTHORITIES["all"].key)
    certificate = hold(authority, role, name, cluster=cluster).certificate
    assert identity_in(certificate).uri == f"greenroom://{cluster}/{role}/{name}"


def _renamed(cluster: str) -> x509.Certificate:
    return issuing.create_authority(cluster, "all", key=AUTHORITIES["all"].key, serial=7, now=NOW).certificate


@given(st.text(max_size=40))
def test_hosts_are_named_in_the_certificate_or_refused(text: str) -> None:
    try:
        hosts = issuing.parse_hosts(text)
    except UsageError:
        return
    certificate = hold(AUTHORITIES["all"], "node", hosts=hosts).certificate
    assert issuing.hosts_of(certificate) == hosts
    assert identity_in(certificate).name == "n1"


@pytest.mark.parametrize("text", ["a b", "a/b", "*.example", "a..b", "é.example", "x" * 99])
def test_what_is_no_host_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--hosts"):
        issuing.parse_hosts(f"n1.example,{text}")


def test_lifetime_does_not_grow_from_one_renewal_to_the_next() -> None:
    certificate = hold(AUTHORITIES["all"], "node", lifetime=7 * DAY).certificate
    assert issuing.lifetime_of(certificate) == 7 * DAY


def test_no_repr_shows_a_key() -> None:
    assert repr(AUTHORITIES["all"]).startswith("Authority('2.5.4.46=")
    assert repr(hold(AUTHORITIES["all"], "node")) == "Holder('CN=n1,OU=node')"
