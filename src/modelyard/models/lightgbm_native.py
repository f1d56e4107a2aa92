"""LightGBM through its C library: the exact double that the Python package gives, without its cost.

The shared library is opened by ``ctypes`` (which releases the interpreter lock during each call); neither the
``lightgbm`` Python package nor scikit-learn or pandas is imported. One row goes through the *single-row
fast* call on a buffer of the calling thread. benchmarks/predictor.py measures both against the wrapper.

Source: LightGBM C API, ``include/LightGBM/c_api.h``.
"""

from __future__ import annotations

import ctypes
import json
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.errors import MissingExtra
from modelyard.models.faults import BadModelFolder
from modelyard.models.signature import Level

_FLOAT64 = 1  # C_API_DTYPE_FLOAT64
_NORMAL = 0  # C_API_PREDICT_NORMAL: the objective's own transformation applied
SERIAL_ROWS = 4096
"""Up to this many rows one thread is faster than waking OpenMP's others (measured with 200 trees)."""


@cache
def library() -> ctypes.CDLL:
    """Open the shared library of the installed ``lightgbm`` distribution.

    Raises:
        MissingExtra: If it is not installed.
    """
    spec = find_spec("lightgbm")
    for folder in spec.submodule_search_locations or [] if spec else []:
        for name in ("lib_lightgbm.so", "lib_lightgbm.dylib", "lib_lightgbm.dll"):
            path = Path(folder) / "lib" / name
            if path.exists():
                return _declare(ctypes.CDLL(str(path)))
    raise MissingExtra("lightgbm", extra="lightgbm", purpose="Predicting with a LightGBM model")


def _declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    p, i = ctypes.c_void_p, ctypes.c_int
    i32 = ctypes.c_int32
    lib.LGBM_GetLastError.restype = ctypes.c_char_p
    lib.LGBM_BoosterLoadModelFromString.argtypes = [ctypes.c_char_p, p, p]
    lib.LGBM_BoosterGetNumClasses.argtypes = [p, p]
    lib.LGBM_BoosterGetNumFeature.argtypes = [p, p]
    lib.LGBM_BoosterFree.argtypes = [p]
    lib.LGBM_FastConfigFree.argtypes = [p]
    lib.LGBM_BoosterPredictForMatSingleRowFastInit.argtypes = [p, i, i, i, i, i32, ctypes.c_char_p, p]
    lib.LGBM_BoosterPredictForMatSingleRowFast.argtypes = [p, p, p, p]
    lib.LGBM_BoosterPredictForMat.argtypes = [p, p, i, i32, i32, i, i, i, i, ctypes.c_char_p, p, p]
    return lib


class _Handle:
    """A loaded booster in the C library, freed with the last object that refers to it."""

    def __init__(self, text: str) -> None:
        self.lib = library()
        self.pointer = ctypes.c_void_p()
        if not text.startswith("tree\n"):
            raise BadModelFolder("the LightGBM text does not begin with 'tree'", file="model.lgb")
        iterations, classes, features = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        status = self.lib.LGBM_BoosterLoadModelFromString(
            text.encode(), ctypes.byref(iterations), ctypes.byref(self.pointer)
        )
        if status != 0:
            reason = self.lib.LGBM_GetLastError().decode(errors="replace")
            raise BadModelFolder(f"LightGBM says: {reason[:200]}", file="model.lgb")
        _safe(self.lib, self.lib.LGBM_BoosterGetNumClasses(self.pointer, ctypes.byref(classes)))
        _safe(self.lib, self.lib.LGBM_BoosterGetNumFeature(self.pointer, ctypes.byref(features)))
        self.outputs, self.features = classes.value, features.value

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            self.lib.LGBM_BoosterFree(self.pointer)
            self.pointer = ctypes.c_void_p()


class _RowBuffer:
    """Row, answer and fast configuration of one thread; freed with the thread."""

    def __init__(self, handle: _Handle) -> None:
        self.handle = handle  # the configuration points into it
        self.row = np.empty(handle.features, dtype=np.float64)
        self.out = np.empty(handle.outputs, dtype=np.float64)
        self._length = ctypes.c_int64()
        self._config = ctypes.c_void_p()
        _safe(
            handle.lib,
            handle.lib.LGBM_BoosterPredictForMatSingleRowFastInit(
                handle.pointer,
                _NORMAL,
                0,
                -1,
                _FLOAT64,
                handle.features,
                b"num_threads=1",
                ctypes.byref(self._config),
            ),
        )
        # Bare addresses: a call then builds no ctypes objects.
        self.addresses = (
            self._config.value,
            self.row.ctypes.data,
            ctypes.addressof(self._length),
            self.out.ctypes.data,
        )

    def __del__(self) -> None:
        if getattr(self, "_config", None):
            self.handle.lib.LGBM_FastConfigFree(self._config)
            self._config = ctypes.c_void_p()


class NativeBooster:
    """A model text, loaded and ready to predict. Safe for concurrent use: each thread has its own buffers.

    Args:
        text: LightGBM's text form, holding exactly the trees to use (saved at the best iteration).

    Raises:
        MissingExtra: If LightGBM is not installed.
        BadModelFolder: If LightGBM does not accept the text.
    """

    def __init__(self, text: str) -> None:
        self._handle = _Handle(text)
        self._lib = self._handle.lib
        self.outputs, self.features = self._handle.outputs, self._handle.features
        self._local = threading.local()

    def score(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Predict for a matrix of shape ``(rows, features)``, NaN where missing.

        Returns:
            ``(rows,)`` for one output (binary: probability of the second class), else ``(rows, k)``.
        """
        if len(x) == 1:
            return self._one(x)
        out = np.empty((len(x), self.outputs), dtype=np.float64)
        if len(x):
            x = np.ascontiguousarray(x, dtype=np.float64)
            length = ctypes.c_int64()
            threads = b"num_threads=1" if len(x) <= SERIAL_ROWS else b""
            _safe(
                self._lib,
                self._lib.LGBM_BoosterPredictForMat(
                    self._handle.pointer,
                    x.ctypes.data,
                    _FLOAT64,
                    len(x),
                    self.features,
                    1,  # row-major
                    _NORMAL,
                    0,
                    -1,
                    threads,
                    ctypes.byref(length),
                    out.ctypes.data,
                ),
            )
        return out[:, 0] if self.outputs == 1 else out

    def _one(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        buffer: _RowBuffer | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = _RowBuffer(self._handle)
        buffer.row[:] = x[0]
        if self._lib.LGBM_BoosterPredictForMatSingleRowFast(*buffer.addresses) != 0:
            _safe(self._lib, -1)
        return buffer.out.copy() if self.outputs == 1 else buffer.out[None, :].copy()


def _safe(lib: ctypes.CDLL, status: int) -> None:
    if status != 0:
        raise RuntimeError(f"LightGBM: {lib.LGBM_GetLastError().decode(errors='replace')}")


def pandas_categories(text: str) -> list[list[Level]]:
    """Read the category lists of the pandas columns off the last line of a model text.

    Returns:
        One list of categories per categorical column, in column order; empty if there are none.
    """
    key = "\npandas_categorical:"
    start = text.rfind(key)
    if start < 0:
        return []
    lists: Any = json.loads(text[start + len(key) :].split("\n", 1)[0])
    return [list(categories) for categories in lists or []]


def header(text: str) -> dict[str, str]:
    r"""Read the ``key=value`` lines that stand before the first tree.

    >>> header("tree\nversion=v4\nobjective=binary sigmoid:1\n\nTree=0\n")["objective"]
    'binary sigmoid:1'
    """
    head = text.split("\nTree=", 1)[0]
    return dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
