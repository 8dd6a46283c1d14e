"""What every option takes: one table for sessions, middleware, adapters, stores, their URL and test helpers.

An option that makes no sense is refused where it is given, by the name under which it was given, and never
at the first request. What is refused is described by its type; only numbers are quoted, since anything else
may be a secret. Rules between options (a lifetime within another, a cookie's prefix and its attributes)
stand where the options meet.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, NoReturn

from greenroom.errors import UsageError
from greenroom.fields import DATA_BYTES_MAX, USER_ID_BYTES_MAX
from greenroom.ids import SESSION_ID_BYTES_MAX
from greenroom.sessions import BaseSessionStore

SECONDS_MAX = 100 * 365 * 86_400
"""A hundred years: what is to last longer has no end, or is a mistake."""
DEADLINE_SECONDS_MAX = 300.0
LITESTAR_USER = "litestar-store:"
"""Before the namespace it is the user to whom all values of a Litestar store belong."""
COOKIE_BYTES_MAX = 4096
"""What browsers take of name and value together."""
ATTRIBUTE_BYTES_MAX = 1024
"""Browsers ignore an attribute of a cookie that is longer."""
COOKIE_NAME_BYTES_MAX = COOKIE_BYTES_MAX - SESSION_ID_BYTES_MAX - 64

_HOST_CHARACTERS_MAX = 254  # with the dot in front that older rules asked for
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PATH_TEXT = re.compile(r"/[\x21\x22\x24-\x3a\x3c-\x3e\x40-\x7e]*")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


class _RefusedError(Exception):
    """Says what is wrong with a value, or nothing where its type says it."""


class Option(NamedTuple):
    """One option: what it takes, in words that follow "is", and the function that returns it checked."""

    takes: str
    accepted: Callable[[Any], Any]


class Options:
    """The options of one class or function, by name."""

    def __init__(self, **options: Option) -> None:
        self._options = options

    def __iter__(self) -> Any:
        return iter(self._options.items())

    def __contains__(self, name: object) -> bool:
        return name in self._options

    def option(self, name: str) -> Option:
        """Return one of them."""
        return self._options[name]

    def checked(self, name: str, value: Any) -> Any:
        """Return the value of an option as a plain one of its type. Raises UsageError naming the option."""
        option = self._options[name]
        try:
            return option.accepted(value)
        except _RefusedError as refused:
            reason = str(refused) or f"not {_described(value)}"
        raise UsageError(f"{name} is {option.takes}; {reason}")

    def check(self, **given: Any) -> None:
        """Raise UsageError naming the first of these options that makes no sense."""
        for name, value in given.items():
            self.checked(name, value)


# --- kinds -----------------------------------------------------------------------------------------------


def _seconds(meaning: str, *, zero: bool = False, none: bool = False, most: float = SECONDS_MAX) -> Option:
    def accepted(value: Any) -> int | float | None:
        if none and value is None:
            return None
        if isinstance(value, timedelta):
            _refuse("not a timedelta: give its total_seconds()")
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse()
        plain = int(value) if isinstance(value, int) else float(value)
        if not (0 <= plain <= most and (zero or plain > 0)):
            _refuse()
        return plain

    least = "from 0 on" if zero else "above 0"
    takes = f"{meaning}: a number of seconds {least}, at most {most:.0f}{', or None' if none else ''}"
    return Option(takes, accepted)


def _count(meaning: str, *, least: int = 1, most: int | None = None) -> Option:
    def accepted(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            _refuse()
        if value < least or (most is not None and value > most):
            _refuse()
        return int(value)

    bound = "" if most is None else f", at most {most}"
    return Option(f"{meaning}: an int of at least {least}{bound}", accepted)


def _flag(meaning: str, *, none: bool = False) -> Option:
    def accepted(value: Any) -> bool | None:
        # Not by what counts as true: "false" does.
        if value is True or value is False or (none and value is None):
            return value
        _refuse()

    return Option(f"{meaning}: True{', False or None' if none else ' or False'}", accepted)


def _one_of(*words: str) -> Option:
    def accepted(value: Any) -> str:
        if isinstance(value, str) and str.__str__(value) in words:
            return str.__str__(value)
        _refuse("not another str" if isinstance(value, str) else "")

    return Option(f"{', '.join(map(_quoted, words[:-1]))} or {_quoted(words[-1])}", accepted)


def _text(meaning: str, *, none: bool = False, empty: bool = False, most: int | None = None) -> Option:
    def accepted(value: Any) -> str | None:
        if none and value is None:
            return None
        if not isinstance(value, str):
            _refuse()
        text = str.__str__(value)
        if not text and not empty:
            _refuse("not an empty one")
        size = len(_encodable(text))
        if most is not None and size > most:
            _refuse(f"this one takes {size} bytes")
        return text

    bound = "" if most is None else f" of at most {most} bytes"
    return Option(f"{meaning}, a str{bound}{' or None' if none else ''}", accepted)


def _matching(meaning: str, pattern: re.Pattern[str], *, most: int) -> Option:
    text = _text(meaning, most=most)

    def accepted(value: Any) -> Any:
        plain = text.accepted(value)
        if pattern.fullmatch(plain) is None:
            _refuse("this one is not")
        return plain

    return Option(text.takes, accepted)


def _domain() -> Option:
    """Return the kind of a cookie's domain, as browsers match it with the host of a URL."""
    text = _text(
        'a host name such as "shop.example", which the cookie is sent to with all hosts below it, without '
        "scheme, port, path, * or blank, and no IP address; non-ASCII names as xn--",
        most=_HOST_CHARACTERS_MAX,
    )

    def accepted(value: Any) -> Any:
        plain = text.accepted(value)
        labels = plain.removeprefix(".").split(".")
        if not all(_LABEL.fullmatch(each) for each in labels):
            _refuse("this one is not")
        # As the URL standard has it, a host whose last label is a number is an IPv4 address.
        if re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", labels[-1]) is not None:
            _refuse("this is an address")
        return plain

    return _or_none(Option(text.takes, accepted))


