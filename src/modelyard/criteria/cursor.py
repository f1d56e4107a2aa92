"""Walking over the tokens of a condition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from modelyard.criteria.lexer import Kind, Token, tokenize
from modelyard.criteria.model import KEYWORDS, QUANTIFIERS, Name, Term
from modelyard.criteria.parse_error import ParseError
from modelyard.errors import nearest


class Cursor:
    """A place among the tokens of one text, and the error for what stands there."""

    def __init__(self, text: str, known: Iterable[str]) -> None:
        self.text = text
        self.known = tuple(known)
        self.tokens = tokenize(text)
        self.index = 0

    @property
    def token(self) -> Token:
        """The current token."""
        return self.tokens[self.index]

    def advance(self) -> Token:
        """Step over the current token and return it."""
        self.index += 1
        return self.tokens[self.index - 1]

    def is_keyword(self, word: str) -> bool:
        """Say whether the current token is a keyword."""
        return self.token.kind is Kind.KEYWORD and self.token.value == word

    def accept_keyword(self, word: str) -> bool:
        """Step over a keyword if it is the current token."""
        found = self.is_keyword(word)
        self.index += found
        return found

    def is_mark(self, mark: str) -> bool:
        """Say whether the current token is a mark."""
        return self.token.kind is Kind.MARK and self.token.value == mark

    def accept_mark(self, mark: str) -> bool:
        """Step over a mark if it is the current token."""
        found = self.is_mark(mark)
        self.index += found
        return found

    def expect_mark(self, mark: str, others: Sequence[str] = (), hint: str = "") -> Token:
        """Step over a mark, or fail; ``others`` could have stood there too."""
        if not self.is_mark(mark):
            self.fail([f"`{mark}`", *others], hint=hint)
        return self.advance()

    def quantifies(self, word: str) -> bool:
        """Say whether the current token is ``word`` before a parenthesis."""
        following = self.tokens[min(self.index + 1, len(self.tokens) - 1)]
        return self.token.kind is Kind.NAME and self.token.value.lower() == word and following.source == "("

    def fail(
        self,
        expected: Sequence[str],
        *,
        words: Iterable[str] = (),
        after: Term | None = None,
        hint: str = "",
    ) -> NoReturn:
        """Raise for the current token; ``after`` is a name that the token may have been meant to continue."""
        token = self.token
        candidates = (*KEYWORDS, *QUANTIFIERS, *words, *self.known)
        near = None
        if isinstance(after, Name) and token.kind is Kind.NAME:
            near = nearest(f"{after.path}_{token.value}", self.known)
        if near is None and token.kind is Kind.NAME:
            near = nearest(token.value, candidates) or nearest(token.value.lower(), candidates)
        found = f"`{token.source}` is unexpected" if token.source else "The condition ends too early"
        raise ParseError(self.text, token.offset, found, expected=expected, near=near, hint=hint)
