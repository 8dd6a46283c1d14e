"""How many connections a listener serves, of whom."""

import pytest

from greenroom import wire
from greenroom.errors import UsageError
from greenroom_cluster.config import ActorOptions
from greenroom_cluster.links.places import BESIDE_MAX, BY_SECRET, Places

WEB, SHOP = "greenroom://test/client/web", "greenroom://test/client/shop"
LOOKER = "greenroom://test/observer/monitoring"


def taken(places: Places, holder: str, role: str = wire.ROLE_CLIENT, most: int = 1000) -> int:
    """Let a holder take all the places that it gets; return how many."""
    count = 0
    while count < most and places.refusal(role, holder) is None:
        places.take(role, holder)
        count += 1
    return count


def code(places: Places, holder: str, role: str = wire.ROLE_CLIENT) -> str:
    refusal = places.refusal(role, holder)
    return "" if refusal is None else refusal.code


def test_one_at_its_limit_takes_no_place_of_another() -> None:
    places = Places(100, 10, several=True)
    assert taken(places, WEB) == 10
    assert code(places, WEB) == "too-many-of-identity"
    assert taken(places, SHOP) == 10
    places.give_back(wire.ROLE_CLIENT, WEB)
    assert (code(places, WEB), code(places, SHOP)) == ("", "too-many-of-identity")
    assert places.served == {wire.ROLE_CLIENT: 19}


@pytest.mark.parametrize(("clients_max", "most"), [(100, 75), (4, 3), (3, 2), (2, 1), (1, 1)])
def test_a_quarter_is_for_others_however_few_there_are(clients_max: int, most: int) -> None:
    assert taken(Places(clients_max, 2000, several=True), WEB) == most


def test_all_together_are_bounded_too() -> None:
    places = Places(10, 4, several=True)
    assert [taken(places, holder) for holder in (WEB, SHOP, "third")] == [4, 4, 2]
    assert (code(places, "third"), code(places, "")) == ("too-many-connections", "too-many-connections")


def test_who_proves_the_secret_is_one_holder_and_has_all_places() -> None:
    assert taken(Places(10, 4), BY_SECRET) == 4
    assert taken(Places(10, 2000), BY_SECRET) == 10


def test_who_proves_nothing_is_nobody_in_particular() -> None:
    assert taken(Places(10, 4), "") == 10


def test_the_room_beside_clients_is_shared_and_peers_have_the_rest() -> None:
    places = Places(100, 10, several=True)
    assert taken(places, LOOKER, wire.ROLE_ADMIN) == BESIDE_MAX
    assert code(places, LOOKER, wire.ROLE_OPERATOR) == "too-many-of-identity"
    assert code(places, "greenroom://test/operator/ada", wire.ROLE_OPERATOR) == ""
    assert taken(places, "greenroom://test/node/n1", wire.ROLE_PEER) == 1000
    assert taken(places, WEB) == 10, "clients have places of their own"


@pytest.mark.parametrize(
    ("places", "most", "mend"),
    [
        (Places(100, 10, several=True), 10, "run fewer, or raise --identity-connections-max"),
        (Places(4, 2000, several=True, scarce=True), 3, "raise its limit of open files (ulimit -n)"),
        (Places(4, 2000, several=True), 3, "run fewer"),
    ],
)
def test_a_refusal_names_whom_and_what_to_change(places: Places, most: int, mend: str) -> None:
    taken(places, WEB)
    refusal = places.refusal(wire.ROLE_CLIENT, WEB)
    assert refusal is not None
    assert f"serves {most} clients of {WEB} already" in refusal.message
    assert refusal.message.endswith(mend)


@pytest.mark.parametrize("count", [0, -1, 10_001])
def test_an_option_that_makes_no_sense_is_refused_by_name(count: int) -> None:
    ActorOptions(identity_connections_max=10_000).check()
    with pytest.raises(UsageError, match="--identity-connections-max must be 1 to 10000"):
        ActorOptions(identity_connections_max=count).check()


def test_nothing_is_kept_of_who_has_gone() -> None:
    places = Places(100, 10, several=True)
    for number in range(50):
        holder = f"greenroom://test/client/app{number}"
        places.take(wire.ROLE_CLIENT, holder)
        places.give_back(wire.ROLE_CLIENT, holder)
    assert not places._of_one
