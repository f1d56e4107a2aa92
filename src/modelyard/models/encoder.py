"""Turn checked values into the one float64 matrix that native engines read.

Numbers stand for themselves, booleans are 0 and 1, a category is its code, null is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.models.decoder import Values
from modelyard.models.frame import Array, Columns, is_null
from modelyard.models.signature import Level

UNKNOWN = -1.0
"""Code of a category that the encoder was not fitted on, where the engine tells it from null."""


@dataclass(frozen=True, slots=True)
class Coding:
    """Codes of one categorical column.

    Attributes:
        levels: Category of code 0, 1, ...
        null: Code of null; NaN if null stays missing.
        unknown: Code of any other value.
    """

    levels: tuple[Level, ...]
    null: float = float("nan")
    unknown: float = float("nan")

    def table(self) -> dict[Level | None, float]:
        """Return the lookup from value to code; null is the key None."""
        codes: dict[Level | None, float] = {level: float(code) for code, level in enumerate(self.levels)}
        codes[None] = self.null
        return codes


@dataclass(frozen=True, slots=True)
class Encoder:
    """Picks columns out of signature order and codes them.

    Attributes:
        names: All signature columns, in the order in which decoded values arrive.
        used: Columns of the matrix, in order; each in ``names``.
        codings: Coding of each used column that is categorical.
    """

    names: tuple[str, ...]
    used: tuple[str, ...]
    codings: Mapping[str, Coding]
    _pick: tuple[int, ...] | None = field(init=False)
    _coded: tuple[tuple[int, dict[Level | None, float], float], ...] = field(init=False)

    def __post_init__(self) -> None:
        pick = tuple(self.names.index(name) for name in self.used)
        whole = pick == tuple(range(len(self.names)))
        object.__setattr__(self, "_pick", None if whole else pick)
        coded = tuple(
            (i, self.codings[name].table(), self.codings[name].unknown)
            for i, name in enumerate(self.used)
            if name in self.codings
        )
        object.__setattr__(self, "_coded", coded)

    def values(self, rows: Sequence[Values]) -> npt.NDArray[np.float64]:
        """Encode decoded rows, each in signature order.

        Returns:
            Shape ``(len(rows), len(used))``, C order.
        """
        picked: Sequence[Sequence[Any]] = rows
        if self._pick is not None:
            picked = [[row[i] for i in self._pick] for row in rows]
        if self._coded:
            lists = [list(row) for row in picked]
            for row in lists:
                for position, table, unknown in self._coded:
                    row[position] = table.get(row[position], unknown)
            picked = lists
        matrix = np.array(picked, dtype=np.float64)
        return matrix if len(rows) else matrix.reshape(0, len(self.used))

    def columns(self, columns: Columns) -> npt.NDArray[np.float64]:
        """Encode checked columns.

        Returns:
            Shape ``(rows, len(used))``, C order.
        """
        count = len(next(iter(columns.values()))) if columns else 0
        matrix = np.empty((count, len(self.used)), dtype=np.float64)
        coded = {position: (table, unknown) for position, table, unknown in self._coded}
        for position, name in enumerate(self.used):
            if position in coded:
                matrix[:, position] = _codes(columns[name], *coded[position])
            else:
                matrix[:, position] = columns[name].astype(np.float64)
        return matrix


def _codes(values: Array, table: dict[Level | None, float], unknown: float) -> list[float]:
    return [table.get(None if is_null(value) else value, unknown) for value in values.tolist()]
