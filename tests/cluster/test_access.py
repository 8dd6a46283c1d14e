"""Which message each certificate and each role may say where: every tag of the registry, and in the docs.

`CELLS` is the table anew, from what each holder is for. A message without a row there fails.
"""

import os
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

import greenroom
import greenroom_cluster
from greenroom import wire
from greenroom.ending_messages import WatchSession
from greenroom.framing import messages_decoder
from greenroom.identities import IDENTITY_ROLES, Identity, IdentityRole
from greenroom.near_messages import GetNear
from greenroom_cluster.access import (
    AT_ACTOR,
    AT_COORDINATOR,
    AT_NODE,
    ONLY_AT_NODES,
    sees_processes,
)
from greenroom_cluster.links.handshake import ROLES
from greenroom_cluster.shard.clients.operations import Operation

PAGE = Path(__file__).parents[2] / "docs/protocol.md"
BEGIN, END = "<!-- who may say what -->\n", "<!-- end of who may say what -->\n"

HELLO_ROLES = (wire.ROLE_CLIENT, wire.ROLE_PEER, wire.ROLE_ADMIN, wire.ROLE_OPERATOR)
SERVERS: dict[str, Mapping[str, Any]] = {"node": AT_NODE, "actor": AT_ACTOR, "coordinator": AT_COORDINATOR}
REFUSED: dict[str, frozenset[IdentityRole]] = {"actor": ONLY_AT_NODES, "coordinator": ONLY_AT_NODES}

Row = dict[IdentityRole, set[str]]

# What is said in answer, in logs, or only first.
NOBODY: Row = {}
SESSIONS: Row = {"client": {"actor"}}
PEERS: Row = {"node": {"actor"}}
REPORTS: Row = {"node": {"coordinator"}}
OPERATIONS: Row = {"operator": {"actor"}}
ORDERS: Row = {"operator": {"coordinator"}}
CELLS: dict[int, Row] = {
    **dict.fromkeys((1, 2, 3), NOBODY),
    **dict.fromkeys(range(10, 20), SESSIONS),
    20: {"node": {"actor"}, "operator": {"actor"}, "observer": {"actor"}},
    21: {
        "client": {"node"},
        "node": {"node", "coordinator"},
        "coordinator": {"node"},
        "operator": {"node", "coordinator"},
        "observer": {"node", "coordinator"},
    },
    **dict.fromkeys((22, 23, 24, 25, 33, 34), OPERATIONS),
    **dict.fromkeys(range(26, 33), SESSIONS),
    **dict.fromkeys(range(40, 58), NOBODY),
    **dict.fromkeys((60, 61), NOBODY),
    **dict.fromkeys((70, 71, 72, 73), NOBODY),
    **dict.fromkeys((80, 82, 84), PEERS),
    **dict.fromkeys((81, 83, 85, 86), NOBODY),
    **dict.fromkeys((90, 92, 93, 94, 95, 97, 101), REPORTS),
    **dict.fromkeys((91, 98, 99), NOBODY),
    # A node's is answered, by a refusal: earlier releases of the command sent it so.
    96: {"node": {"coordinator"}, "operator": {"coordinator"}},
    100: ORDERS,
}


@cache
def registry() -> dict[int, set[str]]:
    """Return the names of all messages by their tags, from every module of both packages."""
    for package in (greenroom, greenroom_cluster):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(("greenroom.integrations", "greenroom.testing")) and (
                "__main__" not in module.name
            ):
                import_module(module.name)
    found: dict[int, set[str]] = {}
    for each in below(wire.Frame):
        tag = each.__struct_config__.tag
        if isinstance(tag, int) and each.__module__.startswith("greenroom"):  # tests have some of their own
            found.setdefault(tag, set()).add(each.__name__)
    return found


