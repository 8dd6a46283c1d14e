"""Which role may say what to whom: every tag under every role, at every kind of server, and in the docs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from greenroom import wire
from greenroom.framing import messages_decoder
from greenroom_cluster.access import AT_ACTOR, AT_COORDINATOR, AT_NODE
from greenroom_cluster.coordination import messages
from greenroom_cluster.shard import messages as peering
from greenroom_cluster.shard.state import records

ROLES = (wire.ROLE_CLIENT, wire.ROLE_PEER, wire.ROLE_ADMIN, wire.ROLE_OPERATOR)
SERVERS: dict[str, Mapping[str, Any]] = {"node": AT_NODE, "actor": AT_ACTOR, "coordinator": AT_COORDINATOR}
PAGE = (Path(__file__).parents[2] / "docs/protocol.md").read_text()

# The table anew, from what each role is for: who only looks says nothing else.
CLIENT = set(range(10, 20))
ALLOWED = {
    "node": {wire.ROLE_CLIENT: {21}, wire.ROLE_ADMIN: {21}},
    "actor": {
        wire.ROLE_CLIENT: CLIENT,
        wire.ROLE_ADMIN: {20},
        wire.ROLE_OPERATOR: {22},
        wire.ROLE_PEER: {80, 82, 84},
    },
    "coordinator": {
        wire.ROLE_ADMIN: {21},
        wire.ROLE_OPERATOR: {21, 96, 100},
        wire.ROLE_PEER: {21, 90, 92, 93, 94, 95, 96, 97, 101},
    },
}


def tags() -> Iterator[int]:
    for module in (wire, peering, messages, records):
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, wire.Frame):
                tag = each.__struct_config__.tag
                if isinstance(tag, int):
                    yield tag


def takes(kinds: Any, tag: int) -> bool:
    """Whether a decoder knows this tag: then it complains of the fields, not of the tag."""
    with pytest.raises(msgspec.ValidationError) as refused:
        messages_decoder(kinds).decode(msgspec.msgpack.encode([[tag, *[None] * 20]]))
    return "Invalid value" not in str(refused.value)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_say_what_it_is_for_and_nothing_else(server: str, role: str) -> None:
    kinds = SERVERS[server].get(role)
    allowed = ALLOWED[server].get(role, set())
    assert (kinds is None) == (not allowed)
    if kinds is not None:
        assert {tag for tag in {*tags(), 0, 3, 255} if takes(kinds, tag)} == allowed


def test_the_page_shows_the_table() -> None:
    """Each message that may be sent to a server stands there with the roles that may send it."""
    [table] = re.findall(r"^\| may be sent .*?(?=\n\n)", PAGE, re.MULTILINE | re.DOTALL)
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    shown: dict[str, dict[str, set[int]]] = {server: {} for server in SERVERS}
    for name, *cells in rows:
        numbers = {int(number) for number in re.findall(r"\d+", name)}
        for role, cell in zip(header[1:], cells, strict=True):
            for server in re.findall(r"\w+", cell):
                shown[server].setdefault(role.strip("`"), set()).update(numbers)
    assert shown == ALLOWED
