"""Escaping of untrusted text before it reaches a terminal."""


def printable(text: str) -> str:
    """Return the text with all characters escaped that could control a terminal or reorder its output."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