def below(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from below(each)


def takes(kinds: Any, tag: int) -> bool:
    """Whether a decoder knows this tag: then it complains of the fields, not of the tag."""
    with pytest.raises(msgspec.ValidationError) as refused:
        messages_decoder(kinds).decode(msgspec.msgpack.encode([[tag, *[None] * 20]]))
    return "Invalid value" not in str(refused.value)


def taken(server: str, holder: IdentityRole) -> set[int]:
    """Return the tags that a server takes from the holder of a certificate in this role."""
    if holder in REFUSED.get(server, frozenset()):
        return set()
    tags: set[int] = set()
    for role in ROLES[holder]:
        if (kinds := SERVERS[server].get(role)) is not None:
            tags |= {tag for tag in {*registry(), 0, 255} if takes(kinds, tag)}
    return tags


def test_every_message_has_a_row() -> None:
    """Whoever adds a message says who may send it where."""
    assert CELLS.keys() == registry().keys()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("holder", IDENTITY_ROLES)
def test_a_certificate_may_say_what_it_is_for_and_nothing_else(server: str, holder: IdentityRole) -> None:
    assert taken(server, holder) == {tag for tag, row in CELLS.items() if server in row.get(holder, ())}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("role", HELLO_ROLES)
def test_a_role_may_say_what_it_is_for_and_nothing_else(server: str, role: str) -> None:
    """Without certificates a role is what its hello says, and may say what its certificates may."""
    kinds = SERVERS[server].get(role)
    holders = [holder for holder in IDENTITY_ROLES if role in ROLES[holder]]
    allowed = {tag for tag, row in CELLS.items() if any(server in row.get(each, ()) for each in holders)}
    if role == wire.ROLE_ADMIN:
        # Operators and nodes have two roles, and by this one only look.
        allowed &= {20, 21}
    if role in {wire.ROLE_OPERATOR, wire.ROLE_PEER}:
        allowed -= {20}
        allowed -= {21} if server == "node" else set()
    assert (kinds is None) == (not allowed)
    if kinds is not None:
        assert {tag for tag in {*registry(), 0, 255} if takes(kinds, tag)} == allowed


def test_an_operator_touches_no_session_of_an_app() -> None:
    of_sessions = {
        each.__struct_config__.tag for each in (wire.Get, GetNear, WatchSession, *get_args(wire.Mutation))
    }
    for server in SERVERS:
        assert not taken(server, "operator") & of_sessions
    assert not {each.__struct_config__.tag for each in get_args(Operation)} & of_sessions


@pytest.mark.parametrize(
    ("role", "holder", "sees"),
    [
        (wire.ROLE_CLIENT, None, False),
        (wire.ROLE_CLIENT, "client", False),
        (wire.ROLE_ADMIN, "observer", False),
        (wire.ROLE_ADMIN, "operator", True),
        (wire.ROLE_OPERATOR, "operator", True),
        (wire.ROLE_ADMIN, "coordinator", True),
        (wire.ROLE_PEER, "node", True),
        (wire.ROLE_ADMIN, None, True),
        (wire.ROLE_PEER, None, True),
    ],
)
def test_who_only_looks_does_not_see_processes(role: str, holder: IdentityRole | None, sees: bool) -> None:
    identity = None if holder is None else Identity("shop", holder, "one")
    assert sees_processes(role, identity) is sees


def drawn() -> str:
    """Draw the table: a row for each message that anybody may send, a column for each certificate."""
    heads = [
        f"{holder} ({', '.join(f'`{role}`' for role in sorted(ROLES[holder]))})" for holder in IDENTITY_ROLES
    ]
    lines = ["| may be sent to | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    table = {(server, holder): taken(server, holder) for server in SERVERS for holder in IDENTITY_ROLES}
    kinds = {
        kind for roles in SERVERS.values() for each in roles.values() for kind in get_args(each) or (each,)
    }
    for tag, name in sorted((kind.__struct_config__.tag, kind.__name__) for kind in kinds):
        cells = [
            ", ".join(server for server in SERVERS if tag in table[server, holder])
            for holder in IDENTITY_ROLES
        ]
        if any(cells):
            lines.append(f"| `{name}` {tag} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_table() -> None:
    """`GREENROOM_UPDATE_PAGES=1` draws it anew."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    shown, _, after = rest.partition(END)
    if os.environ.get("GREENROOM_UPDATE_PAGES"):
        PAGE.write_text(before + BEGIN + drawn() + END + after)
        return
    assert shown == drawn()
