"""What the dashboard shows after one look, and after several."""

import msgspec
from msgspec.structs import replace

from greenroom_cluster.dashboard.board import GAP_SECONDS, KEPT_SECONDS, Board
from greenroom_cluster.status_document import status_document
from tests.cluster.dashboard.looks import WHOLE, actor, look, shard, told, with_node, with_shards


def test_before_the_first_look_nothing_is_shown() -> None:
    assert Board().parts() == {}
    assert Board().points(0.0) == []


def test_one_look_shows_the_state_and_no_rates() -> None:
    board = Board()
    board.note(look(WHOLE, 1.0))
    parts = board.parts()
    assert parts["cluster"]["healthy"]
    assert parts["pace"]["records"] is None
    assert [each["records"] for each in parts["actors"]] == [None, None]
    assert parts["transitions"] == []


def test_what_is_shown_of_shards_and_actors_is_what_status_tells() -> None:
    board = Board()
    found = with_shards(shard(0), shard(1, "b/0", "", state="alone", epoch=9))
    board.note(look(found, 1.0))
    document = msgspec.json.decode(msgspec.json.encode(status_document(found)))
    parts = board.parts()
    for told_of in document["shards"]:
        shown = parts[f"shard {told_of['shard']}"]
        assert shown["state"] == {"full": "whole"}.get(told_of["state"], told_of["state"])
        for key in ("epoch", "primary", "backups", "sessions"):
            assert shown[key] == told_of[key], key
    assert [each["slot"] for each in parts["actors"]] == [each["slot"] for each in document["actors"]]
    assert parts["cluster"]["healthy"] == document["healthy"]


def test_two_looks_show_rates_and_points() -> None:
    board = Board()
    board.note(look(WHOLE, 1.0, told(10, [])))
    shards = (replace(WHOLE.shards[0], appended=150), WHOLE.shards[1])
    board.note(look(replace(WHOLE, shards=shards), 3.0, told(30, [])))
    pace = board.parts()["pace"]
    assert pace["records"] == 25.0
    assert pace["traffic"]["requests_per_second"] == 10.0
    assert pace["of"] == ["a/0"]
    (point,) = board.points(1.0)
    assert point["at"] == "2026-03-01T12:00:03+00:00"
    assert board.points(3.0) == []


def test_points_are_kept_for_minutes_and_no_longer() -> None:
    board = Board()
    for second in range(int(KEPT_SECONDS) + 100):
        board.note(look(WHOLE, float(second)))
    assert KEPT_SECONDS <= len(board.points(0.0)) <= KEPT_SECONDS + 1


def test_what_changed_while_nobody_watched_is_told_without_a_rate() -> None:
    board = Board()
    board.note(look(WHOLE, 1.0))
    board.note(look(with_node("b", "down"), 2.0 + GAP_SECONDS))
    parts = board.parts()
    assert parts["pace"]["records"] is None
    assert [each["what"] for each in parts["transitions"]] == ["node b is down, was up"]


def test_a_lost_actor_is_the_reason_of_what_its_shards_do_some_looks_later() -> None:
    """The map tells first that it was started again, and then what became of its shards."""
    board = Board()
    again = replace(WHOLE, actors=(actor("a/0", "another"), actor("b/0")))
    board.note(look(WHOLE, 1.0))
    board.note(look(again, 2.0))
    board.note(look(replace(again, shards=(shard(0, "b/0", "", epoch=4), WHOLE.shards[1])), 3.0))
    moved, started = board.parts()["transitions"]
    assert started["what"] == "actor a/0 was started again"
    assert moved["what"].startswith("shard 0, epoch 4: primary a/0 -> b/0")
    assert moved["why"] == "a/0 was lost"


def test_joins_are_shown_with_how_far_they_have_come_or_why_not() -> None:
    board = Board()
    joining = shard(0, backup="", state="joining", joiner="b/0", join_progress=(30, 100))
    refused = shard(1, backup="", state="alone", join_refusal="no memory", join_refused_by="b/0")
    board.note(look(with_shards(joining, refused, shard(2)), 1.0))
    assert board.parts()["joins"] == [
        {"shard": 0, "from": "a/0", "to": "b/0", "sent": 30, "of": 100, "refusal": ""},
        {"shard": 1, "from": "a/0", "to": "b/0", "sent": 0, "of": 0, "refusal": "no memory"},
    ]


def test_skew_is_told_of_nodes_actors_and_shards() -> None:
    board = Board()
    found = with_shards(shard(0, sessions=30), shard(1, sessions=10))
    board.note(look(replace(found, actors=(actor("a/0", sessions=30), actor("b/0", sessions=10))), 1.0))
    assert [(each["of"], each["most_name"], each["ratio"]) for each in board.parts()["skew"]] == [
        ("node", "a", 1.5),
        ("actor", "a/0", 1.5),
        ("shard", "0", 1.5),
    ]


def test_all_of_it_is_json() -> None:
    board = Board()
    board.note(look(WHOLE, 1.0, told(1, [1])))
    board.note(look(WHOLE, 2.0, told(2, [1, 2])))
    assert msgspec.json.decode(msgspec.json.encode(board.parts()))["cluster"]["name"] == "shop"
