"""Sessions of web apps: configuration, ASGI middleware, and the session as handlers see it.

>>> from greenroom.web import Session, SessionMiddleware
>>> sessions = Session(secret=SECRET, store="greenroom://127.0.0.1:7400")
>>> app.add_middleware(SessionMiddleware, session=sessions)
>>>
>>> async def cart(request):
...     request.session.setdefault("cart", {})["sku-1"] = 2

Needs the extra `greenroom[web]`. A table of contents: every name below is public.
"""

try:
    import itsdangerous as _itsdangerous  # noqa: F401  so that its absence is told in words
except ImportError:
    raise ImportError(
        "greenroom.web signs its cookies with itsdangerous; install it with: pip install 'itsdangerous>=2.2'",
        name="itsdangerous",
    ) from None

from greenroom.secret_file import SecretFile
from greenroom.web.control import SessionControl
from greenroom.web.cookies import CookieSettings, CookieSigner
from greenroom.web.difference import Difference, difference
from greenroom.web.errors import SessionDataError, SessionNotLoadedError, SessionOverError
from greenroom.web.events import SessionStatistics
from greenroom.web.middleware import SessionMiddleware
from greenroom.web.request_session import RequestSession
from greenroom.web.session import Session
from greenroom.web.visit import Visit

__all__ = [
    "CookieSettings",
    "CookieSigner",
    "Difference",
    "RequestSession",
    "SecretFile",
    "Session",
    "SessionControl",
    "SessionDataError",
    "SessionMiddleware",
    "SessionNotLoadedError",
    "SessionOverError",
    "SessionStatistics",
    "Visit",
    "difference",
]
