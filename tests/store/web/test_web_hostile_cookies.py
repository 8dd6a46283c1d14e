"""Whatever a client sends as its cookie: never an error 500, never somebody else's session."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom import MemoryStore, new_session_id
from greenroom.testing import FaultyStore, library_named
from greenroom.web import CookieSigner, Session, SessionMiddleware
from greenroom.web.cookies import CANDIDATES_MAX, CROWD, PARTS_MAX, _signature, cookie_values
from tests.store.web.web_stage import SECRET

VICTIM = "victim"


async def app(scope: Any, _receive: Any, send: Any) -> None:
    session = scope["session"]
    if scope["path"] == "/login":
        session.greenroom.login("visitor", {"greeting": "hello"})
    elif scope["path"] == "/logout":
        session.greenroom.logout()
    elif scope["path"] == "/keep":
        session["kept"] = True
    body = repr((session.greenroom.user_id, dict(session), session.greenroom.stored)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


class Site:
    """An app in which one user is logged in, and what requests with forged cookies get from it."""

    def __init__(self) -> None:
        self.store = FaultyStore(MemoryStore())
        secrets = [SECRET, "the secret before that one, long enough"]
        # Made when tests are collected, and in a run of all of them used more than half an hour later.
        self.sessions = Session(secret=secrets, store=self.store, idle_seconds=24 * 3600.0)
        self.middleware = SessionMiddleware(app, session=self.sessions)
        self.victim_id, self.signed = self.run(self._begin)
        self.store.calls.clear()

    async def _begin(self) -> tuple[str, str]:
        visit = self.sessions.visit(())
        visit.session.greenroom.login(VICTIM, {"secret": "the victim's"})
        await visit.save()
        assert visit.stored is not None
        session_id = visit.stored.session_id
        return session_id, self.sessions.signer.sign(session_id)

    def run(self, action: Any) -> Any:
        return library_named("asyncio").run(action, 30)

    def get(self, *headers: bytes, path: str = "/") -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Return body and headers of the answer to these Cookie headers."""
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "scheme": "https",
            "path": path,
            "headers": [(b"cookie", header) for header in headers],
        }

        async def serve() -> None:
            await self.middleware(scope, receive, send)

        self.run(serve)
        assert sent[0]["status"] == 200
        return sent[1]["body"], sent[0]["headers"]


SITE = Site()
ANONYMOUS = b"(None, {}, False)"
VICTIMS_PAGE = b"('victim', {'secret': \"the victim's\"}, True)"


def refused(*headers: bytes) -> None:
    before = SITE.store.calls.total()
    body, answer = SITE.get(*headers)
    assert body == ANONYMOUS
    assert not any(name == b"set-cookie" for name, _ in answer)
    assert SITE.store.calls.total() == before, "no valid cookie, no question to the store"


def test_the_victims_own_cookie_is_its_session() -> None:
    body, _ = SITE.get(b"__Host-session=" + SITE.signed.encode())
    assert body == VICTIMS_PAGE
    body, _ = SITE.get(b'other=1; __Host-session="' + SITE.signed.encode() + b'" ; more=2')
    assert VICTIM.encode() in body


def test_a_session_is_found_in_whichever_header_its_cookie_is() -> None:
    """Over HTTP/2 each cookie may have a header of its own, and granian hands them on so."""
    signed = b"__Host-session=" + SITE.signed.encode()
    for headers in ([b"theme=dark", signed], [signed, b"theme=dark"], [b"a=1", b"b=2; c=3", signed]):
        body, _ = SITE.get(*headers)
        assert body == VICTIMS_PAGE


@given(st.binary(max_size=400))
def test_arbitrary_bytes(value: bytes) -> None:
    refused(b"__Host-session=" + value)
    refused(value)


