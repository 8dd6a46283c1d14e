"""The answers that a client has not confirmed."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom_cluster.shard.state.kept_replies import ClientTable
from greenroom_cluster.shard.state.memory import CLIENT_BYTES
from greenroom_cluster.shard.state.records import KeptReply


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 99)), max_size=60),
    st.integers(0, 40),
)
def test_kept_answers_are_counted_as_if_all_were_looked_through(
    moves: list[tuple[int, int, int]], asked: int
) -> None:
    """Also where a request is answered twice or out of order, or was confirmed before."""
    table, model, confirmed = ClientTable(), dict[int, int](), 0
    for number, low, size in moves:
        confirmed = max(confirmed, low)
        kept = KeptReply(b"c", number, wire.EncodedSession(number, msgspec.Raw(bytes(size))))
        table.keep(kept, low, 0)
        client = table.by_id[b"c"]
        assert table.charged_bytes == CLIENT_BYTES + client.charged_bytes
        model = {each: size for each, size in {**model, number: size}.items() if each >= confirmed}
        assert client.replies.keys() == model.keys()
        assert client.kept_bytes == sum(model.values())
        left = [size for each, size in model.items() if each >= asked]
        assert client.kept_from(asked) == (len(left), sum(left))
