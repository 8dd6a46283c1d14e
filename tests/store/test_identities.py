"""Identities in certificates."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.errors import UsageError
from greenroom.identities import (
    IDENTITY_ROLES,
    PURPOSES,
    Identity,
    IdentityError,
    IdentityRole,
    Issuer,
    identity_of,
    issuer_of,
    parse_identity,
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)


def certificate(*names: tuple[str, str]) -> dict[str, Any]:
    return {"subject": ((("commonName", "n9"),),), "subjectAltName": names}


@given(st.builds(Identity, NAMES, st.sampled_from(IDENTITY_ROLES), NAMES))
def test_what_was_written_is_read(identity: Identity) -> None:
    assert parse_identity(identity.uri) == identity
    assert identity_of(certificate(("DNS", "n1.example"), ("URI", identity.uri))) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "greenroom://shop/node",
        "greenroom://shop/node/n1/",
        "greenroom://shop/node/n1\n",
        "greenroom://shop/node/n1?ns=other",
        "greenroom://shop/peer/n1",
        "greenroom://shop/NODE/n1",
        "greenroom://shop/node/-n1",
        "greenroom://shop/node/n%31",
        "greenroom://shop/node/ñ1",
        "greenroom://shop/node/n٣",
        f"greenroom://shop/node/{'n' * 64}",
        "greenrooms://shop/node/n1",
        "Greenroom://shop/node/n1",
    ],
)
def test_whatever_else_names_nobody(uri: str) -> None:
    with pytest.raises(UsageError, match="greenroom://CLUSTER/ROLE/NAME"):
        parse_identity(uri)
    with pytest.raises(IdentityError, match="names nobody"):
        identity_of(certificate(("URI", uri)))


def test_a_certificate_names_exactly_one() -> None:
    """The common name counts for nothing, and of two URIs neither does."""
    own = ("URI", "greenroom://shop/client/web")
    with pytest.raises(IdentityError, match="holds no URIs"):
        identity_of({})
    with pytest.raises(IdentityError, match="holds no URIs"):
        identity_of(certificate(("DNS", "greenroom://shop/client/web")))
    with pytest.raises(IdentityError, match="holds 2 URIs"):
        identity_of(certificate(own, own))


# --- issuers ---------------------------------------------------------------------------------------------


def issued(role: IdentityRole, **issuer: str) -> dict[str, Any]:
    """Return a certificate of cluster shop, in the form that `ssl` gives them."""
    own = certificate(("URI", f"greenroom://shop/{role}/n1"))
    return {**own, "issuer": tuple(((name, value),) for name, value in issuer.items())}


def ours(purpose: str, cluster: str = "shop") -> dict[str, str]:
    return {
        "organizationName": "greenroom",
        "organizationalUnitName": purpose,
        "commonName": cluster,
        "dnQualifier": "0123456789abcdef",
    }


EXPECTED = {("all", role): True for role in IDENTITY_ROLES} | {
    ("servers", "node"): True,
    ("servers", "coordinator"): True,
    ("servers", "operator"): True,
    ("servers", "observer"): True,
    ("clients", "client"): True,
}


@pytest.mark.parametrize("role", IDENTITY_ROLES)
@pytest.mark.parametrize("purpose", [*PURPOSES, "", "everybody"])
def test_an_authority_certifies_whom_it_is_for(purpose: str, role: IdentityRole) -> None:
    found = issued(role, **ours(purpose))
    if EXPECTED.get((purpose, role)):
        assert identity_of(found).role == role
    else:
        with pytest.raises(IdentityError, match=f"may not certify the role {role}"):
            identity_of(found)


def test_an_authority_of_another_cluster_certifies_nobody_of_this_one() -> None:
    with pytest.raises(IdentityError, match="that of cluster 'other'"):
        identity_of(issued("client", **ours("all", "other")))


def test_an_authority_of_a_company_certifies_any_role() -> None:
    found = issued("node", organizationName="Example", commonName="Example Root")
    assert issuer_of(found) is None
    assert identity_of(found).role == "node"


def test_an_issuer_tells_the_id_of_its_key() -> None:
    assert issuer_of(issued("node", **ours("servers"))) == Issuer("shop", "servers", "0123456789abcdef")


def test_parts_of_our_name_are_not_taken_for_another_authority() -> None:
    twice = {
        **issued("node"),
        "issuer": (*issued("node", **ours("clients"))["issuer"], (("organizationName", "x"),)),
    }
    with pytest.raises(IdentityError, match="may not certify"):
        identity_of(twice)
    with pytest.raises(IdentityError, match="of cluster ''"):
        identity_of(issued("node", organizationName="greenroom"))
