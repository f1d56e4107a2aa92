"""The one way to ask a model: the fastest exact engine for it, the same in evaluation and in serving."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.models.decoder import Decoder, Row
from modelyard.models.faults import NoFiniteScore, Untrusted
from modelyard.models.frame import Array, Columns, DataWarning, Frame, model_input, to_columns
from modelyard.models.info import ModelInfo, Traits, read_info
from modelyard.models.loading import known_traits, load_native, load_own, load_preprocess
from modelyard.models.native import NativeEngine
from modelyard.models.own import OwnModel, labels_of, one_column
from modelyard.models.signature import Level, Signature
from modelyard.models.verification import Verification, read_verification

OWN = "own"
"""Engine name of the model's own ``predict_proba`` or ``predict``."""
_MISMATCH = "its native engine {!r} did not match the model's own code, which is a pickle"


@dataclass(frozen=True, slots=True)
class PredictionBatch:
    """Answers for some rows.

    Attributes:
        scores: Binary: ``(rows,)``, score of ``traits.positive_label``; multiclass: ``(rows, k)``, in the
            order of ``traits.classes``; regression: ``(rows,)``.
        traits: What the scores mean.
        engine: Which engine gave them.
        warnings: What was odd about the rows.
        find_labels: Computes the labels on demand; None if the model is no classifier.
    """

    scores: npt.NDArray[np.float64]
    traits: Traits
    engine: str
    warnings: tuple[DataWarning, ...] = ()
    find_labels: Callable[[], Array | None] | None = None

    @property
    def labels(self) -> Array | None:
        """What the model's own ``predict`` says, ``(rows,)``; None if no classifier. May cost a call."""
        return None if self.find_labels is None else self.find_labels()

    @property
    def output(self) -> Array:
        """What the model's own ``predict`` returns: labels for estimators, scores for boosters."""
        labels = self.labels if self.traits.predict_returns == "labels" else None
        return self.scores if labels is None else labels


