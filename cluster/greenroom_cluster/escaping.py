"""Escaping of text that others wrote, before it reaches a terminal."""


def printable(text: str) -> str:
    """Return the text with everything escaped that could steer a terminal or reorder what it shows."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
