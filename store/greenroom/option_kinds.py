"""Kinds of options: what each takes, in words and as a check. `greenroom.options` is the table of them.

An error describes a refused value by its type; it quotes only numbers, since anything else may be a secret.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, NoReturn, Protocol

from greenroom.errors import UsageError
from greenroom.secret_file import SecretFile

SECONDS_MIN = 0.001
"""A shorter time is none at all, or a mistake."""
SECONDS_MAX = 100 * 365 * 86_400
"""A hundred years: a longer time means no end, or is a mistake."""

_HOST_CHARACTERS_MAX = 254  # with the dot in front that older rules asked for
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


class HiddenSecret(Protocol):
    """An object that hides a secret from logs, as pydantic's SecretStr does."""

    def get_secret_value(self) -> str:
        """Return the secret."""


class _RefusedError(Exception):
    """Says what is wrong with a value, or nothing if its type makes it clear."""


class Option(NamedTuple):
    """One option: what it takes, in words that follow "is", and the function that checks it."""

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
        """Return the option of this name."""
        return self._options[name]

    def checked(self, name: str, value: Any) -> Any:
        """Return an option's value in its plain type. Raises UsageError naming the option."""
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


def seconds(meaning: str, *, zero: bool = False, none: bool = False, most: float = SECONDS_MAX) -> Option:
    """Return the kind of a span of time, kept as an int or float."""

    def accepted(value: Any) -> int | float | None:
        if none and value is None:
            return None
        if isinstance(value, timedelta):
            _refuse("not a timedelta: give its total_seconds()")
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse()
        plain = int(value) if isinstance(value, int) else float(value)
        if not (0 <= plain <= most and (zero or plain >= SECONDS_MIN)):
            _refuse()
        return plain

    least = "from 0 on" if zero else f"of at least {SECONDS_MIN}"
    takes = f"{meaning}: a number of seconds {least}, at most {most:.0f}{', or None' if none else ''}"
    return Option(takes, accepted)


