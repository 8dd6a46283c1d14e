"""A session that its connection held and has patched is held again, with the answer and with no other."""

from typing import Any

from greenroom import wire
from greenroom.near_messages import EncodedHeld, GetNear, NearAck
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.messages import PrepareOk
from greenroom_cluster.shard.state.stored import decoded
from tests.cluster.shard.probe import ALICE, B
from tests.cluster.shard.test_near import HOLDER, OTHER, Stage

VALUE = b"\x01"


def patch(stage: Stage) -> wire.Patch:
    number = stage.number()
    return wire.Patch(number, number, 0, 0, ALICE, ((("a",), VALUE),), (), (), None, None)


def patched(stage: Stage, connection: int, *, commit: bool = True) -> int:
    """Have a connection patch the session; return the number of that request."""
    request = patch(stage)
    stage.write(request, connection, commit=commit)
    return request.request_id


def test_who_patches_what_it_holds_goes_on_holding_it() -> None:
    stage = Stage()
    answer = stage.answered(patched(stage, HOLDER), HOLDER)
    assert isinstance(answer, EncodedHeld)
    assert decoded(answer.state).data == b"\x81\xa1a\x01"
    assert stage.told() == []
    number = stage.update()
    assert [each.digests for each in stage.told()] == [(ALICE,)]
    assert stage.answered(number) is None, "it waits for who has patched it before"


def test_who_patches_what_it_does_not_hold_is_answered_plainly() -> None:
    stage = Stage()
    number = patched(stage, OTHER)
    stage.ask(HOLDER, NearAck(stage.told()[0].number))
    assert isinstance(stage.answered(number, OTHER), wire.Session)


def test_a_session_that_is_about_to_change_again_is_not_held() -> None:
    stage = Stage()
    first = patched(stage, HOLDER, commit=False)
    (sent,) = stage.probe.prepares()
    second = stage.number()
    stage.ask(OTHER, wire.Delete(second, second, 0, 0, ALICE))
    later = stage.probe.prepares()
    for each in (sent, *later):
        stage.note(stage.probe.step(ins.PeerMessages(B, [PrepareOk(each.batch)])))
    stage.commit()
    assert isinstance(stage.answered(first, HOLDER), wire.Session)
    assert stage.told() == []
    assert isinstance(stage.answered(second, OTHER), wire.Written)


def test_a_patch_that_waits_for_others_is_held_once_it_is_told() -> None:
    stage = Stage()
    assert stage.get(OTHER) == 1
    stage.beacon(OTHER)
    number = patched(stage, HOLDER)
    assert stage.answered(number, HOLDER) is None
    stage.ask(OTHER, NearAck(stage.told(OTHER)[0].number))
    assert isinstance(stage.answered(number, HOLDER), EncodedHeld)


def test_what_has_changed_while_a_patch_waited_is_not_held() -> None:
    stage = Stage()
    assert stage.get(OTHER) == 1
    stage.beacon(OTHER)
    number = patched(stage, HOLDER)
    gone = stage.number()
    stage.write(wire.Delete(gone, gone, 0, 0, ALICE))
    stage.ask(OTHER, NearAck(stage.told(OTHER)[0].number))
    assert isinstance(stage.answered(number, HOLDER), wire.Session)
    assert stage.answered(gone) is not None


def test_nothing_is_held_for_a_connection_that_is_gone() -> None:
    stage = Stage()
    assert stage.get(OTHER) == 1
    stage.beacon(OTHER)
    number = patched(stage, HOLDER)
    stage.note(stage.probe.step(ins.ConnectionClosed(HOLDER)))
    stage.ask(OTHER, NearAck(stage.told(OTHER)[0].number))
    assert isinstance(stage.answered(number, HOLDER), wire.Session)
    later = stage.update()
    assert isinstance(stage.answered(later), wire.Written), "nobody holds it"


def test_a_kept_reply_is_not_held() -> None:
    stage = Stage()
    request = patch(stage)
    stage.write(request, HOLDER)
    assert isinstance(stage.answered(request.request_id, HOLDER), EncodedHeld)
    (again,) = stage.ask(HOLDER, request)
    assert isinstance(again, wire.Session)


def test_a_patch_that_fails_holds_nothing() -> None:
    stage = Stage()
    number = stage.number()
    stage.write(
        wire.Patch(number, number, 0, 0, ALICE, (), (), ((("a",), VALUE),), None, None), connection=HOLDER
    )
    assert isinstance(stage.answered(number, HOLDER), wire.Failed)
    assert isinstance(stage.answered(stage.update()), wire.Written)


def test_a_patch_within_a_namespace_is_held_there() -> None:
    stage = Stage()

    def ask(connection: int, request: Any) -> Any:
        stage.ask(connection, request, client=b"t" * 16, namespace="shop")
        stage.commit()
        return stage.answered(request.request_id, connection)

    made = wire.Create(stage.number(), 1, 0, 0, ALICE, None, 0, 1 << 60, None, "", b"\x80")
    assert isinstance(ask(7, made), wire.Written)
    assert isinstance(ask(7, GetNear(stage.number(), 0, ALICE, -1)), EncodedHeld)
    assert isinstance(ask(7, patch(stage)), EncodedHeld)
    assert ask(8, wire.Delete(stage.number(), 1, 0, 0, ALICE)) is not None
    assert [each.digests for each in stage.told(7)] == [(ALICE,)]
