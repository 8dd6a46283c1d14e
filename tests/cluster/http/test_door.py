"""Which requests an HTTP port answers, and whom it shows the state of the cluster."""

import pytest

from greenroom.identities import Identity
from greenroom.tokens import new_token
from greenroom_cluster.http.door import Asked, objection, objection_in_plaintext, objection_in_tls
from greenroom_cluster.tokens.table import Bearer, TokenTable, Uncertified

CLUSTER = "shop"
NOBODY = Uncertified(TokenTable(), 0.0)


def status_of(asked: Asked, *, secured: bool = False) -> int:
    refusal = objection(asked, "box.example", secured=secured)
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:7480",
        "127.0.0.1",
        "[::1]:7480",
        "localhost",
        "LOCALHOST:80",
        "10.0.0.7:1",
        "box.example:7480",
    ],
)
def test_a_host_that_nobody_can_redirect_is_ours(host: str) -> None:
    assert status_of(Asked("GET", host)) == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:80", "127.0.0.1.evil.example", "2130706433"]
)
def test_a_host_that_a_name_server_made_ours_is_refused(host: str) -> None:
    """A page of evil.example whose name stands for 127.0.0.1 by now would read what the browser may."""
    assert status_of(Asked("GET", host)) == 421


def test_within_tls_any_host_is_ours() -> None:
    """The certificate, not the name, says who is there."""
    assert status_of(Asked("GET", "evil.example"), secured=True) == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", ""])
def test_nothing_but_reading_is_answered(method: str) -> None:
    assert status_of(Asked(method, "localhost")) == 405


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_what_a_page_of_another_origin_causes_is_refused(site: str) -> None:
    assert status_of(Asked("GET", "localhost:1", site=site)) == 403
    assert status_of(Asked("GET", "localhost:1", origin="http://evil.example")) == 403
    assert status_of(Asked("GET", "localhost:1", origin="null")) == 403


def test_our_own_pages_may_ask() -> None:
    assert status_of(Asked("GET", "localhost:1", site="same-origin", origin="http://localhost:1")) == 200
    assert status_of(Asked("GET", "localhost:1", site="none")) == 200


def test_without_a_secret_everybody_is_shown_everything() -> None:
    assert objection_in_plaintext(Asked("GET", "localhost"), None) is None


def test_the_token_of_the_secret_is_asked_for() -> None:
    def status(authorization: str) -> int:
        refusal = objection_in_plaintext(Asked("GET", "localhost", authorization=authorization), "abc")
        return 200 if refusal is None else refusal.status

    assert status("Bearer abc") == status("bearer  abc ") == 200
    assert status("") == status("Basic abc") == status("abc") == 401
    assert status("Bearer abcd") == status("Bearer ab") == status("Bearer \u00e9") == 403


def test_a_wrong_token_may_have_been_guessed_and_none_is_no_guess() -> None:
    wrong = objection_in_plaintext(Asked("GET", "localhost", authorization="Bearer x"), "abc")
    none = objection_in_plaintext(Asked("GET", "localhost"), "abc")
    assert wrong is not None
    assert none is not None
    assert (wrong.guessed, none.guessed) == (True, False)


@pytest.mark.parametrize(
    ("role", "status"),
    [("operator", 200), ("observer", 200), ("client", 403), ("node", 403), ("coordinator", 403)],
)
def test_who_shows_a_certificate_is_judged_by_its_role(role: str, status: int) -> None:
    refusal = objection_in_tls(Asked("GET", "h"), Identity(CLUSTER, role, "x"), CLUSTER, NOBODY)  # type: ignore[arg-type]
    assert (200 if refusal is None else refusal.status) == status


def test_an_observer_of_another_cluster_is_shown_nothing() -> None:
    refusal = objection_in_tls(Asked("GET", "h"), Identity("other", "observer", "x"), CLUSTER, NOBODY)
    assert refusal is not None
    assert refusal.status == 403


def test_a_token_counts_for_its_role_alone() -> None:
    def status(role: str, shown: str = "") -> int:
        token = new_token("t1", lambda count: b"r" * count)
        identity = Identity(CLUSTER, role, "x")  # type: ignore[arg-type]
        table = TokenTable([Bearer("t1", token.digest, identity, 2e9)])
        text = shown or token.written().decode().strip()
        asked = Asked("GET", "h", authorization=f"Bearer {text}")
        refusal = objection_in_tls(asked, None, CLUSTER, Uncertified(table, 1e9))
        return 200 if refusal is None else refusal.status

    assert status("observer") == 200
    assert status("client") == 403
    assert status("observer", "gt1.t1." + "A" * 43) == 403


def test_nobody_within_tls_is_told_what_to_show() -> None:
    refusal = objection_in_tls(Asked("GET", "h"), None, CLUSTER, NOBODY)
    assert refusal is not None
    assert (refusal.status, refusal.guessed) == (401, False)


def test_no_repr_shows_a_token() -> None:
    assert "secret" not in repr(Asked("GET", "localhost", authorization="Bearer secret"))
