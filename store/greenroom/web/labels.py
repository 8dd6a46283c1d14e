"""Labels of sessions in a list of a user's devices, made of the client's User-Agent."""

from collections.abc import Callable

from greenroom.fields import LABEL_BYTES_MAX
from greenroom.web.events import Events


def label_of(user_agent: str, label: Callable[[str], str | None] | None, events: Events) -> str:
    """Return the label of a session, shortened; the User-Agent itself without a function of the app.

    No page fails over a label: a User-Agent may be anything. If the function raises, or does not return a
    str, the session has no label, and the log says so.
    """
    made: object = user_agent
    if label is not None:
        try:
            made = label(user_agent)
        except Exception as error:  # noqa: BLE001  a function of the app may raise anything
            events.no_label(f"raised {type(error).__name__}")
            return ""
    if made is None:
        return ""
    if not isinstance(made, str):
        events.no_label(f"returned a {type(made).__name__}, no str")
        return ""
    text = str.__str__(made)
    return text[:LABEL_BYTES_MAX].encode("utf-8", "replace")[:LABEL_BYTES_MAX].decode("utf-8", "ignore")
