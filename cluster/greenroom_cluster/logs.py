"""Structured logs on stderr: text for people, or one JSON object per line for machines."""

import logging
import os
import sys
from contextlib import suppress
from typing import Annotated, Literal, TextIO, cast

import msgspec
import structlog

from greenroom_cluster.flags import Flag

LogFormat = Literal["text", "json"]
COORDINATOR = "coordinator"
"""How the log names the processes of a coordinator."""

LogLevel = Literal["debug", "info", "warning", "error"]

# Local variables are left out: they may hold session ids and user data.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


class LogSettings(msgspec.Struct, frozen=True):
    """Format and level of the logs of a process and those that it supervises."""

    format: Annotated[
        LogFormat,
        Flag(help="Format of the log on stderr.", option="--log-format", variable="GREENROOM_LOG_FORMAT"),
    ] = "text"
    level: Annotated[
        LogLevel,
        Flag(
            help="The least serious level that is logged.",
            option="--log-level",
            variable="GREENROOM_LOG_LEVEL",
        ),
    ] = "info"


class _Writer:
    """Adds to each line which process writes it, by the name that others know it by, and its process id."""

    def __init__(self, name: str) -> None:
        self._fields = {"from": name, "from_pid": os.getpid()}

    def __call__(
        self, _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event.update(self._fields)
        return event


class LossyFile:
    """Text for people that is dropped where nobody can get it any more: no reason to end, or to lose data.

    The terminal may be gone, or who read the other end of a pipe, or the disk full.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write it, if that is possible."""
        with suppress(OSError):
            return self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Have what was written arrive, if that is possible."""
        with suppress(OSError):
            self._file.flush()


def configure(settings: LogSettings, writer: str = "") -> None:
    """Set up the logs of this process.

    `writer` is the slot of an actor, the name of a node or what else it is, and stands in each line; without
    one, as for a command that only asks, nothing does.
    """
    renderer: structlog.typing.Processor
    if settings.format == "json":
        renderer = structlog.processors.JSONRenderer()
        errors: list[structlog.typing.Processor] = [_TRACEBACKS]
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        errors = []
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([_Writer(writer)] if writer else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *errors,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", LossyFile(sys.stderr))),
        cache_logger_on_first_use=False,
    )
