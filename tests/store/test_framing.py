"""Messages in frames, and frames in whatever pieces arrive."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom.errors import LocalProtocolError, RemoteProtocolError
from greenroom.framing import (
    FRAME_BYTES_MAX,
    FULL_FRAME_BYTES,
    MESSAGES_PER_FRAME,
    MESSAGES_PER_FRAME_MAX,
    FrameBuffer,
    encode_frames,
    encode_greeting,
    encode_message,
    join_frames,
    messages_decoder,
)

DECODER = messages_decoder(wire.Overloaded)
HELLO = wire.Hello(wire.PROTOCOL_VERSION, wire.ROUTING_VERSION, "greenroom", wire.ROLE_CLIENT, b"s" * 16)


def message(request_id: int, size: int) -> wire.Overloaded:
    return wire.Overloaded(request_id, "x" * size)


sizes = st.lists(st.integers(0, 40) | st.sampled_from([1_000, 70_000]), min_size=1, max_size=40)


def messages_of(sizes: list[int]) -> list[wire.Overloaded]:
    return [message(request, size) for request, size in enumerate(sizes)]


def read(frames: list[bytes]) -> list[wire.Overloaded]:
    return [each for frame in frames for each in DECODER.decode(frame)]


@given(sizes, st.data())
def test_messages_come_back_in_order_from_whatever_pieces(sizes: list[int], data: st.DataObject) -> None:
    sent = messages_of(sizes)
    whole = bytes(encode_frames(sent))
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=6).map(sorted))
    buffer, frames = FrameBuffer(), []
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        frames += buffer.feed(memoryview(bytearray(whole[begin:end])))
    assert read(frames) == sent


@given(sizes)
def test_messages_encoded_before_or_not_are_joined_in_order(sizes: list[int]) -> None:
    sent = messages_of(sizes)
    encoded = [encode_message(each) if index % 3 else each for index, each in enumerate(sent)]
    frames = FrameBuffer().feed(join_frames(encoded))
    assert read(frames) == sent
    for frame in frames:
        assert len(frame) <= FULL_FRAME_BYTES + 3 or len(DECODER.decode(frame)) == 1


@pytest.mark.parametrize("count", [1, 15, 16, 255, 256, 257, 1000])
def test_no_frame_holds_more_messages_than_a_reader_takes(count: int) -> None:
    sent = messages_of([0] * count)
    for whole in (bytes(encode_frames(sent)), join_frames([encode_message(each) for each in sent])):
        frames = FrameBuffer().feed(whole)
        assert read(frames) == sent
        assert len(frames) <= -(-count // MESSAGES_PER_FRAME)
    crowd = msgspec.msgpack.encode(messages_of([0] * (MESSAGES_PER_FRAME_MAX + 1)))
    with pytest.raises(msgspec.ValidationError, match="length <= 256"):
        DECODER.decode(crowd)


@pytest.mark.parametrize("size", [40, 300, 5_000])
def test_frames_that_are_joined_are_well_filled(size: int) -> None:
    sent = messages_of([size] * 2000)
    whole = join_frames(sent)
    frames = FrameBuffer().feed(whole)
    assert read(frames) == sent
    assert len(frames) <= 4 * max(len(whole) / FULL_FRAME_BYTES, 2000 / MESSAGES_PER_FRAME_MAX)


@pytest.mark.parametrize(("size", "limit"), [(300, 1_000), (FULL_FRAME_BYTES // 5, FRAME_BYTES_MAX)])
def test_messages_that_are_long_together_are_sent_apart(size: int, limit: int) -> None:
    sent = messages_of([size] * 7)
    frames = FrameBuffer(limit).feed(encode_frames(sent, limit))
    assert read(frames) == sent
    assert len(frames) == 7


def test_a_message_longer_than_a_frame_is_refused_by_name() -> None:
    long = message(1, 500)
    for refused in (lambda: encode_frames([message(0, 1), long], 200), lambda: encode_message(long, 200)):
        with pytest.raises(LocalProtocolError, match=r"Overloaded of 50\d bytes is over .* 200 bytes"):
            refused()


def test_the_longest_message_that_is_taken_fits_a_frame() -> None:
    limit = 1000
    fits = next(each for each in (message(1, limit - cut) for cut in range(100)) if _taken(each, limit))
    (frame,) = FrameBuffer(limit).feed(join_frames([encode_message(fits, limit)]))
    assert DECODER.decode(frame) == [fits]


def _taken(each: wire.Overloaded, limit: int) -> bool:
    try:
        encode_message(each, limit)
    except LocalProtocolError:
        return False
    return True


def test_a_greeting_stands_alone() -> None:
    first, second = FrameBuffer().feed(encode_frames([HELLO, message(1, 1), message(2, 2)]))
    assert msgspec.msgpack.decode(first, type=wire.Hello) == HELLO
    assert len(DECODER.decode(second)) == 2
    (goodbye,) = FrameBuffer().feed(encode_greeting(wire.Goodbye("wrong-protocol", "upgrade")))
    assert msgspec.msgpack.decode(goodbye, type=wire.Hello | wire.Goodbye).code == "wrong-protocol"


def test_a_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    buffer = FrameBuffer(100)
    assert buffer.feed(b"\x00\x00") == []
    with pytest.raises(RemoteProtocolError, match="101 bytes was announced"):
        buffer.feed(b"\x00\x65")
