"""Text of a condition to tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from modelyard.criteria.model import KEYWORDS, MAX_CHARACTERS, Instant, Number, Operator
from modelyard.criteria.parse_error import ParseError
from modelyard.criteria.units import INTEGER_LIMIT, UNITS
from modelyard.errors import Invalid, nearest

_SPACE = re.compile(r"\s*")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}(?!\d)(?:T[\d:.]*(?:Z|[+-][\d:]+)?)?", re.ASCII)
_NUMBER = re.compile(r"-?(?:\d[\d_]*(?:\.\d[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?", re.ASCII)
_UNIT = re.compile(r"%|[^\W\d]\w*")
_TEXT = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_PART = r"(?:[^\W\d]\w*|`(?:[^`]|``)*`)"
_NAME = re.compile(rf"{_PART}(?:\.{_PART})*")
_PARTS = re.compile(_PART)
_GROUPED = re.compile(r"\d+(?:_\d+)*", re.ASCII)
_OPERATOR = re.compile(r"==|!=|>=|<=|[=<>](?![=<>])")
_MARKS = "()[],"
_FOREIGN = {"<>": "!=", "&&": "and", "||": "or", "≥": ">=", "≤": "<=", "≠": "!=", "=>": ">=", "=<": "<="}
_FOREIGN_SINGLE = {"&": "and", "|": "or", "!": "not"}


class Kind(Enum):
    """What a token is."""

    NAME = auto()
    KEYWORD = auto()
    NUMBER = auto()
    TEXT = auto()
    TIME = auto()
    OPERATOR = auto()
    MARK = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """One token.

    Attributes:
        kind: What it is.
        source: How it was written.
        offset: Where it begins, from 0.
        value: The path of a name, the word of a keyword in lower case, a string without its quotes, the
            operator or mark; empty for numbers and times.
        literal: The number or time.
    """

    kind: Kind
    source: str
    offset: int
    value: str = ""
    literal: Number | Instant | None = None


def tokenize(text: str) -> list[Token]:
    """Split a text into tokens, the last of which is the end.

    Raises:
        ParseError: If the text is too long or holds something that is no token.
    """
    if len(text) > MAX_CHARACTERS:
        raise ParseError(text, MAX_CHARACTERS, f"A condition has at most {MAX_CHARACTERS:,} characters")
    tokens: list[Token] = []
    offset = _skip(text, 0)
    while offset < len(text):
        token = _next(text, offset)
        tokens.append(token)
        offset = _skip(text, offset + len(token.source))
    tokens.append(Token(Kind.END, "", len(text)))
    return tokens


def _skip(text: str, offset: int) -> int:
    found = _SPACE.match(text, offset)
    return found.end() if found else offset


def _next(text: str, offset: int) -> Token:
    if found := _TIME.match(text, offset):
        return Token(Kind.TIME, found[0], offset, literal=_instant(text, found))
    if found := _NUMBER.match(text, offset):
        return _number(text, found)
    if found := _NAME.match(text, offset):
        return _word(found[0], offset)
    if found := _TEXT.match(text, offset):
        quote = found[0][0]
        return Token(Kind.TEXT, found[0], offset, found[0][1:-1].replace(quote * 2, quote))
    if found := _OPERATOR.match(text, offset):
        operator = Operator.EQ if found[0] == "==" else Operator(found[0])
        return Token(Kind.OPERATOR, found[0], offset, operator.value)
    if text[offset] in _MARKS:
        return Token(Kind.MARK, text[offset], offset, text[offset])
    raise _unreadable(text, offset)


def _word(source: str, offset: int) -> Token:
    if source.lower() in KEYWORDS:
        return Token(Kind.KEYWORD, source, offset, source.lower())
    parts = _PARTS.findall(source)
    path = ".".join(part[1:-1].replace("``", "`") if part[0] == "`" else part for part in parts)
    return Token(Kind.NAME, source, offset, path)


def _number(text: str, found: re.Match[str]) -> Token:
    offset, digits = found.start(), found[0]
    mantissa = re.split("[eE]", digits.removeprefix("-"))[0]
    if not all(_GROUPED.fullmatch(group) for group in mantissa.split(".") if group):
        raise ParseError(text, offset, f"`{digits}` is no number", hint="Write _ between digits only.")
    unit = _UNIT.match(text, found.end())
    if unit is not None and unit[0] not in UNITS:
        raise ParseError(
            text,
            unit.start(),
            f"`{unit[0]}` is no unit",
            expected=[f"one of the units {', '.join(UNITS)}"],
            near=nearest(unit[0], UNITS) or nearest(unit[0].lower(), UNITS),
            hint="A name that begins with a digit is written between back quotes.",
        )
    try:
        number = Number(_value(digits.replace("_", "")), unit[0] if unit else None)
    except Invalid as error:
        raise ParseError(text, offset, error.message.rstrip(".")) from error
    return Token(Kind.NUMBER, digits + (unit[0] if unit else ""), offset, literal=number)


def _value(digits: str) -> int | float:
    if not digits.removeprefix("-").isdigit():
        return float(digits)
    # Python refuses to read integers of thousands of digits; a number that long is out of range anyway.
    significant = digits.lstrip("-0") or "0"
    value = int(significant) if len(significant) <= len(str(INTEGER_LIMIT)) else INTEGER_LIMIT
    return -value if digits.startswith("-") else value


def _instant(text: str, found: re.Match[str]) -> Instant:
    try:
        return Instant(datetime.fromisoformat(found[0]))
    except (ValueError, Invalid) as error:
        raise ParseError(
            text,
            found.start(),
            f"`{found[0]}` is no time",
            expected=["an ISO date such as 2026-07-01", "a time such as 2026-07-01T12:30:00Z"],
        ) from error


def _unreadable(text: str, offset: int) -> ParseError:
    character = text[offset]
    if character in "'\"`":
        return ParseError(text, offset, f"The quote {character} is never closed")
    foreign = next((word for word in _FOREIGN if text.startswith(word, offset)), character)
    near = _FOREIGN.get(foreign) or _FOREIGN_SINGLE.get(foreign)
    hint = "" if near else "A name with unusual characters is written between back quotes: `val/auc`."
    return ParseError(text, offset, f"`{foreign}` means nothing here", near=near, hint=hint)
