"""Tokens to a condition, by recursive descent.

::

    condition := and_part ("or" and_part)*
    and_part  := not_part ("and" not_part)*
    not_part  := "not" not_part | clause ("for" NUMBER)?
    clause    := "(" condition ")" | quantified | term test?
    test      := OPERATOR term | ["not"] "in" list | ["not"] ("like" | "ilike") TEXT
               | "is" ["not"] ("missing" | "present" | "null") | "within" "[" TIME? "," TIME? ")"
    quantified := ("some" | "none") "(" NAME ["," condition] ")"
    term      := NUMBER | TEXT | TIME | "true" | "false" | NAME | call
               | "count" "(" NAME ["," condition] ")"
    call      := NAME "(" [argument ("," argument)*] ")"
    argument  := [NAME "="] term
    list      := "(" literal ("," literal)* ")" | "[" literal ("," literal)* "]"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from modelyard.criteria.cursor import Cursor
from modelyard.criteria.lexer import Kind, Token
from modelyard.criteria.model import (
    LITERALS,
    MAX_CLAUSES,
    MAX_DEPTH,
    All,
    AnyOf,
    Call,
    Comparison,
    Condition,
    Count,
    Fact,
    Held,
    Instant,
    Literal,
    Match,
    Membership,
    Name,
    NoneOf,
    Not,
    Number,
    Operator,
    Presence,
    Some,
    Subject,
    Term,
    Text,
    Truth,
    Within,
)
from modelyard.criteria.names import depth
from modelyard.criteria.parse_error import ParseError
from modelyard.errors import Invalid

N = TypeVar("N")

_CONTINUATIONS = ("`and`", "`or`", "the end")
_TESTS = ("a comparison such as >=", "`in`", "`like`", "`is missing`", "`within`", "`for`", *_CONTINUATIONS)
_PRESENCE = {"missing": False, "present": True, "null": False}


def parse(text: str, known: Iterable[str] | None = None) -> Condition:
    """Read a condition.

    >>> parse("roc_auc >= 0.85 and not drift")
    All(parts=(Comparison(left=Name(path='roc_auc'), operator=<Operator.GE: '>='>, right=Number(value=0.85,\
 unit=None)), Not(part=Fact(subject=Name(path='drift')))))

    Args:
        text: The condition, at most 10,000 characters, nested at most 32 deep, of at most 200 clauses.
        known: Names that may be meant; used for hints only. Whether every name is known is the question of
            :func:`~modelyard.criteria.names.check_names`.

    Raises:
        ParseError: If the text is no condition; says where, what was expected, and the nearest known word.
    """
    return _Parser(text, () if known is None else known).whole()


class _Parser(Cursor):
    """One pass over the tokens of one text."""

    def __init__(self, text: str, known: Iterable[str]) -> None:
        super().__init__(text, known)
        self._depth = 0
        self._clauses = 0

    def whole(self) -> Condition:
        condition = self._condition()
        if self.token.kind is not Kind.END:
            self.fail(_CONTINUATIONS)
        if depth(condition) > MAX_DEPTH:
            raise self._too_deep(self.tokens[0])
        return condition

    # -- conditions ------------------------------------------------------------------------------------

    def _condition(self) -> Condition:
        parts = [self._and_part()]
        while self.accept_keyword("or"):
            parts.append(self._and_part())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _and_part(self) -> Condition:
        parts = [self._not_part()]
        while self.accept_keyword("and"):
            parts.append(self._not_part())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _not_part(self) -> Condition:
        if self.accept_keyword("not"):
            with self._nested():
                return Not(self._not_part())
        condition = self._clause()
        if self.accept_keyword("for"):
            if not isinstance(self.token.literal, Number):
                self.fail(["a duration such as 24h"])
            with self._building(self.token):
                return Held(condition, self._number())
        return condition

    def _clause(self) -> Condition:
        if self.accept_mark("("):
            with self._nested():
                condition = self._condition()
                self.expect_mark(")", _CONTINUATIONS[:2])
            return condition
        self._count_clause()
        if self.quantifies("some") or self.quantifies("none"):
            node = Some if self.advance().value.lower() == "some" else NoneOf
            return node(*self._relation())
        start = self.token
        return self._test(self._term("a condition"), start)

    def _test(self, term: Term, start: Token) -> Condition:
        token = self.token
        if token.kind is Kind.OPERATOR:
            self.advance()
            operator, right = Operator(token.value), self._term("a value")
            if self.token.kind is Kind.OPERATOR:
                self.fail(_CONTINUATIONS, hint="Write a chain as two comparisons joined by `and`.")
            with self._building(start):
                return Comparison(term, operator, right)
        if isinstance(term, LITERALS):
            self.fail(["a comparison such as >="])
        if token.kind is Kind.KEYWORD and token.value in {"not", "in", "like", "ilike", "is", "within"}:
            return self._worded_test(term)
        if isinstance(term, Count):
            self.fail(["a comparison such as >="])
        after = self.token
        if after.kind not in {Kind.END, Kind.KEYWORD} and after.source not in {")", ","}:
            self.fail(_TESTS, after=term)
        return Fact(term)

    def _worded_test(self, subject: Subject) -> Condition:
        if self.accept_keyword("is"):
            negated = self.accept_keyword("not")
            present = _PRESENCE.get(self.token.value.lower()) if self.token.kind is Kind.NAME else None
            if present is None:
                self.fail(["`missing`", "`present`", "`null`"], words=_PRESENCE)
            self.advance()
            return Presence(subject, present is not negated)
        if self.accept_keyword("within"):
            return self._range(subject)
        negated = self.accept_keyword("not")
        if self.accept_keyword("in"):
            return Membership(subject, self._list(), negated)
        if not self.is_keyword("like") and not self.is_keyword("ilike"):
            self.fail(["`in`", "`like`", "`ilike`"])
        any_case = self.advance().value == "ilike"
        if self.token.kind is not Kind.TEXT:
            self.fail(["a quoted pattern such as 'churn-%'"])
        return Match(subject, self.advance().value, any_case, negated)

    def _range(self, subject: Subject) -> Within:
        opening = self.expect_mark("[", hint="A range of time is written [start, end) and either may be left out.")
        start = self._end_of_range()
        self.expect_mark(",")
        end = self._end_of_range()
        self.expect_mark(")", hint="A range of time does not hold its end: [start, end).")
        with self._building(opening):
            return Within(subject, start, end)

    def _end_of_range(self) -> Instant | None:
        if isinstance(self.token.literal, Instant):
            self.advance()
            return self._literal_before(Instant)
        if self.token.source not in {",", ")", "]"}:
            self.fail(["a time such as 2026-07-01"])
        return None

    def _relation(self) -> tuple[Name, Condition | None]:
        """Read ``(relation[, condition])``."""
        self.expect_mark("(")
        with self._nested():
            if self.token.kind is not Kind.NAME:
                self.fail(["the name of a relation"])
            relation = Name(self.advance().value)
            where = self._condition() if self.accept_mark(",") else None
            self.expect_mark(")", ["`,`"] if where is None else _CONTINUATIONS[:2])
        return relation, where

    # -- terms -----------------------------------------------------------------------------------------

    def _term(self, expected: str) -> Term:
        token = self.token
        if token.kind is Kind.NAME:
            if self.quantifies("count"):
                self.advance()
                return Count(*self._relation())
            self.advance()
            return self._call(token) if self.is_mark("(") else Name(token.value)
        literal = self._accept_literal()
        if literal is None:
            keyword = token.kind is Kind.KEYWORD
            self.fail([expected], hint=f"As a name it is written `{token.source}`." if keyword else "")
        return literal

    def _call(self, token: Token) -> Call:
        self.expect_mark("(")
        args: list[Term] = []
        options: list[tuple[str, Term]] = []
        with self._nested():
            while not self.is_mark(")"):
                word, equals = self.token, self.tokens[min(self.index + 1, len(self.tokens) - 1)]
                if word.kind is Kind.NAME and equals.source == "=":
                    self.index += 2
                    options.append((word.source, self._term("a value")))
                elif options:
                    self.fail(["`name=value`"], hint="Arguments without a name come first.")
                else:
                    args.append(self._term("an argument"))
                if not self.accept_mark(","):
                    break
            self.expect_mark(")", ["`,`"])
        with self._building(token):
            return Call(token.source, tuple(args), tuple(options))

    def _list(self) -> tuple[Literal, ...]:
        closing = {"(": ")", "[": "]"}.get(self.token.source)
        if closing is None:
            self.fail(["a list such as ('a', 'b')"])
        self.advance()
        values: list[Literal] = []
        while True:
            literal = self._accept_literal()
            if literal is None:
                self.fail(["a value"], hint="Text in a list is quoted.")
            values.append(literal)
            if not self.accept_mark(","):
                break
        self.expect_mark(closing, ["`,`"])
        return tuple(values)

    def _accept_literal(self) -> Literal | None:
        token = self.token
        if token.literal is not None:
            self.advance()
            return token.literal
        if token.kind is Kind.TEXT:
            self.advance()
            return Text(token.value)
        if token.kind is Kind.KEYWORD and token.value in {"true", "false"}:
            self.advance()
            return Truth(token.value == "true")
        return None

    def _number(self) -> Number:
        self.advance()
        return self._literal_before(Number)

    def _literal_before(self, kind: type[N]) -> N:
        literal = self.tokens[self.index - 1].literal
        if not isinstance(literal, kind):
            raise TypeError(f"token {self.index - 1} holds no {kind.__name__}")
        return literal

    # -- limits -------------------------------------------------------------------------------------------

    @contextmanager
    def _nested(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._too_deep(self.token)
        yield
        self._depth -= 1

    def _too_deep(self, token: Token) -> ParseError:
        return ParseError(self.text, token.offset, f"A condition nests at most {MAX_DEPTH} deep; this goes deeper")

    def _count_clause(self) -> None:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise ParseError(
                self.text,
                self.token.offset,
                f"A condition has at most {MAX_CLAUSES} clauses; this is one more",
            )

    @contextmanager
    def _building(self, token: Token) -> Iterator[None]:
        """Point at a token when the node that begins there cannot be built."""
        try:
            yield
        except ParseError:
            raise
        except Invalid as error:
            raise ParseError(self.text, token.offset, error.message.rstrip(".")) from error
