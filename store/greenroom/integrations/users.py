"""The user of a session in apps that keep the user's id in the session's data, under a key of their own."""

from typing import Any

from greenroom.codec import decode_data
from greenroom.errors import UsageError
from greenroom.options import LOGIN
from greenroom.web.survival import Keep, Kept, after_login, kept_by
from greenroom.web.visit import Visit


def user_in(data: dict[Any, Any], user_key: str) -> str | None:
    """Return the user id in the data, or None. An int is taken as its digits.

    Raises UsageError for anything else.
    """
    found = data.get(user_key)
    if found is None or found == "":
        return None
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise UsageError(
            f"the session's key {user_key!r} holds a {type(found).__name__}; user_key= names the key of the "
            "id of the user who is logged in, a str or an int"
        )
    return str(found)


def follow_user(visit: Visit, user_key: str, keep: Keep, *, replaced: bool) -> None:
    """Turn a change of the user in the data into a login or logout, which changes the session's id.

    A user who was logged in by other means, whom the data never named, is left alone. At a login, `keep` says
    what survives of an anonymous session. `replaced`: all data is of this request.
    """
    data = visit.contents()
    user_id = user_in(data, user_key)
    before = None if visit.stored is None else user_in(decode_data(visit.snapshot), user_key)
    if user_id == visit.user_id or (user_id == before and visit.user_id is not None):
        return
    kept = kept_at_login(user_id, before, visit.user_id, kept_by(LOGIN.checked("keep", keep)))
    if user_id is not None and not replaced:
        data = after_login(data, decode_data(visit.base), kept)
    if visit.user_id is not None:
        # Not just a new id: a logout also reaches a session that has got another id since.
        visit.logout()
        visit.replace_contents(data)
    if user_id is not None:
        visit.login(user_id, data, keep=True if kept is None else kept)


def kept_at_login(user_id: str | None, before: str | None, former: str | None, kept: Kept) -> Kept:
    """Return the keys that survive as the data names this user, and named the one `before`.

    `former` is the user of the session as it is stored: of another user's, nothing survives. Data that named
    this user all along is no anonymous session's, though it was stored without a user.
    """
    if former is not None:
        return frozenset()
    return None if user_id == before else kept
