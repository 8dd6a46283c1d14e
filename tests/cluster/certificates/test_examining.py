"""What is said about a certificate, and that it is about the right one."""

from typing import Any

import pytest
from cryptography import x509

from greenroom_cluster.certificates import issuing
from greenroom_cluster.certificates.examining import (
    Examined,
    KeyFound,
    examine,
    examine_authority,
    is_due,
    public_bytes,
    serial_text,
)
from greenroom_cluster.certificates.holders import Holder
from tests.cluster.certificates.stage import DAY, NOW, hold, make_authority

AUTHORITY = make_authority()


def key_of(holder: Holder, mode: int = 0o600) -> KeyFound:
    return KeyFound(public=public_bytes(holder.key.public_key()), mode=mode)


def look(holder: Holder, **more: Any) -> Examined:
    asked = {"trusted": holder.trusted, "key": key_of(holder), "denied": (), "now": NOW, **more}
    return examine("n1.pem", holder.certificate, **asked)


def test_of_what_is_in_order_nothing_is_to_be_done() -> None:
    holder = hold(AUTHORITY, "node")
    assert look(holder) == Examined(
        file="n1.pem",
        identity="greenroom://shop/node/n1",
        role="node",
        ends=NOW + 90 * DAY,
        serial=serial_text(holder.certificate.serial_number),
        issuer=issuing.key_id(AUTHORITY.key.public_key()),
        chain="good",
        key="fits",
        problems=(),
    )


@pytest.mark.parametrize(
    ("days", "said"),
    [(59, None), (61, "ends soon"), (89.9, "ends soon"), (91, "has ended"), (-2, "not valid yet")],
)
def test_its_time_is_told(days: float, said: str | None) -> None:
    problems = look(hold(AUTHORITY, "node"), now=NOW + days * DAY).problems
    assert (said is None) == (problems == ())
    assert said is None or said in problems[0]


def test_days_left_decide_what_is_due() -> None:
    certificate = hold(AUTHORITY, "node").certificate
    assert is_due(certificate, NOW + 80 * DAY, 11 * DAY)
    assert not is_due(certificate, NOW + 80 * DAY, 9 * DAY)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"trusted": ()}, "there is no ca.pem"),
        ({"trusted": (make_authority().certificate,)}, "no authority in ca.pem has issued it"),
        ({"key": key_of(hold(AUTHORITY, "node"))}, "of another certificate"),
        ({"key": KeyFound(error="its key is not there")}, "its key is not there"),
    ],
)
def test_what_does_not_fit_is_told(changed: dict[str, Any], said: str) -> None:
    (problem,) = look(hold(AUTHORITY, "node"), **changed).problems
    assert said in problem


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_key_that_others_can_read_is_told(mode: int) -> None:
    holder = hold(AUTHORITY, "node")
    (problem,) = look(holder, key=key_of(holder, mode)).problems
    assert f"{mode:04o}" in problem
    assert "0600" in problem


def test_revoked_certificate_is_told() -> None:
    holder = hold(AUTHORITY, "node")
    (problem,) = look(holder, denied={serial_text(holder.certificate.serial_number)}).problems
    assert "revoked" in problem


def test_chain_to_an_authority_that_has_ended_is_told() -> None:
    examined = look(hold(AUTHORITY, "node"), now=NOW + 4000 * DAY)
    assert examined.chain == "its authority has ended"


def test_certificate_beyond_its_authoritys_purpose_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuing, "_check_may_certify", lambda *_: None)
    (problem,) = look(hold(make_authority("clients"), "node")).problems
    assert "may not certify the role node" in problem


def test_certificate_of_a_client_that_says_node_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuing, "_SERVER_ROLES", frozenset())
    (problem,) = look(hold(AUTHORITY, "node")).problems
    assert "extended key usage" in problem


def test_certificate_that_names_nobody_is_told() -> None:
    examined = examine(
        "x.pem", AUTHORITY.certificate, trusted=(AUTHORITY.certificate,), key=None, denied=(), now=NOW
    )
    assert examined.identity == ""
    assert "holds no URIs" in examined.problems[0]


@pytest.mark.parametrize(("days", "count"), [(3000, 0), (3500, 1), (4000, 1)])
def test_authority_is_told_to_rotate_half_a_year_ahead(days: int, count: int) -> None:
    examined = examine_authority("authority.pem", AUTHORITY.certificate, now=NOW + days * DAY)
    assert examined.role == "authority for all"
    assert len(examined.problems) == count


@pytest.mark.parametrize(("serial", "text"), [(1, "01"), (0xABC, "0ABC"), (1 << 159, "80" + "00" * 19)])
def test_serial_numbers_are_written_as_ssl_writes_them(serial: int, text: str) -> None:
    assert serial_text(serial) == text
    assert int(text, 16) == serial


def test_serial_numbers_are_drawn_long() -> None:
    assert len({x509.random_serial_number().bit_length() > 100 for _ in range(50)}) == 1