def _function(meaning: str, *, none: bool = True, plain: bool = True) -> Option:
    """Return the kind of a function; `plain` ones are called where nothing can be awaited."""

    def accepted(value: Any) -> Any:
        if none and value is None:
            return None
        if not callable(value):
            _refuse()
        if plain and (iscoroutinefunction(value) or iscoroutinefunction(getattr(value, "__call__", None))):  # noqa: B004  of an object that is called
            _refuse("not an async one, whose result nothing would await")
        return value

    return Option(f"{meaning}, a {'plain ' if plain else ''}function{' or None' if none else ''}", accepted)


def _moment(meaning: str) -> Option:
    def accepted(value: Any) -> datetime:
        if not isinstance(value, datetime):
            _refuse()
        if value.utcoffset() is None:
            _refuse("this one has no time zone: datetime.now(UTC) has one")
        return value

    return Option(f"{meaning}, an aware datetime", accepted)


def _clock() -> Option:
    present = _moment("the present")

    def accepted(value: Any) -> Any:
        if not callable(value):
            _refuse()
        if iscoroutinefunction(value):
            _refuse("not an async one, whose result nothing would await")
        try:
            returned = value()
        except Exception as error:  # noqa: BLE001  a function of the app may raise anything
            _refuse(f"calling it raised {type(error).__name__}")
        if not isinstance(returned, datetime):
            _refuse(f"this one returns {_described(returned)}")
        present.accepted(returned)
        return value

    return Option("a function that returns the present, an aware datetime", accepted)


def _secrets() -> Option:
    """Return the kind of the secrets; one is a list of one."""

    def accepted(value: Any) -> list[str] | None:
        if value is None:
            return None
        secrets = [_opened(each) for each in value] if isinstance(value, list | tuple) else [_opened(value)]
        if not secrets or not all(secrets):
            _refuse("none may be empty")
        return secrets

    takes = (
        "a random str (or Starlette's Secret, or pydantic's SecretStr), or a list of some, the newest first"
    )
    return Option(takes, accepted)


def _opened(value: Any) -> str:
    """Return the text of one secret. What hides it says so by its type or by a method."""
    kind = type(value)
    if isinstance(value, str):
        text: Any = str.__str__(value)
    elif callable(method := getattr(kind, "get_secret_value", None) or getattr(kind, "get_secret", None)):
        text = method(value)
    elif any(
        each.__module__ == "starlette.datastructures" and each.__name__ == "Secret" for each in kind.__mro__
    ):
        text = str(value)
    else:
        _refuse(f"not {_described(value)}")
    if not isinstance(text, str):
        _refuse(f"this {kind.__name__} holds {_described(text)}")
    _encodable(text)
    return text


