"""The error that a text which is no condition causes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from modelyard.errors import Invalid

_AROUND = 60  # characters shown on either side of the caret, so that the two lines fit a terminal


class ParseError(Invalid):
    """A condition cannot be read; the message shows where, and what was expected there.

    Args:
        text: The whole text.
        offset: Where the trouble begins, from 0.
        problem: What is wrong, as a sentence without its full stop.
        expected: What could have stood there.
        near: The known word that may have been meant.
        hint: One more sentence.
    """

    code: ClassVar[str] = "invalid_condition"

    def __init__(
        self,
        text: str,
        offset: int,
        problem: str,
        *,
        expected: Sequence[str] = (),
        near: str | None = None,
        hint: str = "",
    ) -> None:
        self.column = offset + 1
        self.expected = tuple(expected)
        self.near = near
        sentences = [f"Column {self.column}: {problem}."]
        if expected:
            sentences.append(f"Expected {_either(expected)}.")
        if near is not None:
            sentences.append(f"Did you mean {near!r}?")
        if hint:
            sentences.append(hint)
        self.caret = _caret(text, offset)
        super().__init__(
            " ".join(sentences) + "\n" + self.caret, column=self.column, expected=list(expected), near=near
        )


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _caret(text: str, offset: int) -> str:
    """Return the text around the offset and, on the next line, a caret below it."""
    first, last = max(0, offset - _AROUND), min(len(text), offset + _AROUND)
    shown = "".join(character if character.isprintable() else " " for character in text[first:last])
    before, after = "… " if first else "", " …" if last < len(text) else ""
    return f"  {before}{shown}{after}\n  {' ' * (len(before) + offset - first)}^"
