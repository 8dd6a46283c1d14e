"""How the file of tokens is written: one entry a line. Pure.

    ID SHA256 greenroom://CLUSTER/client/NAME?ns=NAMESPACE 2027-03-01T00:00:00Z [revoked]

SHA256 is the digest of the whole token, in hexadecimal. What follows a # is a comment.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

from greenroom.errors import UsageError
from greenroom.identities import Identity, parse_identity
from greenroom.tokens import ID_PATTERN
from greenroom_cluster.tokens.table import TOKEN_ROLES, Bearer, TokenTable

TOKENS_MAX = 10_000
REVOKED = "revoked"

_ID = re.compile(ID_PATTERN, re.ASCII)
_DIGEST = re.compile("[0-9a-fA-F]{64}", re.ASCII)
_FORM = "ID SHA256 greenroom://CLUSTER/ROLE/NAME END, and perhaps the word revoked"


def parse_entries(text: str) -> list[Bearer]:
    """Return the entries of a file. Raises UsageError, naming the line, for whatever cannot be one."""
    found: dict[str, Bearer] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            entry = _entry(words)
        except UsageError as error:
            raise UsageError(f"line {number}: {error}") from None
        if entry.token_id in found:
            raise UsageError(f"line {number}: there is a token {entry.token_id} above")
        found[entry.token_id] = entry
    if len(found) > TOKENS_MAX:
        raise UsageError(f"it holds more than {TOKENS_MAX} tokens: remove those that have ended")
    return list(found.values())


def table_of(text: str, cluster: str) -> TokenTable:
    """Return the tokens of a cluster in the text of a file. Raises UsageError as `parse_entries` does."""
    bearers = parse_entries(text)
    for each in bearers:
        if each.identity.cluster != cluster:
            raise UsageError(
                f"the token {each.token_id} is for the cluster {each.identity.cluster!r}, not {cluster!r}: "
                "remove its line, or name the file of this cluster"
            )
    return TokenTable(bearers)


def line_of(bearer: Bearer) -> str:
    """Return the line of an entry."""
    words = [bearer.token_id, bearer.digest.hex(), bearer.identity.uri, end_text(bearer.ends_at)]
    return " ".join(words + [REVOKED] * bearer.revoked)


def end_text(ends_at: float) -> str:
    """Return the end of a token as a file has it, to the second."""
    return datetime.fromtimestamp(int(ends_at), UTC).isoformat().replace("+00:00", "Z")


def with_entry(text: str, bearer: Bearer) -> str:
    """Return the text of a file with one entry more."""
    between = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{between}{line_of(bearer)}\n"


def with_revoked(text: str, token_ids: Iterable[str]) -> str:
    """Return the text of a file with these tokens revoked; all else in it stays as it is."""
    wanted = set(token_ids)
    lines = []
    for line in text.splitlines():
        entry, mark, comment = line.partition("#")
        words = entry.split()
        if words and words[0] in wanted and words[-1] != REVOKED:
            line = f"{entry.rstrip()} {REVOKED}{f' {mark}{comment}' if mark else ''}"
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def check_role(identity: Identity) -> None:
    """Raise UsageError unless a token may be that of this identity."""
    if identity.role not in TOKEN_ROLES:
        raise UsageError(
            f"a token is for the roles {' and '.join(TOKEN_ROLES)}, not for {identity.role}: that one has a "
            "certificate"
        )


def _entry(words: list[str]) -> Bearer:
    revoked = words[-1] == REVOKED
    if len(words) != 4 + revoked:
        raise UsageError(f"an entry is {_FORM}")
    token_id, digest, uri, end = words[:4]
    if _ID.fullmatch(token_id) is None or _DIGEST.fullmatch(digest) is None:
        raise UsageError(
            "an entry begins with the id of a token and the SHA-256 of it, in 64 hexadecimal digits"
        )
    identity = _identity(uri)
    check_role(identity)
    return Bearer(token_id, bytes.fromhex(digest), identity, _end(end), revoked)


def _identity(uri: str) -> Identity:
    try:
        return parse_identity(uri)
    except UsageError:
        # Not quoted, nor is anything else: somebody may have put a token there.
        raise UsageError(
            "the third word of an entry is whose the token is: greenroom://CLUSTER/client/NAME?ns=NAMESPACE "
            "or greenroom://CLUSTER/observer/NAME"
        ) from None


def _end(text: str) -> float:
    end = None
    with suppress(ValueError):
        end = datetime.fromisoformat(text)
    if end is None or end.tzinfo is None:
        raise UsageError("the fourth word of an entry is when the token ends, as in 2027-03-01T00:00:00Z")
    return end.timestamp()