def _instance(takes: str, *kinds: type, none: bool = False) -> Option:
    def accepted(value: Any) -> Any:
        if isinstance(value, kinds) or (none and value is None):
            return value
        _refuse()

    return Option(takes, accepted)


def _sessions(*, none: bool = False) -> Option:
    def accepted(value: Any) -> Any:
        # Not imported: the table stands below the web part, and who has a Session has imported that.
        web = sys.modules.get("greenroom.web")
        if (none and value is None) or (web is not None and isinstance(value, web.Session)):
            return value
        _refuse()

    return Option("a Session of greenroom.web: Session(secret=..., store=...)", accepted)


def _skip() -> Option:
    def accepted(value: Any) -> Any:
        if iscoroutinefunction(value):
            _refuse("not an async function, whose result nothing would await")
        if callable(value) and not isinstance(value, type):
            return value
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            _refuse()
        return [_path(each) for each in value]

    return Option('a list of paths, for example skip=["/static"], or a plain function of the scope', accepted)


def _path(value: Any) -> str:
    if not isinstance(value, str):
        _refuse(f"{_described(value)} is no path")
    if not value.startswith("/"):
        _refuse("each path begins with a slash")
    return str.__str__(value)


def _methods(meaning: str, *names: str) -> Option:
    def accepted(value: Any) -> Any:
        if value is None or (
            not isinstance(value, type) and all(callable(getattr(value, each, None)) for each in names)
        ):
            return value
        _refuse()

    return Option(f"{meaning}: an object with {' and '.join(names)}, or None", accepted)


def _or_none(option: Option) -> Option:
    return Option(f"{option.takes}, or None", lambda value: None if value is None else option.accepted(value))


def _refuse(reason: str = "") -> NoReturn:
    raise _RefusedError(reason)


