"""Nurseries raise one error as itself, and several as a group."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import greenroom_cluster
from greenroom_cluster.runtime.tasks import open_tasks


async def fail(error: Exception) -> None:
    raise error


async def raise_below(error: Exception) -> None:
    async with open_tasks() as outer, open_tasks() as inner:
        outer.start_soon(trio.sleep_forever)
        inner.start_soon(fail, error)


async def raise_in_body(error: Exception) -> None:
    async with open_tasks() as tasks:
        tasks.start_soon(trio.sleep_forever)
        await fail(error)


async def raise_two() -> None:
    async with open_tasks() as tasks:
        tasks.start_soon(fail, ValueError())
        tasks.start_soon(fail, KeyError())


@pytest.mark.trio
@pytest.mark.parametrize("way", [raise_below, raise_in_body])
async def test_one_error_is_itself(way: Callable[[Exception], Awaitable[None]]) -> None:
    error = ValueError("mine")
    error.__context__ = KeyError("why")
    with pytest.raises(ValueError, match="mine") as caught:
        await way(error)
    assert caught.value is error
    assert isinstance(error.__context__, KeyError)


@pytest.mark.trio
async def test_several_errors_are_a_group() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await raise_two()
    assert {type(each) for each in caught.value.exceptions} == {ValueError, KeyError}


@pytest.mark.trio
async def test_a_cancelled_scope_ends_its_tasks_without_an_error() -> None:
    with trio.move_on_after(1) as scope:
        async with open_tasks() as outer, open_tasks() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught


def test_the_product_opens_no_other_nursery() -> None:
    found = [
        path.name
        for path in Path(greenroom_cluster.__file__).parent.rglob("*.py")
        if re.search(r"\btrio\.open_nursery\b", path.read_text())
    ]
    assert found == ["tasks.py"]
