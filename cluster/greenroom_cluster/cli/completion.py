"""The command that prints how a shell completes commands and options.

The library under the command line has options for that. They look at which shell has started the command, so
that a package or an image could not have the scripts of all shells; hence a command, with the same scripts.
"""

from typing import Annotated, Literal

import typer
from typer._completion_classes import completion_init
from typer._completion_shared import get_completion_script

from greenroom_cluster.cli.asking import print_line

_NAME = "greenroom"
_VARIABLE = "_GREENROOM_COMPLETE"  # by which the library knows that a shell asks

# What zsh loads from `$fpath` when somebody presses Tab for the first time is to complete at once, and the
# library's script only says who does.
_AUTOLOADED = f"""

if [[ $funcstack[1] == _{_NAME} ]]; then
  _{_NAME}_completion
fi"""

Shell = Literal["bash", "zsh", "fish"]


def add_commands(app: typer.Typer) -> None:
    """Add it to the command line, and have that answer shells."""
    completion_init()
    app.command(short_help="Print how a shell completes commands and options.")(completion)


def completion(shell: Annotated[Shell, typer.Argument(help="The shell.")]) -> None:
    """Print a script that has a shell complete commands, options and their choices.

    For bash: `greenroom completion bash > ~/.local/share/bash-completion/completions/greenroom`, once that
    directory is there.
    """
    script = get_completion_script(prog_name=_NAME, complete_var=_VARIABLE, shell=shell)
    print_line(script + _AUTOLOADED if shell == "zsh" else script)
