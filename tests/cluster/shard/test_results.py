"""The answers that a client has not confirmed."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from greenroom import wire
from greenroom_cluster.shard.records import KeptResult
from greenroom_cluster.shard.results import Client


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 40), st.integers(0, 99)),
            st.tuples(st.just("low"), st.integers(0, 40), st.just(0)),
            st.tuples(st.just("ask"), st.integers(0, 40), st.just(0)),
        ),
        max_size=60,
    )
)
def test_kept_answers_are_counted_as_if_all_were_looked_through(moves: list[tuple[str, int, int]]) -> None:
    """Also where a request is answered twice, and where requests come out of order."""
    client, model = Client(0, 0, 0), dict[int, int]()
    for move, number, size in moves:
        if move == "add":
            client.add(KeptResult(b"c", number, wire.EncodedSession(number, msgspec.Raw(bytes(size)))))
            model[number] = size
        elif move == "low":
            client.answered_below(number)
            model = {each: size for each, size in model.items() if each >= number}
        left = [size for each, size in model.items() if each >= number]
        assert client.kept_from(number) == (len(left), sum(left))
        assert client.results.keys() == model.keys()
        assert client.kept_bytes == sum(model.values())
