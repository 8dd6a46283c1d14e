"""Changes whose new value depends on the old one: counters and lists, made on what is really stored."""

from collections.abc import Callable
from functools import partial
from inspect import iscoroutine
from typing import Any

from greenroom.codec import decode_data, encode_data
from greenroom.errors import (
    PathThroughListError,
    SessionNotFoundError,
    UnreadableSessionError,
    UsageError,
    VersionConflictError,
)
from greenroom.fields import datetime_of
from greenroom.turns import Patience, in_turn
from greenroom.web.difference import Difference, difference, value_at
from greenroom.web.shielding import shielded
from greenroom.web.visit import Visit
from greenroom.web.writes import written_whole
from greenroom.wire import PATHS_MAX


async def modify(visit: Visit, change: Callable[[dict[Any, Any]], object]) -> bool:
    """See `SessionControl.modify`."""
    visit.before_writing()
    if not await visit.save():
        return False
    if not visit.is_stored:
        change(visit.session)
        return await visit.save()
    assert visit.record is not None
    store = visit.settings.store
    patience = Patience("modify", store.contention_seconds)
    # Under a name of its own: the store's own `patch` may take a turn inside.
    async with in_turn("web", id(store), visit.record.session_id):
        patience.begin()
        while True:
            before = visit.contents()
            after = decode_data(encode_data(before))
            outcome = change(after)
            if iscoroutine(outcome):
                outcome.close()
                raise UsageError("modify takes a plain function, not an async one: it may be called again")
            changes = difference(before, after)
            if not changes:
                return True
            try:
                await shielded(partial(_written, visit, before, changes))
            except (
                VersionConflictError,
                PathThroughListError,
                SessionNotFoundError,
                UnreadableSessionError,
            ):
                await visit.reload()
            else:
                return True
            if visit.lost:
                visit.settings.events.dropped(visit.record)
                return False
            await patience.again()


async def _written(visit: Visit, before: dict[Any, Any], changes: Difference) -> None:
    """Write the changes if every path that they touch still has the value that they were made from."""
    assert visit.record is not None
    store, session_id = visit.settings.store, visit.record.session_id
    expect = {path: value_at(before, path) for path in (*changes.set, *changes.unset)}
    due_us = visit.own_lifetimes.extension_us(visit.settings.now_us(), visit.record)
    expires = None if due_us is None else datetime_of(due_us)
    if 2 * changes.width > PATHS_MAX:
        record = await written_whole(store, session_id, changes, expires, expect)
    else:
        record = await store.patch_stored(
            session_id, set=changes.set, unset=changes.unset, expect=expect, expires=expires
        )
    visit.take((record, record.decoded()))
    visit.settings.events.count("patches")
