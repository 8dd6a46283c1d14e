"""The answers that a client has not confirmed."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom_cluster.shard.records import KeptResult
from greenroom_cluster.shard.results import Client


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 99)), max_size=60),
    st.integers(0, 40),
)
def test_kept_answers_are_counted_as_if_all_were_looked_through(
    moves: list[tuple[int, int, int]], asked: int
) -> None:
    """Also where a request is answered twice or out of order, or was confirmed before."""
    client, model, confirmed = Client(0, 0, 0), dict[int, int](), 0
    for number, low, size in moves:
        confirmed = max(confirmed, low)
        kept = KeptResult(b"c", number, wire.EncodedSession(number, msgspec.Raw(bytes(size))))
        before, more = client.charged_bytes, client.keep(kept, low)
        assert client.charged_bytes == before + more
        model = {each: size for each, size in {**model, number: size}.items() if each >= confirmed}
        assert client.results.keys() == model.keys()
        assert client.kept_bytes == sum(model.values())
        left = [size for each, size in model.items() if each >= asked]
        assert client.kept_from(asked) == (len(left), sum(left))
