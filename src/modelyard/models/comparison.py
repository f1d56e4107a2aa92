"""Run a native engine and the model's own code on the same rows, and judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.models.decoder import Decoder, Values
from modelyard.models.frame import Frame, is_null, model_input
from modelyard.models.info import read_info
from modelyard.models.loading import load_native, load_own
from modelyard.models.native import NativeEngine
from modelyard.models.own import OwnModel, labels_of, one_column
from modelyard.models.verification import Verification, compare, rows_digest

_SINGLE_ROWS = 300
"""Rows that also go through the single-row call, which is another function of the library."""


def verify_engine(folder: Path, rows: object, *, trust: bool) -> Verification:
    """Compare the native engine of a folder with the model's own code.

    This loads the model: a server calls it through ``run_confined``. Pass at least 1,000 real rows, with
    nulls and unknown categories where the signature allows them: a defect that touches 1 % of rows escapes
    1,000 of them with probability 4e-5.

    Args:
        folder: The model.
        rows: A table, or a list of rows, that fits the model's own inputs.
        trust: Whether pickles may be loaded.

    Returns:
        The outcome; engine ``own``, passed, without rows if there is nothing to compare.

    Raises:
        Untrusted: If the model's own code is a pickle and not trusted.
        Invalid: If the rows do not fit the signature.
    """
    info = read_info(folder)
    own = load_own(info, trust=trust)
    native = load_native(info, own)
    if native is None or info.model_signature is None:
        return compare("own", found=_NONE, expected=_NONE, label_flips=0, exact=True, digest=rows_digest({}))
    decoder = Decoder(info.model_signature)
    frame = decoder.frame(rows) if isinstance(rows, list) else decoder.columns(rows, ignore=None)
    inputs = model_input(frame.columns, info.model_signature)
    expected = own.scores(inputs)
    found = one_column(native.score(native.encoder.columns(frame.columns)), own.traits)
    single = _one_by_one(native, own, _records(frame))
    return compare(
        native.name,
        found=np.concatenate([found, single]) if found.shape[1:] == single.shape[1:] else found,
        expected=np.concatenate([expected, expected[: len(single)]]),
        label_flips=_flips(own, inputs, found),
        exact=native.exact,
        digest=rows_digest(frame.columns),
    )


_NONE: npt.NDArray[np.float64] = np.empty(0)


def _records(frame: Frame) -> list[Values]:
    """Return the first rows as a request would bring them."""
    lists = [values[:_SINGLE_ROWS].tolist() for values in frame.columns.values()]
    return [tuple(None if is_null(item) else item for item in row) for row in zip(*lists, strict=True)]


def _one_by_one(native: NativeEngine, own: OwnModel, records: list[Values]) -> npt.NDArray[np.float64]:
    scores = [one_column(native.score(native.encoder.values([record])), own.traits) for record in records]
    return np.concatenate(scores) if scores else _NONE


def _flips(own: OwnModel, inputs: Any, found: npt.NDArray[np.float64]) -> int:
    if own.labels is None or not own.traits.classes:
        return 0
    derived = labels_of(found, own.traits)
    return int((np.asarray(own.labels(inputs)).astype(object) != np.asarray(derived).astype(object)).sum())
