"""Options of a command made from the fields of its settings (`greenroom_cluster.flags`)."""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import typer

from greenroom_cluster.flags import Flag

Settings = TypeVar("Settings", bound=msgspec.Struct)


def with_options_of(kind: type[Settings]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace the first parameter of a command, which takes such settings, by their options."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        options = list(_options(kind))
        hints = get_type_hints(command, include_extras=True)
        own = list(inspect.signature(command).parameters.values())[1:]
        own = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]

        def run(**values: Any) -> None:
            taken = {option.name: values.pop(option.name) for option in options}
            command(_settings(kind, taken), **values)

        # Arguments come first; the order of options is that in which they are shown.
        parameters = sorted([*options, *own], key=lambda parameter: parameter.kind)
        run.__name__ = command.__name__
        run.__doc__ = command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _options(
    kind: type[msgspec.Struct], defaults: msgspec.Struct | None = None
) -> Iterator[inspect.Parameter]:
    """Yield a parameter for typer for each field with a Flag, also of nested settings."""
    for field in msgspec.structs.fields(kind):
        default = field.default if defaults is None else getattr(defaults, field.name)
        if isinstance(default, msgspec.Struct):
            yield from _options(type(default), default)
        elif (flag := _flag(field.type)) is not None:
            option = typer.Option(
                *([flag.option] if flag.option else []),
                help=flag.help,
                envvar=flag.variable or f"GREENROOM_{field.name.upper()}",
                show_default=flag.shown_default,
            )
            yield inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if default is msgspec.NODEFAULT else default,
                annotation=Annotated[get_args(field.type)[0], option],
            )


def _flag(hint: Any) -> Flag | None:
    if get_origin(hint) is not Annotated:
        return None
    return next((each for each in get_args(hint)[1:] if isinstance(each, Flag)), None)


def _settings(
    kind: type[Settings], values: dict[str, Any], defaults: msgspec.Struct | None = None
) -> Settings:
    """Return settings with these values, which may belong to nested settings."""
    made = {}
    for field in msgspec.structs.fields(kind):
        default = field.default if defaults is None else getattr(defaults, field.name)
        if isinstance(default, msgspec.Struct):
            made[field.name] = _settings(type(default), values, default)
        else:
            made[field.name] = values.get(field.name, default)
    return kind(**made)
