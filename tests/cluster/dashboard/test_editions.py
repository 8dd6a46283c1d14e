"""Which parts a viewer is sent."""

import msgspec

from greenroom_cluster.dashboard.editions import Editions, event, greeting


def names(editions: Editions, number: int) -> set[str]:
    return set(editions.since(number))


def test_a_new_viewer_is_sent_all_parts() -> None:
    editions = Editions()
    editions.publish({"a": 1, "b": [2]})
    editions.publish({"a": 1, "b": [3]})
    assert names(editions, 0) == {"a", "b"}
    assert msgspec.json.decode(editions.since(0)["b"]) == [3]


def test_afterwards_only_what_has_changed() -> None:
    editions = Editions()
    editions.publish({"a": 1, "b": [2]})
    seen = editions.number
    editions.publish({"a": 1, "b": [2]})
    assert names(editions, seen) == set()
    editions.publish({"a": 1, "b": [3]})
    assert names(editions, seen) == {"b"}


def test_who_missed_editions_is_sent_what_they_changed_once() -> None:
    editions = Editions()
    editions.publish({"a": 1, "b": 1, "c": 1})
    seen = editions.number
    for value in range(2, 50):
        editions.publish({"a": value, "b": 2, "c": 1})
    assert names(editions, seen) == {"a", "b"}
    assert msgspec.json.decode(editions.since(seen)["a"]) == 49


def test_a_part_that_is_gone_is_sent_to_nobody() -> None:
    editions = Editions()
    editions.publish({"a": 1, "b": 1})
    editions.publish({"a": 1})
    assert names(editions, 0) == {"a"}


def test_an_event_is_two_lines_whatever_it_holds() -> None:
    """A line break in a text would otherwise end the line, and let what follows pass as a field."""
    told = event("look", {"text": "a\nevent: other\r\ndata: x\u2028"})
    assert told.startswith(b"event: look\ndata: {")
    assert told.endswith(b"}\n\n")
    assert told.count(b"\n") == 3
    assert b"\r" not in told
    assert greeting() == b"retry: 2000\n\n"
