"""What every option takes: one table for sessions, middleware, adapters, stores, their URL and test helpers.

An option that makes no sense is refused where it is given, by the name under which it was given, and never
at the first request. Rules between options (a lifetime within another, a cookie's prefix and its attributes)
stand where the options meet.
"""

import re

from greenroom import option_kinds as kinds
from greenroom.fields import USER_ID_BYTES_MAX
from greenroom.ids import SESSION_ID_BYTES_MAX
from greenroom.loopback_secrets import MODES
from greenroom.option_kinds import Options
from greenroom.sessions import BaseSessionStore

DEADLINE_SECONDS_MAX = 300.0
LITESTAR_USER = "litestar-store:"
"""Before the namespace it is the user to whom all values of a Litestar store belong."""
COOKIE_BYTES_MAX = 4096
"""What browsers take of name and value together."""
ATTRIBUTE_BYTES_MAX = 1024
"""Browsers ignore an attribute of a cookie that is longer."""
COOKIE_NAME_BYTES_MAX = COOKIE_BYTES_MAX - SESSION_ID_BYTES_MAX - 64

_OPERATIONS_MAX_MAX = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PATH_TEXT = re.compile(r"/[\x21\x22\x24-\x3a\x3c-\x3e\x40-\x7e]*")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CLOCK = kinds.clock()
_STORE = kinds.instance(
    'a store, or the URL of one: "greenroom://host:port,host:port", "sqlite:///sessions.db" or "memory://"',
    BaseSessionStore,
    str,
)
_USER_KEY = kinds.text("the key of the session under which the app keeps the id of its user", none=True)
_COOKIE_NAME = kinds.matching(
    "the name of the cookie: letters, digits, - and _", _NAME, most=COOKIE_NAME_BYTES_MAX
)
_PATH = kinds.matching(
    "the path of the cookie: it begins with a slash and holds no blank, semicolon, ? or #; non-ASCII "
    "characters are percent-encoded",
    _PATH_TEXT,
    most=ATTRIBUTE_BYTES_MAX,
)
_DOMAIN = kinds.domain()
_SAME_SITE = kinds.one_of("lax", "strict", "none")
_PARTITIONED = kinds.flag("whether browsers keep one cookie for each site that shows this one in a frame")

_KEEP = kinds.keep("what survives of an anonymous session at a login")

SESSION = Options(
    secret=kinds.secrets(file=True),
    app=kinds.text(
        "the name of the app, of which no other app's cookies are", none=True, most=ATTRIBUTE_BYTES_MAX
    ),
    store=kinds.or_none(_STORE),
    dev=kinds.flag("whether this is for development on http://localhost"),
    cookie_name=_COOKIE_NAME,
    path=_PATH,
    domain=_DOMAIN,
    same_site=_SAME_SITE,
    secure=kinds.flag("whether browsers send the cookie over https only", none=True),
    partitioned=_PARTITIONED,
    host_prefix=kinds.flag("whether the cookie's name begins with __Host-", none=True),
    persistent=kinds.flag("whether the cookie outlives the browser"),
    idle_seconds=kinds.seconds("how long a session lives after its last use"),
    absolute_seconds=kinds.seconds("how long a session lives at most", none=True),
    serialize_user=kinds.function("the conversion of login's argument to a user id"),
    deserialize_user=kinds.function("the conversion of a user id to a user", plain=False),
    label=kinds.function("the conversion of a User-Agent to a label"),
    on_unavailable=kinds.one_of("closed", "anonymous"),
    on_end=kinds.one_of("close", "event"),
    end_code=kinds.count(
        "the code with which a WebSocket is closed whose session has ended", least=3000, most=4999
    ),
    clock=_CLOCK,
    moves_from=kinds.old_sessions(),
)

LOGIN = Options(
    idle_seconds=kinds.seconds("how long this one session lives after its last use", none=True),
    persistent=kinds.flag("whether the cookie of this one session outlives the browser", none=True),
    keep=_KEEP,
)

