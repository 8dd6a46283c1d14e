"""Docstrings as pages have them: examples at a prompt become blocks of code."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^(?P<margin> *)>>>.*\n?(?:(?P=margin)(?:>>>|\.\.\.).*\n?)*", re.MULTILINE)
_PROMPT = re.compile(r"^ *(?:>>>|\.\.\.) ?", re.MULTILINE)


def fenced(text: str) -> str:
    """Return a docstring with its examples as blocks, without their prompts."""
    return _EXAMPLE.sub(lambda example: f"```python\n{_PROMPT.sub('', example[0]).rstrip()}\n```\n", text)


class Fenced(griffe.Extension):
    """Does so for every docstring of the reference."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object that was read."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