def hostile_cookies() -> st.SearchStrategy[bytes]:
    """Truncated, signed again with another key or an old one that was dropped, binary, or of other parts.

    None of them is a cookie of the site, though all that they are made of may be known to who sends them.
    """
    signed, session_id = SITE.signed.encode(), SITE.victim_id
    signature = signed.rpartition(b".")[2]
    ids = st.one_of(st.just(session_id), st.builds(new_session_id), st.text(max_size=400))
    ascii_ids = ids.filter(str.isascii)
    own = SITE.sessions.signer
    other_keys = st.text(min_size=1, max_size=40).map(lambda key: CookieSigner([key], "session"))
    return st.one_of(
        st.binary(max_size=400),
        st.tuples(st.integers(0, len(signed)), st.integers(0, len(signed)))
        .map(lambda cut: signed[min(cut) : max(cut)])
        .filter(lambda part: part != signed),
        st.builds(lambda signer, each: signer.sign(each).encode(), other_keys, ascii_ids),
        st.just(CookieSigner(["one that was dropped long ago"], "session").sign(session_id).encode()),
        st.just(session_id.encode()),
        ascii_ids.filter(lambda each: each != session_id).map(lambda each: each.encode() + b"." + signature),
        ascii_ids.filter(lambda each: each != session_id).map(
            lambda each: session_id.encode() + b"." + own.sign(each).rpartition(".")[2].encode()
        ),
        st.tuples(st.binary(min_size=1, max_size=8), st.booleans()).map(
            lambda made: (signed if made[1] else b"") + made[0] * (2**20 // len(made[0]))
        ),
    ).filter(lambda cookie: b";" not in cookie and cookie.strip().strip(b'"') != signed)


@given(st.lists(hostile_cookies(), min_size=1, max_size=3))
def test_no_mixture_of_them_is_anybody(cookies: list[bytes]) -> None:
    refused(b"; ".join(b"__Host-session=" + each for each in cookies))
    refused(*(b"__Host-session=" + each for each in cookies))


@given(hostile_cookies(), st.sampled_from(["/login", "/keep"]))
def test_who_sends_one_and_begins_a_session_gets_an_id_of_their_own(cookie: bytes, path: str) -> None:
    body, headers = SITE.get(b"__Host-session=" + cookie, path=path)
    assert VICTIM.encode() not in body
    (given_back,) = [value for name, value in headers if name == b"set-cookie"]
    value = given_back.partition(b"=")[2].partition(b";")[0]
    session_id = SITE.sessions.signer.verify(value)
    assert session_id is not None
    assert session_id != SITE.victim_id
    assert session_id.encode() not in cookie
    assert SITE.get(b"__Host-session=" + SITE.signed.encode())[0] == VICTIMS_PAGE


@given(hostile_cookies())
def test_who_sends_one_logs_nobody_out(cookie: bytes) -> None:
    SITE.get(b"__Host-session=" + cookie, path="/logout")
    assert SITE.get(b"__Host-session=" + SITE.signed.encode())[0] == VICTIMS_PAGE


@given(st.text(st.characters(codec="ascii"), max_size=300))
def test_text_that_the_right_key_signed_is_no_session_either(text: str) -> None:
    """What another application with the same secret may have signed: no error, and never taken over."""
    signed = SITE.sessions.signer.sign(text).encode()
    if b";" in signed:
        return
    writes = SITE.store.writes
    body, headers = SITE.get(b"__Host-session=" + signed)
    assert body == ANONYMOUS
    assert not any(name == b"set-cookie" for name, _ in headers)
    assert SITE.store.writes == writes


@given(st.integers(0, len(SITE.signed) - 1))
def test_truncated(length: int) -> None:
    refused(b"__Host-session=" + SITE.signed[:length].encode())


@given(st.integers(0, len(SITE.signed) - 1), st.integers(0, 255))
def test_one_byte_changed(index: int, byte: int) -> None:
    forged = bytearray(SITE.signed.encode())
    if forged[index] == byte:
        return
    forged[index] = byte
    body, _ = SITE.get(b"__Host-session=" + bytes(forged))
    # The last character of the signature carries bits that base64 does not use, and base64 of old skips what
    # it does not know; the id under it is the one that was signed, in every case.
    assert body == ANONYMOUS or bytes(forged).startswith(SITE.victim_id.encode())


@given(st.text(st.characters(codec="ascii"), max_size=300), st.text(min_size=1, max_size=40))
def test_signed_with_another_secret(session_id: str, secret: str) -> None:
    other = Session(secret=secret, store=SITE.store, dev=True)
    refused(b"__Host-session=" + other.signer.sign(session_id).encode())
    refused(b"__Host-session=" + other.signer.sign(SITE.victim_id).encode())


def test_someone_elses_id_under_ones_own_signature() -> None:
    own = new_session_id()
    signature = SITE.sessions.signer.sign(own).rpartition(".")[2]
    refused(f"__Host-session={SITE.victim_id}.{signature}".encode())
    refused(f"__Host-session={SITE.victim_id}".encode())
    refused(f"__Host-session={SITE.victim_id}.".encode())


def test_cookie_of_the_same_secret_under_another_name() -> None:
    other = Session(secret=SECRET, store=SITE.store, cookie_name="other")
    refused(f"__Host-session={other.signer.sign(SITE.victim_id)}".encode())


def test_an_old_key_serves_and_a_dropped_one_does_not() -> None:
    old = Session(secret="the secret before that one, long enough", store=SITE.store, dev=True)
    body, _ = SITE.get(f"__Host-session={old.signer.sign(SITE.victim_id)}".encode())
    assert VICTIM.encode() in body
    older = Session(secret="one that was dropped long ago", store=SITE.store, dev=True)
    refused(f"__Host-session={older.signer.sign(SITE.victim_id)}".encode())


def test_a_well_signed_id_that_the_store_does_not_know_is_not_adopted() -> None:
    unknown = new_session_id()
    writes = SITE.store.writes
    body, headers = SITE.get(f"__Host-session={SITE.sessions.signer.sign(unknown)}".encode())
    assert body == ANONYMOUS
    assert not any(name == b"set-cookie" for name, _ in headers)
    assert SITE.store.writes == writes


@given(st.binary(min_size=1, max_size=20))
@settings(max_examples=10)
def test_a_mebibyte(filling: bytes) -> None:
    refused(b"__Host-session=" + filling * (2**20 // len(filling)))
    refused(b";".join([b"__Host-session=x"] * 100_000))
    refused(b"__Host-session=" + SITE.signed.encode() + b"x" * 2**20)


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_beside_junk_the_victims_cookie_still_counts(junk: list[bytes]) -> None:
    clean = [each.replace(b";", b"").replace(b"session", b"") for each in junk]
    body, _ = SITE.get(*clean, b"; ".join([*clean, b"__Host-session=" + SITE.signed.encode()]))
    assert VICTIM.encode() in body


def test_a_dead_cookie_beside_a_live_one_does_not_lock_out() -> None:
    """A browser sends a cookie for each path and domain: the first may be a left-over."""
    dead = SITE.sessions.signer.sign(new_session_id())
    body, _ = SITE.get(f"__Host-session={dead}; __Host-session={SITE.signed}".encode())
    assert VICTIM.encode() in body


def cookies(*values: str) -> bytes:
    return "; ".join(f"__Host-session={each}" for each in values).encode()


async def begun(user: str | None = None) -> str:
    """Return the cookie of a new session: that of a user, or an anonymous one."""
    visit = SITE.sessions.visit(())
    if user is None:
        visit.session["cart"] = 1
    else:
        visit.session.greenroom.login(user)
    await visit.save()
    assert visit.stored is not None
    return SITE.sessions.signer.sign(visit.stored.session_id)


BROWSER_KEEPS = 180
"""The cookies that Chromium and Firefox keep for one site."""


@pytest.mark.parametrize("own", [0, 90, BROWSER_KEEPS - 1])
def test_a_jar_full_of_planted_cookies_hides_none(own: int) -> None:
    """Whatever another host plants, the right cookie counts, wherever it stands in the header."""
    junk = [f"junk-{number}" for number in range(60)]
    forged = [CookieSigner(["another"], "session").sign(new_session_id()) for _ in range(60)]
    ended = [SITE.sessions.signer.sign(new_session_id()) for _ in range(40)]
    planted = [*junk, *forged, *ended, *(SITE.run(begun) for _ in range(BROWSER_KEEPS - 161))]
    planted.insert(own, SITE.signed)
    assert len(planted) == BROWSER_KEEPS
    body, _ = SITE.get(cookies(*planted))
    assert body == VICTIMS_PAGE


def test_the_planters_own_session_before_many_others_is_not_taken() -> None:
    """With many cookies between the two, that both are of users must not go unnoticed."""
    before = SITE.sessions.statistics().contested
    victims, planters = SITE.run(lambda: begun("victoria")), SITE.run(lambda: begun("mallory"))
    ended = [SITE.sessions.signer.sign(new_session_id()) for _ in range(30)]
    body, _ = SITE.get(cookies(planters, *ended, victims))
    assert body == ANONYMOUS
    assert SITE.sessions.statistics().contested == before + 1
    assert SITE.get(cookies(planters))[0] == SITE.get(cookies(victims))[0] == ANONYMOUS


def test_verifying_what_a_client_sends_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []

    def signature(key: bytes, value: bytes) -> bytes:
        made.append(value)
        return _signature(key, value)

    monkeypatch.setattr("greenroom.web.cookies._signature", signature)
    refused(cookies(*(f"junk.{number}" for number in range(1000)), "x" * 5000))
    assert not made, "what has not the form of a signed cookie takes no HMAC"
    forged = [f"{number}.{'x' * 43}" for number in range(1000)]
    refused(cookies(*forged, SITE.signed))
    assert len(made) <= (CANDIDATES_MAX + 1) * 2, "for each of two secrets"
    # Nor does a script, which is no browser, make one request ask for more sessions than that.
    refused(cookies(*(SITE.sessions.signer.sign(new_session_id()) for _ in range(CANDIDATES_MAX + 1))))


def test_a_crowd_of_signed_cookies_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    sessions = Session(secret=SECRET, store=MemoryStore())
    ids = [new_session_id() for _ in range(CROWD + 1)]
    signed = [sessions.signer.sign(each).encode() for each in ids]
    assert list(sessions.verified(signed[:CROWD])) == ids[:CROWD]
    assert not caplog.records
    assert list(sessions.verified(signed)) == ids
    assert "many cookies __Host-session" in caplog.text
    assert ids[0] not in caplog.text


def test_every_cookie_of_the_name_is_looked_at() -> None:
    values = [f"__Host-session={index}".encode() for index in range(PARTS_MAX + 20)]
    every = [b"%d" % index for index in range(PARTS_MAX)]
    assert cookie_values([b"; ".join(values)], "__Host-session") == every
    assert cookie_values(values, "__Host-session") == every
    assert cookie_values(["a=b", "__Host-session=\udcff"], "__Host-session") == [b"\xff"]
    assert cookie_values([b"session", b"sessions=1", b"xsession=1"], "session") == []


def test_a_name_that_browsers_do_not_protect_stays_one() -> None:
    """What is no space for a browser, or a prefix in other letters, is not cut off or taken for the name."""
    for before in (b"\x0b", b"\x0c", b"\xa0", b"\xe2\x80\x80", b"\x85", b"=", b"$Version=1, ", b"\x00"):
        refused(before + b"__Host-session=" + SITE.signed.encode())
    for name in (b"__host-session", b"__HOST-SESSION", b"session", b"__Host-session\x0b"):
        refused(name + b"=" + SITE.signed.encode())
    body, _ = SITE.get(b"a=b;\t __Host-session \t=\t" + SITE.signed.encode() + b" ")
    assert body == VICTIMS_PAGE