CALLS = Options(
    keep_current=kinds.flag("whether the session of this request is kept"),
    every_shard=kinds.flag("whether all shards must answer, not only one"),
)

COOKIE = Options(
    name=_COOKIE_NAME,
    path=_PATH,
    domain=_DOMAIN,
    same_site=_SAME_SITE,
    secure=kinds.flag("whether browsers send the cookie over https only"),
    partitioned=_PARTITIONED,
    max_age_seconds=kinds.or_none(kinds.count("how long browsers keep the cookie", most=kinds.SECONDS_MAX)),
)

_OLD_USER = kinds.function("the conversion of an old session's data to the id of its user")
_OLD_SECONDS = kinds.seconds("how long a session of the old library lives at most")

OLD_SESSIONS = Options(
    cookie_name=_COOKIE_NAME,
    path=_PATH,
    domain=_DOMAIN,
    lifetime_seconds=_OLD_SECONDS,
    user=_OLD_USER,
)

OLD_STARLETTE = Options(
    secret_key=kinds.secrets(none=False),
    session_cookie=_COOKIE_NAME,
    max_age=kinds.or_none(_OLD_SECONDS),
    path=_PATH,
    domain=_DOMAIN,
    user=_OLD_USER,
)

OLD_STARSESSIONS = Options(
    store=kinds.methods("the store of starsessions' middleware", "read", "remove", none=False),
    lifetime=kinds.count(
        "the lifetime of starsessions' middleware, in seconds", least=0, most=kinds.SECONDS_MAX
    ),
    serializer=kinds.methods("the serializer of starsessions' middleware", "deserialize"),
    cookie_name=_COOKIE_NAME,
    cookie_path=kinds.or_none(_PATH),
    cookie_domain=_DOMAIN,
    user=_OLD_USER,
)

OLD_LITESTAR = Options(
    store=kinds.methods("the store of Litestar's sessions", "get", "delete", none=False),
    key=_COOKIE_NAME,
    max_age=_OLD_SECONDS,
    path=_PATH,
    domain=_DOMAIN,
    user=_OLD_USER,
)

OLD_AIOHTTP = Options(
    storage=kinds.methods("the storage of aiohttp-session", "load_session", "save_session", none=False),
    lifetime_seconds=kinds.or_none(_OLD_SECONDS),
    user=_OLD_USER,
)

OLD_STORE = Options(
    old=kinds.either("the former store, or the former Session", BaseSessionStore),
    lifetime_seconds=_OLD_SECONDS,
    user=_OLD_USER,
)

MIDDLEWARE = Options(
    session=kinds.sessions(none=True),
    secret_key=kinds.secrets(file=True),
    session_cookie=_COOKIE_NAME,
    max_age=kinds.seconds("how long a session lives after its last use", none=True),
    path=_PATH,
    same_site=_SAME_SITE,
    https_only=kinds.flag("whether browsers send the cookie over https only", none=True),
    domain=_DOMAIN,
    partitioned=_PARTITIONED,
    skip=kinds.skip(),
    autoload=kinds.flag("whether a session is loaded before its handler runs"),
)

MEMORY_STORE = Options(clock=_CLOCK)

SQLITE_STORE = Options(
    deadline_seconds=kinds.seconds(
        "how long an operation may take until it answers or raises", most=DEADLINE_SECONDS_MAX
    ),
    synchronous=kinds.one_of("full", "normal"),
    clock=_CLOCK,
    operations_max=kinds.count("how many operations may wait for the file", most=_OPERATIONS_MAX_MAX),
)

