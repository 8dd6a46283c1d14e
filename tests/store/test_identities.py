"""Identities in certificates."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.errors import UsageError
from greenroom.identities import IDENTITY_ROLES, Identity, IdentityError, identity_of, parse_identity

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