def count(meaning: str, *, least: int = 1, most: int | None = None) -> Option:
    """Return the kind of a whole number."""

    def accepted(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            _refuse()
        if value < least or (most is not None and value > most):
            _refuse()
        return int(value)

    bound = "" if most is None else f", at most {most}"
    return Option(f"{meaning}: an int of at least {least}{bound}", accepted)


def flag(meaning: str, *, none: bool = False) -> Option:
    """Return the kind of an option that is True or False."""

    def accepted(value: Any) -> bool | None:
        # Not by truth: "false" is true.
        if value is True or value is False or (none and value is None):
            return value
        _refuse()

    return Option(f"{meaning}: True{', False or None' if none else ' or False'}", accepted)


def one_of(*words: str) -> Option:
    """Return the kind of one of these words."""

    def accepted(value: Any) -> str:
        if isinstance(value, str) and str.__str__(value) in words:
            return str.__str__(value)
        _refuse("not another str" if isinstance(value, str) else "")

    return Option(f"{', '.join(map(_quoted, words[:-1]))} or {_quoted(words[-1])}", accepted)


def text(meaning: str, *, none: bool = False, empty: bool = False, most: int | None = None) -> Option:
    """Return the kind of a str that UTF-8 can encode; `most` is in bytes."""

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


def matching(meaning: str, pattern: re.Pattern[str], *, most: int) -> Option:
    """Return the kind of a str that matches as a whole; `most` is in bytes."""
    words = text(meaning, most=most)

    def accepted(value: Any) -> Any:
        plain = words.accepted(value)
        if pattern.fullmatch(plain) is None:
            _refuse("this one is not")
        return plain

    return Option(words.takes, accepted)


def domain() -> Option:
    """Return the kind of a cookie's domain, as browsers match it with the host of a URL."""
    words = text(
        'a host name such as "shop.example" (browsers send the cookie there and to all hosts below), without '
        "scheme, port, path, *, blank or IP address, non-ASCII names as xn--",
        most=_HOST_CHARACTERS_MAX,
    )

    def accepted(value: Any) -> Any:
        plain = words.accepted(value)
        labels = plain.removeprefix(".").split(".")
        if not all(_LABEL.fullmatch(each) for each in labels):
            _refuse("this one is not")
        # As the URL standard has it, a host whose last label is a number is an IPv4 address.
        if re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", labels[-1]) is not None:
            _refuse("this is an address")
        return plain

    return or_none(Option(words.takes, accepted))


def function(meaning: str, *, none: bool = True, plain: bool = True) -> Option:
    """Return the kind of a function; `plain` means that it is called where nothing can be awaited."""

    def accepted(value: Any) -> Any:
        if none and value is None:
            return None
        if not callable(value):
            _refuse()
        if plain and (iscoroutinefunction(value) or iscoroutinefunction(getattr(value, "__call__", None))):  # noqa: B004  of an object that is called
            _refuse("not an async one, whose result nothing would await")
        return value

    return Option(f"{meaning}, a {'plain ' if plain else ''}function{' or None' if none else ''}", accepted)


def moment(meaning: str) -> Option:
    """Return the kind of an aware datetime."""

    def accepted(value: Any) -> datetime:
        if not isinstance(value, datetime):
            _refuse()
        if value.utcoffset() is None:
            _refuse("this one has no time zone: datetime.now(UTC) has one")
        return value

    return Option(f"{meaning}, an aware datetime", accepted)


def clock() -> Option:
    """Return the kind of a clock, which is read once to see what it returns."""
    present = moment("the present")

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


def secrets(*, none: bool = True, file: bool = False) -> Option:
    """Return the kind of the secrets; one is a list of one."""

    def accepted(value: Any) -> list[str] | SecretFile | None:
        if (none and value is None) or (file and isinstance(value, SecretFile)):
            return value
        secrets = [_opened(each) for each in value] if isinstance(value, list | tuple) else [_opened(value)]
        if not secrets or not all(secrets):
            _refuse("none may be empty")
        return secrets

    takes = (
        "a random str (or Starlette's Secret, or pydantic's SecretStr), or a list of these, the newest first"
    )
    return Option(f"{takes}, or a SecretFile" if file else takes, accepted)


def _opened(value: Any) -> str:
    """Return the text of one secret. An object that hides one says so by its type or by a method."""
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


def instance(takes: str, *kinds: type, none: bool = False) -> Option:
    """Return the kind of an object of one of these types."""

    def accepted(value: Any) -> Any:
        if isinstance(value, kinds) or (none and value is None):
            return value
        _refuse()

    return Option(takes, accepted)


def sessions(*, none: bool = False) -> Option:
    """Return the kind of a `greenroom.web.Session`."""

    def accepted(value: Any) -> Any:
        # Not imported: the table is below the web part, and a caller with a Session has imported that.
        web = sys.modules.get("greenroom.web")
        if (none and value is None) or (web is not None and isinstance(value, web.Session)):
            return value
        _refuse()

    return Option("a Session of greenroom.web: Session(secret=..., store=...)", accepted)


def either(takes: str, *kinds: type) -> Option:
    """Return the kind of an object of one of these types, or a `greenroom.web.Session`."""
    session = sessions()

    def accepted(value: Any) -> Any:
        return value if isinstance(value, kinds) else session.accepted(value)

    return Option(takes, accepted)


def old_sessions() -> Option:
    """Return the kind of a reader of another library's sessions."""

    def accepted(value: Any) -> Any:
        readers = sys.modules.get("greenroom.web.old_sessions")  # not imported, as above
        if value is None or (readers is not None and isinstance(value, readers.OldSessions)):
            return value
        _refuse()

    return Option(
        "the reader of another library's sessions, from greenroom.integrations.moving, "
        "for example StarletteCookies(old_secret_key), or None",
        accepted,
    )


def skip() -> Option:
    """Return the kind of `skip`, which says which paths get no session."""

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
    if any(each in value for each in "*?#{<"):
        _refuse("a path is no pattern: it stands for itself and all below it; a function can tell more")
    return str.__str__(value)


def keep(meaning: str) -> Option:
    """Return the kind of the keys of a session that survive something."""

    def accepted(value: Any) -> bool | frozenset[str | int]:
        if value is True or value is False:
            return value
        if isinstance(value, str):
            _refuse('not one str: for one key give ("it",)')
        if not isinstance(value, list | tuple | set | frozenset):
            _refuse()
        for each in value:
            if isinstance(each, bool) or not isinstance(each, str | int):
                _refuse(f"{_described(each)} is no key")
        return frozenset(value)

    return Option(f'{meaning}: its keys, such as ("cart",), True for all or False for none', accepted)


def methods(meaning: str, *names: str, none: bool = True) -> Option:
    """Return the kind of an object with these methods."""

    def accepted(value: Any) -> Any:
        if (none and value is None) or (
            not isinstance(value, type) and all(callable(getattr(value, each, None)) for each in names)
        ):
            return value
        _refuse()

    return Option(f"{meaning}: an object with {' and '.join(names)}{', or None' if none else ''}", accepted)


def path(meaning: str, *, none: bool = False) -> Option:
    """Return the kind of a path of a file."""

    def accepted(value: Any) -> str | None:
        if none and value is None:
            return None
        if not isinstance(value, str | os.PathLike):
            _refuse()
        plain = os.fspath(value)
        if not isinstance(plain, str) or not plain or "\0" in plain:
            _refuse("not an empty one, nor one with a zero byte")
        return plain

    return Option(f"{meaning}: a str or path of a file{', or None' if none else ''}", accepted)


def or_none(option: Option) -> Option:
    """Return the same kind that takes None too."""
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
    """Describe a value without showing it, unless it is a number."""
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