CLUSTER_STORE = Options(
    cluster=kinds.matching(
        "the name that the cluster's nodes were started with: letters, digits, dots, dashes and "
        "underscores, the first a letter or digit",
        _PLAIN_NAME,
        most=63,
    ),
    deadline_seconds=kinds.seconds(
        "how long an operation may take until it answers or raises", most=DEADLINE_SECONDS_MAX
    ),
    operations_max=kinds.count(
        "how many operations of one event loop may be in flight", most=_OPERATIONS_MAX_MAX
    ),
    tls_cert=kinds.path("the certificate of this app, with its chain, in PEM", none=True),
    tls_key=kinds.path("the private key of `tls_cert`, of mode 0600, in PEM", none=True),
    tls_ca=kinds.path("the CAs that certify the nodes, in PEM", none=True),
    tls_deny=kinds.path("revoked serial numbers, one in hexadecimal a line", none=True),
    token_file=kinds.path("the file of this app's token, of mode 0600, instead of a certificate", none=True),
    insecure_plaintext_beyond_loopback=kinds.flag("whether plaintext may leave this host"),
    secret_file=kinds.path("the file whose secret the nodes have as --secret-file", none=True),
    loopback_proof=kinds.one_of(*MODES),
    zone=kinds.or_none(
        kinds.matching(
            "the zone in which this app runs, as nodes have it in --zone: letters, digits, dots, dashes and "
            "underscores, the first a letter or digit",
            _PLAIN_NAME,
            most=63,
        )
    ),
    near_sessions=kinds.count(
        "how many sessions each event loop keeps, to read them without asking", least=0, most=10_000_000
    ),
    near_eager=kinds.flag("whether a session is kept from its first read on, not from its second"),
    watches_max=kinds.count(
        "how many sessions each event loop may watch, to learn when they end", most=32_768
    ),
)

LITESTAR_PLUGIN = Options(
    sessions=kinds.sessions(),
    skip=MIDDLEWARE.option("skip"),
    autoload=MIDDLEWARE.option("autoload"),
    dependency=kinds.text("the name of the dependency that gives a handler its session", none=True),
    exclude_opt_key=kinds.text("the name of the option with which handlers get no session", none=True),
)

LITESTAR_STORE = Options(
    store=_STORE,
    namespace=kinds.text(
        "the namespace of these values in a shared store",
        empty=True,
        most=USER_ID_BYTES_MAX - len(LITESTAR_USER),
    ),
    clock=_CLOCK,
)

AIOHTTP_STORAGE = Options(sessions=kinds.sessions(), user_key=_USER_KEY, keep=_KEEP)

QUART_SESSIONS = Options(sessions=kinds.sessions())

STARSESSIONS_STORE = Options(
    store=_STORE,
    user_key=_USER_KEY,
    keep=_KEEP,
    serializer=kinds.methods("the serializer of starsessions' middleware", "serialize", "deserialize"),
    browser_seconds=kinds.seconds("how long a session of lifetime=0 is kept after its last use"),
    clock=_CLOCK,
)

FASTAPI = Options(
    cookie_name=_COOKIE_NAME, scheme_name=kinds.text("the name of the security scheme in OpenAPI")
)

TESTING = Options(
    session=kinds.sessions(none=True),
    inner=kinds.instance("the store that has the faults, or None", BaseSessionStore, none=True),
    error=kinds.instance("what the operation raises: an exception, or None", Exception, none=True),
    times=kinds.or_none(kinds.count("how often the operation fails, or None for always")),
    applied=kinds.flag("whether the operation does its work before it fails"),
    nodes=kinds.count("how many nodes the cluster has"),
    actors=kinds.count("how many actors each node has"),
    ready_seconds=kinds.seconds("how long the cluster may take to start"),
    start=kinds.moment("the moment at which the clock stands"),
)

TABLE: dict[str, Options] = {
    "Session": SESSION,
    "login": LOGIN,
    "logout_everywhere, check": CALLS,
    "CookieSettings": COOKIE,
    "SessionMiddleware": MIDDLEWARE,
    "moves_from: OldSessions": OLD_SESSIONS,
    "moves_from: StarletteCookies": OLD_STARLETTE,
    "moves_from: StarsessionsStore": OLD_STARSESSIONS,
    "moves_from: LitestarStore": OLD_LITESTAR,
    "moves_from: AiohttpStorage": OLD_AIOHTTP,
    "moves_from: OtherStore": OLD_STORE,
    "MemoryStore": MEMORY_STORE,
    "SqliteStore": SQLITE_STORE,
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
