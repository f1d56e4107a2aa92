"""What can be wrong with rows, models and model folders, as errors that carry their facts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from modelyard.errors import Forbidden, Invalid, nearest


def _where(row: int | None) -> str:
    return "" if row is None else f"Row {row}: "


class MissingColumn(Invalid):
    """A row or frame lacks a column that the model needs."""

    code: ClassVar[str] = "missing_column"

    def __init__(self, column: str, *, row: int | None, given: Iterable[str]) -> None:
        near = nearest(column, given)
        hint = f" Did you mean it by {near!r}?" if near else ""
        super().__init__(f"{_where(row)}column {column!r} is missing.{hint}", column=column, row=row, near=near)


class UnexpectedColumn(Invalid):
    """A row holds a column that the model does not know."""

    code: ClassVar[str] = "unexpected_column"

    def __init__(self, column: str, *, row: int | None, known: Iterable[str]) -> None:
        near = nearest(column, known)
        hint = f" Did you mean {near!r}?" if near else " Leave it out, or name it among the ignored columns."
        super().__init__(
            f"{_where(row)}column {column!r} is not an input of this model.{hint}",
            column=column,
            row=row,
            near=near,
        )


class WrongType(Invalid):
    """A value is not of its column's type."""

    code: ClassVar[str] = "wrong_type"

    def __init__(self, column: str, *, row: int | None, expected: str, got: object) -> None:
        shown = repr(got)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        super().__init__(
            f"{_where(row)}column {column!r} expects {expected}, got {type(got).__name__} {shown}.",
            column=column,
            row=row,
            expected=expected,
            got=f"{type(got).__name__} {shown}",
        )


class NullNotAllowed(Invalid):
    """A value is null although training saw none in that column."""

    code: ClassVar[str] = "null_not_allowed"

    def __init__(self, column: str, *, row: int | None, expected: str) -> None:
        super().__init__(
            f"{_where(row)}column {column!r} is null, but training saw no null there; send {expected}.",
            column=column,
            row=row,
            expected=expected,
            got="null",
        )


class UnknownCategory(Invalid):
    """The model itself refuses categories that training has not seen."""

    code: ClassVar[str] = "unknown_category"

    def __init__(self, column: str) -> None:
        super().__init__(
            f"Column {column!r} holds a category that this model's encoder refuses "
            "(trained with handle_unknown='error').",
            column=column,
        )


class NoFiniteScore(Invalid):
    """The model gave NaN or infinity for a row."""

    code: ClassVar[str] = "no_finite_score"

    def __init__(self, *, row: int, engine: str) -> None:
        super().__init__(
            f"Row {row}: the model gave no finite score; look for nulls or extreme values in it.",
            row=row,
            engine=engine,
        )


class BadModelFolder(Invalid):
    """A folder does not hold a model that can be read."""

    code: ClassVar[str] = "bad_model_folder"

    def __init__(self, reason: str, *, file: str = "") -> None:
        super().__init__(f"This is not a readable model folder: {reason}", reason=reason, file=file)


class Untrusted(Forbidden):
    """Loading would run code from a file that nobody has vouched for."""

    code: ClassVar[str] = "untrusted_model"

    def __init__(self, file: str, *, flavor: str, reason: str = "it is a pickle, and loading it runs code") -> None:
        super().__init__(
            f"{file!r} of this {flavor} model was not loaded: {reason}. Trust the version first, or "
            "save the model in a format without code (LightGBM text, XGBoost JSON/UBJ, ONNX, linear).",
            file=file,
            flavor=flavor,
            reason=reason,
        )
