"""One way to hold a model: formats, signatures, safe loading, and the fastest exact engine to predict with.

    save_model    any fitted model -> a folder that Modelyard and MLflow open
    Predictor     a folder -> scores, labels and warnings, the same in evaluation and in serving
    Signature     what goes in and comes out; checks rows with errors that name row, column and expectation
    verify_engine native engine against the model's own code, on real rows
    run_confined  anything that unpickles, in a child without secrets, network or much memory
    folder_digest the name of a model's content

Names load on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.models.comparison import verify_engine
    from modelyard.models.confined import ConfinedFailure, ConfinedResult, run_confined
    from modelyard.models.decoder import Decoder
    from modelyard.models.digest import ModelFile, check_digest, files, folder_digest
    from modelyard.models.faults import (
        BadModelFolder,
        MissingColumn,
        NoFiniteScore,
        NullNotAllowed,
        UnexpectedColumn,
        UnknownCategory,
        Untrusted,
        WrongType,
    )
    from modelyard.models.frame import Columns, DataWarning, Frame, to_columns, to_pandas
    from modelyard.models.inference import infer_signature
    from modelyard.models.info import ModelInfo, Traits, read_info
    from modelyard.models.inspection import inspect_confined, verify_confined
    from modelyard.models.predictor import PredictionBatch, Predictor
    from modelyard.models.saving import flavor_of, save_model
    from modelyard.models.signature import ColumnSpec, Signature
    from modelyard.models.verification import Verification, record_verification

_HOMES = {
    "comparison": ("verify_engine",),
    "confined": ("ConfinedFailure", "ConfinedResult", "run_confined"),
    "decoder": ("Decoder",),
    "digest": ("ModelFile", "check_digest", "files", "folder_digest"),
    "faults": (
        "BadModelFolder",
        "MissingColumn",
        "NoFiniteScore",
        "NullNotAllowed",
        "UnexpectedColumn",
        "UnknownCategory",
        "Untrusted",
        "WrongType",
    ),
    "frame": ("Columns", "DataWarning", "Frame", "to_columns", "to_pandas"),
    "inference": ("infer_signature",),
    "info": ("ModelInfo", "Traits", "read_info"),
    "inspection": ("inspect_confined", "verify_confined"),
    "predictor": ("PredictionBatch", "Predictor"),
    "saving": ("flavor_of", "save_model"),
    "signature": ("ColumnSpec", "Signature"),
    "verification": ("Verification", "record_verification"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BadModelFolder",
    "ColumnSpec",
    "Columns",
    "ConfinedFailure",
    "ConfinedResult",
    "DataWarning",
    "Decoder",
    "Frame",
    "MissingColumn",
    "ModelFile",
    "ModelInfo",
    "NoFiniteScore",
    "NullNotAllowed",
    "PredictionBatch",
    "Predictor",
    "Signature",
    "Traits",
    "UnexpectedColumn",
    "UnknownCategory",
    "Untrusted",
    "Verification",
    "WrongType",
    "check_digest",
    "files",
    "flavor_of",
    "folder_digest",
    "infer_signature",
    "inspect_confined",
    "read_info",
    "record_verification",
    "run_confined",
    "save_model",
    "to_columns",
    "to_pandas",
    "verify_confined",
    "verify_engine",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