def _encodable(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass
    _refuse("it must be encodable as UTF-8; this one holds a lone surrogate")


def _described(value: object) -> str:
    """Return what a value is without showing it, unless it is a number."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int | float):
        try:
            return f"{float(value):.15g}"
        except OverflowError:
            return "one that large"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _quoted(word: str) -> str:
    return f'"{word}"'


# --- the table -------------------------------------------------------------------------------------------

_CLOCK = _clock()
_STORE = _instance(
    'a store, or the URL of one: "greenroom://host:port,host:port" or "memory://"', BaseSessionStore, str
)
_USER_KEY = _text("the key of the session under which the app keeps the id of its user", none=True)
_COOKIE_NAME = _matching(
    "the name of the cookie: letters, digits, - and _", _NAME, most=COOKIE_NAME_BYTES_MAX
)
_PATH = _matching(
    "the path of the cookie: it begins with a slash and holds no blank, semicolon, ? or #; what is not ASCII "
    "stands as %20 does",
    _PATH_TEXT,
    most=ATTRIBUTE_BYTES_MAX,
)
_DOMAIN = _domain()
_SAME_SITE = _one_of("lax", "strict", "none")
_PARTITIONED = _flag("whether browsers keep one cookie for each site that shows this one in a frame")
_DATA_BYTES = "how many bytes the encoded data of one session may take"

SESSION = Options(
    secret=_secrets(),
    store=_or_none(_STORE),
    dev=_flag("whether this is for work on http://localhost"),
    cookie_name=_COOKIE_NAME,
    path=_PATH,
    domain=_DOMAIN,
    same_site=_SAME_SITE,
    secure=_flag("whether the cookie goes over https alone", none=True),
    partitioned=_PARTITIONED,
    host_prefix=_flag("whether the cookie's name begins with __Host-", none=True),
    persistent=_flag("whether the cookie outlives the browser"),
    idle_seconds=_seconds("how long a session lives after its last use"),
    absolute_seconds=_seconds("how long a session lives at most", none=True),
    extension_threshold_seconds=_seconds(
        "how near the end of a session in use may come", zero=True, none=True
    ),
    serialize_user=_function("what makes the id of a user of what login is given"),
    deserialize_user=_function("what makes a user of an id", plain=False),
    label=_function("what makes a label of the User-Agent"),
    on_unavailable=_one_of("closed", "anonymous"),
    retry_after_seconds=_count("the Retry-After of a 503", least=0, most=SECONDS_MAX),
    clock=_CLOCK,
)

CALLS = Options(
    keep_current=_flag("whether the session of this request goes on"),
    every_shard=_flag("whether all shards must answer, not only one"),
)

COOKIE = Options(
    name=_COOKIE_NAME,
    path=_PATH,
    domain=_DOMAIN,
    same_site=_SAME_SITE,
    secure=_flag("whether the cookie goes over https alone"),
    partitioned=_PARTITIONED,
    max_age_seconds=_or_none(_count("how long browsers keep the cookie", most=SECONDS_MAX)),
)

MIDDLEWARE = Options(
    session=_sessions(none=True),
    secret_key=_secrets(),
    session_cookie=_COOKIE_NAME,
    max_age=_seconds("how long a session lives after its last use", none=True),
    path=_PATH,
    same_site=_SAME_SITE,
    https_only=_flag("whether the cookie goes over https alone", none=True),
    domain=_DOMAIN,
    partitioned=_PARTITIONED,
    skip=_skip(),
    autoload=_flag("whether a session is loaded before its handler runs"),
)

MEMORY_STORE = Options(clock=_CLOCK, data_bytes_max=_count(_DATA_BYTES))

CLUSTER_STORE = Options(
    cluster=_text("the name of the cluster, as its nodes were started with"),
    deadline_seconds=_seconds(
        "how long an operation may take until it answers or raises", most=DEADLINE_SECONDS_MAX
    ),
    data_bytes_max=_count(_DATA_BYTES, most=DATA_BYTES_MAX),
    operations_max=_count("how many operations of one event loop are in flight at most"),
)

LITESTAR_PLUGIN = Options(
    sessions=_sessions(),
    skip=MIDDLEWARE.option("skip"),
    autoload=MIDDLEWARE.option("autoload"),
    dependency=_text("the name of the dependency that gives a handler its session", none=True),
)

LITESTAR_STORE = Options(
    store=_STORE,
    namespace=_text(
        "what keeps apart the values that share a store",
        empty=True,
        most=USER_ID_BYTES_MAX - len(LITESTAR_USER),
    ),
    clock=_CLOCK,
)

AIOHTTP_STORAGE = Options(sessions=_sessions(), user_key=_USER_KEY)

QUART_SESSIONS = Options(sessions=_sessions())

STARSESSIONS_STORE = Options(
    store=_STORE,
    user_key=_USER_KEY,
    serializer=_methods("the serializer of starsessions' middleware", "serialize", "deserialize"),
    browser_seconds=_seconds("how long a session of lifetime=0 is kept after its last use"),
    clock=_CLOCK,
)

FASTAPI = Options(cookie_name=_COOKIE_NAME, scheme_name=_text("the name of the security scheme in OpenAPI"))

TESTING = Options(
    session=_sessions(none=True),
    inner=_instance("the store that has the faults, or None", BaseSessionStore, none=True),
    error=_instance("what the operation raises: an exception, or None", Exception, none=True),
    times=_or_none(_count("how often the operation fails, or None for always")),
    applied=_flag("whether the operation does its work before it fails"),
    nodes=_count("how many nodes the cluster has"),
    actors=_count("how many actors each node has"),
    ready_seconds=_seconds("how long the cluster may take to start"),
    start=_moment("the moment at which the clock stands"),
)

TABLE: dict[str, Options] = {
    "Session": SESSION,
    "logout_everywhere, check": CALLS,
    "CookieSettings": COOKIE,
    "SessionMiddleware": MIDDLEWARE,
    "MemoryStore": MEMORY_STORE,
    "ClusterStore": CLUSTER_STORE,
    "Litestar: SessionPlugin": LITESTAR_PLUGIN,
    "Litestar: GreenroomStore": LITESTAR_STORE,
    "aiohttp: GreenroomStorage": AIOHTTP_STORAGE,
    "Quart: GreenroomSessions": QUART_SESSIONS,
    "starsessions: GreenroomStore": STARSESSIONS_STORE,
    "FastAPI: RequireUser, session_of_request": FASTAPI,
    "greenroom.testing": TESTING,
}
"""All of them, by where they are given. `docs/options.md` shows it."""
