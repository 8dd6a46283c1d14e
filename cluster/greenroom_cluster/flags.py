"""Metadata that makes a field of settings an option of the command line."""

from typing import Any

import msgspec


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of a field, in `Annotated`: the field is an option of the commands that take these settings.

    Option and variable are named after the field, unless they are given here: `drain_seconds` is
    `--drain-seconds` and `GREENROOM_DRAIN_SECONDS`. A bool whose option is not given here has a `--no-` form
    too. `shown_default` as for `typer.Option`.
    """

    help: str
    option: str = ""
    variable: str = ""
    shown_default: Any = True
