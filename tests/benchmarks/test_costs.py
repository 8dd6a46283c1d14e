"""The cost model: every stage is measured, on messages as they are."""

import asyncio

import pytest

from benchmarks.costs import client, kernel
from benchmarks.costs.client import Caller
from benchmarks.costs.figures import WORKS, Amount, Figure, Meter, Volume, together
from benchmarks.costs.page import Report, alone_table, page, stage_table, volume_table, whole_table
from benchmarks.costs.server import STAGES, Servers
from benchmarks.costs.siblings import Siblings, Turns, siblings_of, take_turns
from benchmarks.costs.whole import Whole
from benchmarks.sessions import session_data, session_id
from greenroom import SessionData, wire
from greenroom.codec import encode_data
from greenroom.framing import HEADER_BYTES, encode_frames
from greenroom.ids import digest_of, point_of
from tests.benchmarks.builders import sample

AMOUNT = Amount(batches=(1, 3), operations=12, repeats=3)


@pytest.fixture(scope="module")
def servers() -> Servers:
    return Servers(sessions=128)


@pytest.fixture(scope="module")
def report(servers: Servers) -> Report:
    volumes = servers.volumes(AMOUNT)
    figures = [*servers.figures(AMOUNT), *client.figures(AMOUNT), *kernel.figures(AMOUNT, volumes)]
    cells = [("echo", "get"), ("greenroom", "get"), ("greenroom", "update")]
    return Report(
        when="today",
        load=0.0,
        machine={"cores": "2"},
        versions={"msgspec": "1"},
        amount=AMOUNT,
        figures=figures,
        volumes=volumes,
        siblings=Siblings(alone_us=10.0, beside_us=15.0),
        whole=[
            Whole(contender=contender, work=work, callers=callers, sample=sample())
            for contender, work in cells
            for callers in (1, 64)
        ],
    )


def test_every_stage_is_measured(report: Report) -> None:
    measured = {(each.place, each.stage, each.work, each.batch) for each in report.figures}
    for work in WORKS:
        for batch in AMOUNT.batches:
            own = {(place, stage) for place, stage, w, b in measured if (w, b) == (work, batch)}
            assert own == {
                *(("servers", stage) for stage in STAGES[work]),
                *(("client", stage) for stage in client.STAGES),
                *(("kernel, client", stage) for stage in kernel.CLIENT_STAGES),
                *(("kernel, servers", stage) for stage in kernel.SERVER_STAGES[work]),
            }
    assert all(0 < each.least_us <= each.median_us for each in report.figures)


def test_the_tables_show_every_stage(report: Report) -> None:
    table = stage_table(report)
    shown = {row[:2] for row in table.rows}
    assert {(each.place, each.stage) for each in report.figures} < shown
    text = page(report)
    for each in (table, volume_table(report), whole_table(report), alone_table(report)):
        assert f"## {each.title}" in text
        assert all(len(row) == len(each.columns) for row in each.rows)


def test_the_bytes_of_an_update_are_those_of_its_messages(servers: Servers) -> None:
    (update,) = [servers.request("update", point_of(name), digest_of(name)) for name in [session_id(5)]]
    assert isinstance(update, wire.Update)
    assert update.data == encode_data(session_data(300))
    (measured,) = [
        each
        for each in servers.volumes(Amount(batches=(1,)))
        if (each.work, each.message) == ("update", "requests")
    ]
    # Request ids grow, and take a byte more at times.
    assert measured.bytes == pytest.approx(len(encode_frames([update])), abs=4)


def test_an_update_lies_on_the_wire_four_times(servers: Servers) -> None:
    volumes = {
        each.message: each.bytes for each in servers.volumes(Amount(batches=(1,))) if each.work == "update"
    }
    assert list(volumes) == ["requests", "Prepare", "PrepareOk", "replies"]
    assert volumes["Prepare"] > volumes["requests"]  # the whole command, and whose it is
    assert HEADER_BYTES < volumes["PrepareOk"] < volumes["replies"] < 32


def test_operations_return_what_they_return_to_a_caller() -> None:
    async def run() -> None:
        caller = Caller(Meter())
        for each in caller.batch("get", 3):
            assert isinstance(each, SessionData)
            assert each.data == session_data(300)
        versions = caller.batch("update", 3)
        assert versions == sorted(set(versions))
        await caller.store.aclose()

    asyncio.run(run())


def test_sums_are_of_the_least_figures() -> None:
    figure = Figure(place="client", stage="a", work="get", batch=1, least_us=2.0, median_us=3.0)
    other = Figure(place="servers", stage="b", work="get", batch=1, least_us=5.0, median_us=9.0)
    bare = Report(
        when="",
        load=0,
        machine={},
        versions={},
        amount=Amount(batches=(1,)),
        figures=[figure, other],
        volumes=[Volume(message="requests", work="get", batch=1, bytes=46)],
        siblings=None,
        whole=[],
    )
    assert bare.sum_us("get", 1, "client") == 2
    assert bare.sum_us("get", 1, "client", "servers") == 7
    assert bare.factor == 1


def test_passes_are_taken_together() -> None:
    figure = Figure(place="client", stage="a", work="get", batch=1, least_us=2.0, median_us=9.0)
    later = Figure(place="client", stage="a", work="get", batch=1, least_us=1.0, median_us=4.0)
    (both,) = together([[figure], [later], [later]])
    assert (both.least_us, both.median_us) == (1.0, 4.0)


def test_a_busy_neighbour_costs_what_turns_beside_it_take_more() -> None:
    found = siblings_of([Turns([1.0, 2.0], [3.0]), Turns([2.0, 2.0, 9.0], [3.0, 3.0, 4.0, 9.0])])
    assert found == Siblings(alone_us=2.0, beside_us=3.0)
    assert found.factor == 1.5


def test_without_idle_moments_a_neighbour_s_cost_is_not_known() -> None:
    assert siblings_of([Turns([1.0] * 4, [2.0] * 9)]) is None
    assert siblings_of([]) is None


def test_turns_beside_a_busy_neighbour() -> None:
    taken = take_turns(lambda: sum(range(10_000)), 1, turns=1)
    assert len(taken.alone) <= 1
    assert len(taken.beside) <= 1
    assert all(each > 0 for each in (*taken.alone, *taken.beside))
