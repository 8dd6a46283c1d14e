"""The tree in the docstring of `greenroom.errors` is the tree of the classes."""

import inspect
import re

import greenroom
from greenroom import errors


def drawn_tree() -> dict[str, str | None]:
    """Each name of the docstring's tree with the name that it hangs under."""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([ │├└─]*)([A-Z]\w+(?:Error))\b", line)
        if found is None:
            continue
        depth = len(found[1])
        while path and path[-1][0] >= depth:
            path.pop()
        parents[found[2]] = path[-1][1] if path else None
        path.append((depth, found[2]))
    return parents


def real_tree() -> dict[str, str | None]:
    classes = {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }
    return {
        name: base.__name__ if (base := kind.__mro__[1]).__name__ in classes else None
        for name, kind in classes.items()
    }


def test_docstring_draws_the_classes() -> None:
    assert drawn_tree() == real_tree()
    assert len(real_tree()) >= 15


def test_every_error_is_public_and_says_what_it_means() -> None:
    for name in real_tree():
        kind = getattr(greenroom, name)
        assert name in greenroom.__all__
        assert kind.__doc__


def test_invariant_errors_are_no_errors_of_the_caller() -> None:
    assert issubclass(errors.InvariantError, AssertionError)
    assert not issubclass(errors.InvariantError, errors.GreenroomError)


def test_outcome_unknown_says_whether_repeating_is_harmless() -> None:
    for harmless in (True, False):
        error = errors.OutcomeUnknownError("what", harmless_to_repeat=harmless)
        assert error.harmless_to_repeat is harmless
        assert str(error) == "what"
