"""How the file of tokens is written and read."""

from pathlib import Path

import pytest

from greenroom.errors import UsageError
from greenroom.identities import Identity
from greenroom.tokens import new_token
from greenroom_cluster.tokens.entries import TOKENS_MAX, line_of, parse_entries, table_of, with_revoked
from greenroom_cluster.tokens.files import Tokens, write_text
from greenroom_cluster.tokens.table import Bearer

WEB = Identity("shop", "client", "web", "shops")
TOKEN = new_token("a", lambda count: b"s" * count)
BEARER = Bearer("a", TOKEN.digest, WEB, 1_800_000_000.0)
LINE = f"a {TOKEN.digest.hex()} greenroom://shop/client/web?ns=shops 2027-01-15T08:00:00Z"
OBSERVER = f"b {'0' * 64} greenroom://shop/observer/grafana 2027-01-15T08:00:00+00:00"
TEXT = f"# tokens of the shop\n\n{LINE}  # of the first host\n{OBSERVER}\n"


def test_entries_are_written_as_they_are_read() -> None:
    assert line_of(BEARER) == LINE
    assert parse_entries(LINE) == [BEARER]
    first, second = parse_entries(TEXT)
    assert first == BEARER
    assert (second.identity.role, second.ends_at) == ("observer", BEARER.ends_at)
    assert parse_entries("") == []


def test_revoked_entry_stays_and_says_so() -> None:
    text = with_revoked(TEXT, ["a"])
    assert [each.revoked for each in parse_entries(text)] == [True, False]
    assert f"{LINE} revoked # of the first host" in text.splitlines()[2]
    assert text.splitlines()[0] == "# tokens of the shop"
    assert with_revoked(text, ["a"]) == text
    assert line_of(parse_entries(text)[0]) == f"{LINE} revoked"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a", "an entry is ID SHA256"),
        (f"{LINE} twice revoked", "an entry is ID SHA256"),
        (LINE.replace("a ", "a.b ", 1), "begins with the id"),
        (LINE.replace(TOKEN.digest.hex(), "beef"), "begins with the id"),
        (LINE.replace("client/web?ns=shops", "node/web"), "not for node: that one has a certificate"),
        (LINE.replace("client/web?ns=shops", "operator/ann"), "not for operator"),
        (LINE.replace("client/web?ns=shops", "coordinator/c"), "not for coordinator"),
        (LINE.replace("/client", ""), "the third word"),
        (LINE.replace("2027-01-15T08:00:00Z", "2027-01-15T08:00:00"), "the fourth word"),
        (LINE.replace("2027-01-15T08:00:00Z", "tomorrow"), "the fourth word"),
        (LINE, "there is a token a above"),
    ],
)
def test_what_is_no_entry_is_refused_by_its_line(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"line 5: .*{words}"):
        parse_entries(f"{TEXT}{line}\n")


def test_token_in_the_place_of_anything_is_not_shown() -> None:
    secret = TOKEN.written().decode().strip()
    for place in range(4):
        words = LINE.split()
        words[place] = secret
        with pytest.raises(UsageError) as caught:
            parse_entries(" ".join(words))
        assert secret[-20:] not in str(caught.value)


def test_file_of_another_cluster_is_refused() -> None:
    with pytest.raises(UsageError, match="token a is for the cluster 'shop', not 'mall': remove its line"):
        table_of(TEXT, "mall")
    assert len(table_of(TEXT, "shop")) == 2


def test_file_of_too_many_tokens_is_refused() -> None:
    lines = [LINE.replace("a ", f"t{number} ", 1) for number in range(TOKENS_MAX + 1)]
    with pytest.raises(UsageError, match="more than 10000 tokens"):
        parse_entries("\n".join(lines))


def test_bad_file_keeps_the_tokens_that_were_read(tmp_path: Path) -> None:
    path, refused, taken = tmp_path / "tokens", list[str](), list[int]()
    write_text(path, TEXT)
    assert path.stat().st_mode & 0o777 == 0o600
    tokens = Tokens(path, "shop", refused.append, lambda table: taken.append(len(table)))
    for text, mode in ((f"{TEXT}{LINE}\n", 0o600), (TEXT, 0o644)):
        write_text(path, text)
        path.chmod(mode)
        assert not tokens.reload()
        assert len(tokens.current()) == 2
    assert [("line 5" in each, "mode 0644" in each) for each in refused] == [(True, False), (False, True)]
    assert all("--tokens" in each and "stays in use" in each for each in refused)
    path.chmod(0o600)
    write_text(path, LINE)
    assert tokens.reload()
    assert (len(tokens.current()), taken) == (1, [1])


def test_file_that_others_may_read_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    write_text(path, TEXT)
    path.chmod(0o640)
    with pytest.raises(UsageError, match=r"--tokens \(GREENROOM_TOKENS\): .*has the mode 0640"):
        Tokens(path, "shop", print)
    with pytest.raises(UsageError, match="is not there"):
        Tokens(tmp_path / "none", "shop", print)
