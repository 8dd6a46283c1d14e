"""Options by the rules of others: what browsers do with a cookie, and what hides a secret."""

from typing import Any

import pytest

from greenroom import MemoryStore, UsageError
from greenroom.web import CookieSettings, SessionMiddleware
from tests.store.option_stage import SECRET, Hidden, app, new_session


@pytest.mark.parametrize(
    "domain",
    [
        *("shop.example:443", "https://shop.example", "*.shop.example", "shop.example/", "shop example"),
        *("127.0.0.1", "10.1", "0x7f.0.0.0x1", "[::1]", "::1", "shop.example.", "..shop.example", "", "."),
        *("-a.example", "a..example", "bücher.example", "user@shop.example", "a.example, b.example"),
        *(" shop.example", "shop.example\n", f"{'a' * 64}.example", f"{'a.' * 127}example", "shop.example?"),
    ],
)
def test_a_domain_that_no_browser_matches_is_refused(domain: str) -> None:
    with pytest.raises(UsageError, match=r"^domain is a host name"):
        new_session(domain=domain)


@pytest.mark.parametrize(
    "domain", ["shop.example", ".shop.example", "localhost", "xn--bcher-kva.example", "a_b.Example", "1.a"]
)
def test_a_domain_that_browsers_match_is_taken(domain: str) -> None:
    assert f"; Domain={domain};" in new_session(domain=domain).cookie.header("v")


@pytest.mark.parametrize(
    "path", ["", "shop", "/a b", "/shop?x", "/shop#x", "/shöp", "/a\x00", "/a;b", "/\t", "/" + "a" * 1024]
)
def test_a_path_that_no_url_has_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"^path is .* begins with a slash"):
        new_session(path=path)


@pytest.mark.parametrize(
    "name", ["__secure-a", "__HOST-a", "__Http-a", "__http-a", "__Host-Http-a", "__Secure-"]
)
def test_prefixes_count_whatever_their_case(name: str) -> None:
    with pytest.raises(UsageError, match="unless it is secure"):
        new_session(cookie_name=name, secure=False)
    assert new_session(cookie_name=name).cookie.name == name, "no second prefix"
    if not name.lower().startswith("__host-"):
        assert new_session(cookie_name=name, host_prefix=False).cookie.name == name


@pytest.mark.parametrize("name", ["__host-a", "__HOST-a", "__Host-Http-a", "__hOsT-HTTP-a"])
@pytest.mark.parametrize("options", [{"path": "/shop"}, {"domain": "shop.example"}])
def test_prefixes_of_one_host_allow_no_other_path_or_domain(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no domain"):
        new_session(cookie_name=name, **options)


@pytest.mark.parametrize("name", ["__Secure-a", "__Http-a"])
def test_the_other_prefixes_allow_them(name: str) -> None:
    assert new_session(cookie_name=name, domain="shop.example", path="/a").cookie.name == name


def test_a_name_that_leaves_no_room_for_its_value_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^cookie_name is .* at most"):
        new_session(cookie_name="a" * 4000)


@pytest.mark.parametrize("same_site", ["lax", "strict"])
def test_a_partitioned_cookie_is_one_that_frames_send(same_site: str) -> None:
    with pytest.raises(UsageError, match=r"partitioned .* frame"):
        new_session(partitioned=True, same_site=same_site)
    assert new_session(partitioned=True, same_site="none").cookie.header("v").endswith("; Partitioned")


def test_the_settings_of_a_cookie_keep_the_rules_by_themselves() -> None:
    for wrong in ({"name": "a b"}, {"domain": "10.0.0.1"}, {"name": "__host-a", "secure": False}):
        with pytest.raises(UsageError):
            CookieSettings(**wrong)


@pytest.mark.parametrize(("absolute", "age"), [(0.5, 1), (1.5, 2), (3600, 3600), (1e9, 400 * 86400)])
def test_a_persistent_cookie_is_never_dropped_at_once(absolute: float, age: int) -> None:
    header = new_session(persistent=True, idle_seconds=absolute, absolute_seconds=absolute).cookie.header("v")
    assert f"; Max-Age={age};" in header


def signed(secret: Any) -> str:
    return new_session(secret=secret).signer.sign("id")


def test_what_hides_a_secret_is_opened() -> None:
    from litestar.datastructures.secret_values import SecretString
    from pydantic import SecretStr
    from starlette.datastructures import Secret

    plain = signed(SECRET)
    for hidden in (Secret(SECRET), SecretStr(SECRET), SecretString(SECRET), [SecretStr(SECRET)], (SECRET,)):
        assert signed(hidden) == plain
        assert SessionMiddleware(app, hidden, store=MemoryStore()).session.signer.sign("id") == plain


def test_nothing_else_is_taken_for_a_secret() -> None:
    from pydantic import SecretBytes

    wrong = [
        b"0" * 32,
        7,
        {SECRET},
        {SECRET: 1},
        iter([SECRET]),
        object(),
        SecretBytes(b"0" * 32),
        [[SECRET]],
    ]
    for secret in [
        *wrong,
        [None],
        [SECRET, b"0" * 32],
        True,
        Hidden(),
        "\ud800" * 32,
        (each for each in "ab"),
    ]:
        with pytest.raises(UsageError, match=r"^secret is ") as caught:
            new_session(secret=secret)
        assert SECRET not in str(caught.value)
        with pytest.raises(UsageError, match=r"^secret_key is "):
            SessionMiddleware(app, secret, store=MemoryStore())


def test_an_empty_secret_is_refused_whatever_holds_it() -> None:
    from pydantic import SecretStr

    for secret in ("", [], SecretStr(""), [SECRET, ""]):
        with pytest.raises(UsageError, match="none may be empty"):
            new_session(secret=secret)