class Predictor:
    """A loaded model.

    Safe for concurrent use by threads: native engines keep one buffer per thread, and the libraries' own
    ``predict`` functions only read the model. A user's callable or hook must itself be safe to call
    concurrently. Load after a fork, not before: the libraries' thread pools do not survive one.

    Where a native engine is in use, the model's own code is not loaded, nor its library imported.

    Attributes:
        info: Description of the model.
        engine: Name of the engine in use.
        verification: Record that speaks for or against the native engine, or None.
        needs_verification: Whether a native engine is in use that was never compared, or was compared under
            other library versions.
    """

    def __init__(
        self,
        info: ModelInfo,
        *,
        own: OwnModel | None,
        native: NativeEngine | None,
        preprocess: Callable[[Columns], Columns] | None = None,
        verification: Verification | None = None,
    ) -> None:
        self.info = info
        self.verification = verification
        self.traits = own.traits if own is not None else known_traits(info)
        self._own = own
        self._native = native
        self._hook = preprocess
        self._outer = Decoder(info.signature) if info.signature else None
        self._inner = Decoder(info.model_signature) if info.model_signature else None
        self.engine = native.name if native is not None else OWN
        self.needs_verification = native is not None and (verification is None or verification.stale)

    @staticmethod
    def load(
        folder: Path, *, trust: bool, verification: Verification | None = None, engine: str | None = None
    ) -> Predictor:
        """Load a model folder, ours or one that MLflow wrote.

        Args:
            folder: Its digest has been checked by the caller.
            trust: Whether pickles in it may be loaded, which runs their code in this process.
            verification: A newer record than the folder's own.
            engine: ``own`` forces the model's own code; None takes the native engine if there is one and no
                record speaks against it.

        Raises:
            Untrusted: If nothing in the folder can predict without running its code.
            BadModelFolder: If it is no readable model.
            MissingExtra: If its library is absent.
        """
        info = read_info(folder)
        record = verification or read_verification(folder)
        hook = load_preprocess(info, trust=trust)
        refused = engine == OWN or (record is not None and not record.passed)
        own = load_own(info, trust=trust) if info.flavor in {"xgboost", "onnx"} else None
        found = None if refused else load_native(info, own)
        if found is None and own is None:
            if info.needs_trust and not trust and record is not None and not record.passed:
                raise Untrusted(info.data_file, flavor=info.flavor, reason=_MISMATCH.format(record.engine))
            own = load_own(info, trust=trust)
        return Predictor(info, own=own, native=found, preprocess=hook, verification=record)

    @property
    def signature(self) -> Signature | None:
        """What callers send; None if the model was saved without data."""
        return self.info.signature

    @property
    def classes(self) -> tuple[Level, ...]:
        """Class labels in the order of multiclass scores; empty if it is no classifier."""
        return self.traits.classes

    def predict(self, data: object, *, apply_hooks: bool = True) -> PredictionBatch:
        """Predict for a table; columns that the model does not use are ignored.

        Args:
            data: pandas or polars frame, PyArrow table, mapping of columns, ``Frame``, or an array of shape
                ``(rows, inputs)`` in signature order.
            apply_hooks: Whether the ``preprocess`` hook runs; without it ``data`` is what the hook returns.

        Raises:
            Invalid: If the table does not fit the signature, or a score is not finite.
        """
        hook = self._hook if apply_hooks else None
        decoder = self._outer if hook is not None or self._hook is None else self._inner
        if decoder is None:
            return self._score(Frame(to_columns(data), _height(data)), hook)
        return self._score(decoder.columns(data, ignore=None), hook)

    def predict_rows(
        self, rows: Sequence[Row], *, ignore: Collection[str] = (), apply_hooks: bool = True
    ) -> PredictionBatch:
        """Predict for rows as they come from a request.

        Args:
            rows: Each a mapping of names to JSON values, or a sequence in signature order; at least one.
            ignore: Names that rows may hold besides the inputs.
            apply_hooks: As ``predict``.

        Raises:
            Invalid: For the first row that does not fit, with its row and column; or a score is not finite.
        """
        if not rows:
            raise Invalid("There are no rows to predict for.")
        hook = self._hook if apply_hooks else None
        decoder = self._outer if hook is not None or self._hook is None else self._inner
        if decoder is None:
            return self._score(_unchecked(rows), hook)
        if self._native is not None and hook is None:
            values, warnings = decoder.rows(rows, ignore=ignore)
            matrix = self._native.encoder.values(values)
            return self._finish(self._native, matrix, decoder, tuple(warnings))
        return self._score(decoder.frame(rows, ignore=ignore), hook)

    def _score(self, frame: Frame, hook: Callable[[Columns], Columns] | None) -> PredictionBatch:
        if hook is not None:
            warnings = frame.warnings
            made = hook(dict(frame.columns))
            inner = self._inner
            frame = Frame(to_columns(made), frame.rows) if inner is None else inner.columns(made, ignore=None)
            frame = replace(frame, warnings=(*warnings, *frame.warnings))
        if self._native is not None:
            return self._finish(self._native, self._native.encoder.columns(frame.columns), None, frame.warnings)
        return self._by_own(frame)

    def _finish(
        self, engine: NativeEngine, matrix: Array, decoder: Decoder | None, warnings: tuple[DataWarning, ...]
    ) -> PredictionBatch:
        if decoder is not None and decoder.strict and _has_nan(matrix):
            _refuse_nulls(decoder, engine, matrix)
        scores = one_column(engine.score(matrix), self.traits)
        self._check_finite(scores, engine.name)
        find = (lambda: labels_of(scores, self.traits)) if self.traits.classes else None
        return PredictionBatch(scores, self.traits, engine.name, warnings, find)

    def _by_own(self, frame: Frame) -> PredictionBatch:
        own = self._own
        if own is None:  # load() makes sure that one of the two exists
            raise Untrusted(self.info.data_file, flavor=self.info.flavor)
        inputs = model_input(frame.columns, self.info.model_signature)
        scores = own.scores(inputs)
        self._check_finite(scores, OWN)
        find = None
        if own.traits.classes:
            labels = own.labels
            find = (lambda: np.asarray(labels(inputs))) if labels else (lambda: labels_of(scores, own.traits))
        return PredictionBatch(scores, own.traits, OWN, frame.warnings, find)

    def _check_finite(self, scores: npt.NDArray[np.float64], engine: str) -> None:
        # The sum of finite scores is finite (or overflows, and the exact look follows): one call for many.
        if not math.isfinite(scores.item() if scores.size == 1 else scores.sum()):
            finite = np.isfinite(scores)
            if not finite.all():
                raise NoFiniteScore(row=int(np.argwhere(~finite)[0][0]), engine=engine)


def _has_nan(matrix: Array) -> bool:
    # Squares are never negative, so infinities cannot cancel: their sum is NaN exactly if a value is.
    flat = matrix.reshape(-1)
    return math.isnan(flat.dot(flat))


def _refuse_nulls(decoder: Decoder, engine: NativeEngine, matrix: Array) -> None:
    names = engine.encoder.used
    full = np.zeros((len(matrix), len(decoder.signature.inputs)))
    for position, name in enumerate(names):
        full[:, decoder.signature.names.index(name)] = matrix[:, position]
    decoder.refuse_nulls(full)


def _height(data: object) -> int:
    columns = to_columns(data)
    return len(next(iter(columns.values()))) if columns else 0


def _unchecked(rows: Sequence[Row]) -> Frame:
    """Turn rows into columns where no signature says what they should hold."""
    first = rows[0]
    if not isinstance(first, Mapping):
        raise Invalid("This model has no signature; send rows as objects that name their columns.")
    records = [row if isinstance(row, Mapping) else {} for row in rows]
    return Frame(to_columns({name: [record.get(name) for record in records] for name in first}), len(rows))
