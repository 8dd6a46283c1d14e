"""What stands under `session.greenroom`, or is a key, says so where it is looked for elsewhere."""

from typing import Any

import pytest

from greenroom import MemoryStore
from greenroom.web import Session


def new_session() -> Any:
    return Session(secret="a secret for tests only, long enough", store=MemoryStore()).visit(()).session


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("login", "it is session.greenroom.login$"),
        ("user_id", "it is session.greenroom.user_id$"),
        ("cart", r'a session is a dict: session\["cart"\]$'),
        ("modified", "it is session.greenroom.modified$"),
        ("accessed", "it is session.greenroom.accessed. If Starlette's SessionMiddleware asks"),
        ("_cart", "has no attribute '_cart'$"),
    ],
)
def test_an_attribute_that_is_not_there_says_where_it_is(name: str, hint: str) -> None:
    session = new_session()
    assert not hasattr(session, name)
    with pytest.raises(AttributeError, match=hint):
        getattr(session, name)
