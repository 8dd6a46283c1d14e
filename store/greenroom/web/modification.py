"""Changes whose new value depends on the stored one: counters and lists."""

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
from greenroom.patching import encode_changes
from greenroom.sessions import StoredSession, patched_bytes
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
        visit.replace_contents(_changed(visit.contents(), change))
        return await visit.save()
    assert visit.stored is not None
    store = visit.settings.store
    patience = Patience("modify", store.contention_seconds)
    # Under a name of its own: the store's own `patch` may take a turn inside.
    async with in_turn("web", id(store), visit.stored.session_id):
        patience.begin()
        while True:
            before = decode_data(encode_data(visit.contents()))
            changes = difference(before, _changed(before, change))
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
                await _read_again(visit)
            else:
                return True
            if visit.ending:
                return False
            if visit.lost:
                visit.settings.events.dropped(visit.stored)
                return False
            await patience.again()


async def _written(visit: Visit, before: dict[Any, Any], changes: Difference) -> None:
    """Write the changes if every path that they touch still has the value that they started from."""
    assert visit.stored is not None
    store, session_id = visit.settings.store, visit.stored.session_id
    expect = {path: value_at(before, path) for path in (*changes.set, *changes.unset)}
    due_us = visit.own_lifetimes.extension_us(visit.settings.now_us(), visit.stored)
    expires = None if due_us is None else datetime_of(due_us)
    if 2 * changes.width > PATHS_MAX:
        stored = await written_whole(store, session_id, changes, expires, expect)
    else:
        stored = await store.patch_stored(
            session_id, set=changes.set, unset=changes.unset, expect=expect, expires=expires
        )
    _adopt(visit, stored)
    visit.settings.events.count("patches")


def _changed(data: dict[Any, Any], change: Callable[[dict[Any, Any]], object]) -> dict[Any, Any]:
    """Return the data after a change, which is made on a copy: it may raise halfway."""
    after = decode_data(encode_data(data))
    outcome = change(after)
    if iscoroutine(outcome):
        outcome.close()
        raise UsageError("modify takes a plain function, not an async one: it may be called again")
    return after


async def _read_again(visit: Visit) -> None:
    assert visit.stored is not None
    try:
        stored = await visit.settings.store.get_stored(visit.stored.session_id)
        if stored is not None:
            _adopt(visit, stored)
    except UnreadableSessionError as error:
        visit.settings.events.unreadable(error)
        stored = None
    visit.lost = stored is None


def _adopt(visit: Visit, stored: StoredSession) -> None:
    """Take over the stored session. Changes that the request made meanwhile stay, to be saved later.

    Another task of the request may have changed the data, or asked for a login or logout.
    """
    visit.stored = stored
    if visit.ending:
        return  # what the session holds now belongs to another one
    known, visit.snapshot = decode_data(visit.snapshot), stored.data
    if not visit.logging_in:
        visit.user_id = stored.user_id
    now = visit.contents()
    meanwhile = difference(known, now)
    data = stored.decoded()
    if meanwhile:
        data = decode_data(patched_bytes(stored.data, encode_changes(meanwhile.set, meanwhile.unset)))
    # A value that is as it was stays the same object: the handler may hold on to it.
    for key in now.keys() - data.keys():
        dict.__delitem__(visit.session, key)
    for key, value in data.items():
        if key not in now or encode_data({key: now[key]}) != encode_data({key: value}):
            dict.__setitem__(visit.session, key, value)
