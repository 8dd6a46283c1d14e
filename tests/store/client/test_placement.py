"""What the dialog says of a request's length without measuring it."""

from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom.dialog.placement import bytes_at_most
from greenroom.framing import encode_message

ids = st.integers(0, (1 << 63) - 1)
points = st.integers(0, (1 << 16) - 1)
digests = st.binary(min_size=32, max_size=32)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=256)
times = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)

gets = st.builds(wire.Get, ids, points, digests)
updates = st.builds(
    wire.Update,
    ids,
    ids,
    st.integers(0, 300_000),
    points,
    digests,
    st.none() | texts,
    times,
    texts,
    st.binary(max_size=300) | st.integers(1, 1 << 17).map(bytes),
    st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
)


@given(gets | updates)
def test_no_request_is_longer_than_is_said(request: wire.Get | wire.Update) -> None:
    assert len(encode_message(request)) <= bytes_at_most(request)


def test_the_longest_are_not_longer_than_is_said() -> None:
    most = (1 << 63) - 1
    get = wire.Get(most, 65535, b"d" * 32)
    user = label = "\U0001f600" * 256
    update = wire.Update(most, most, most, 65535, b"d" * 32, user, -(1 << 62), label, bytes(1 << 17), most)
    for longest in (get, update):
        assert bytes_at_most(longest) - 64 < len(encode_message(longest)) <= bytes_at_most(longest)
