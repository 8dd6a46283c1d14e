"""Whether a certificate counts still, and by which authorities it may have been certified."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from greenroom.identities import parse_identity
from greenroom.tls.credentials import authorities_in, load
from greenroom.tls.standing import Name, Proven, Trusted, anchors_of
from tests.authority import Authority

NODE = "greenroom://shop/node/n1"
FORMER: Name = ((("commonName", "former"),),)
NEWER: Name = ((("commonName", "newer"),),)
BOTH = {FORMER: frozenset({b"f"}), NEWER: frozenset({b"n1", b"n2"})}
PROVEN = Proven(parse_identity(NODE), 7, 100.0, frozenset({b"f"}))
TRUSTED = Trusted(frozenset({b"f", b"n1", b"n2"}), frozenset())


@pytest.mark.parametrize(
    ("issuer", "anchors"),
    [(FORMER, {b"f"}), (NEWER, {b"n1", b"n2"}), ((("commonName", "between"),), {b"f", b"n1", b"n2"})],
)
def test_issuer_names_the_authority_or_any_may_be_it(issuer: Name, anchors: set[bytes]) -> None:
    assert anchors_of({"issuer": issuer}, BOTH) == anchors


@pytest.mark.parametrize(
    ("change", "seconds", "objection"),
    [
        ({}, 99.0, ""),
        ({}, 100.0, "its certificate has ended"),
        ({"revoked": frozenset({6, 8})}, 99.0, ""),
        ({"revoked": frozenset({7})}, 99.0, "its certificate is revoked (serial 7)"),
        ({"authorities": frozenset({b"f"})}, 99.0, ""),
        ({"authorities": frozenset({b"n1"})}, 99.0, "the authority of its certificate is trusted no more"),
        ({"authorities": frozenset()}, 99.0, "the authority of its certificate is trusted no more"),
    ],
)
def test_certificate_counts_until_something_is_against_it(
    change: dict[str, Any], seconds: float, objection: str
) -> None:
    found = msgspec.structs.replace(TRUSTED, **change).objection(PROVEN, seconds)
    assert ("" if found is None else found.reason) == objection
    # Who was revoked, or whose time is over, has no time left.
    assert found is None or found.waits == ("authority" in objection)


def test_certificate_of_one_between_ends_with_any_authority() -> None:
    between = msgspec.structs.replace(PROVEN, anchors=TRUSTED.authorities)
    assert TRUSTED.objection(between, 0.0) is None
    fewer = msgspec.structs.replace(TRUSTED, authorities=frozenset({b"f", b"n1"}))
    assert fewer.objection(between, 0.0)


def test_authorities_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one, same, other = Authority("one"), Authority("one"), Authority("other")
    loaded = load(one.issue(NODE, ca=one.pem + same.pem + other.pem).files(tmp_path))
    found = authorities_in(loaded.server)
    assert sorted(map(len, found.values())) == [1, 2]
    assert loaded.trusted.authorities == frozenset().union(*found.values())
