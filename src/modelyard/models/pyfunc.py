"""Pickles of Python objects that open where neither Modelyard nor the user's own module is installed.

A callable, or any object with ``predict``, is wrapped in a small class that MLflow's ``python_function``
loader accepts. The class is local to a function, so cloudpickle stores it by value; the module of the user's
object is stored by value too, unless it is an installed package.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from modelyard.errors import MissingExtra


def cloudpickle() -> Any:
    """Import cloudpickle.

    Raises:
        MissingExtra: If it is not installed.
    """
    try:
        import cloudpickle as module  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingExtra("cloudpickle", extra="sklearn", purpose="Saving a Python object as a model") from error
    return module


def wrap(model: object) -> object:
    """Wrap a callable or predictor so that ``mlflow.pyfunc`` can load and call it.

    Source:
        MLflow 3.18, ``mlflow/pyfunc/model.py``: ``_PythonModelPyfuncWrapper`` calls ``load_context`` and
        ``predict(context, model_input, params)`` and reads ``predict_type_hints.input``.
    """
    hints = SimpleNamespace(input=None, output=None)

    class PythonModel:
        predict_type_hints = hints

        def __init__(self, model: Any) -> None:
            self.model = model

        def load_context(self, context: Any) -> None:
            """Nothing to load: the model travels inside the pickle."""

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            """Predict for a pandas frame."""
            method = getattr(self.model, "predict", None)
            return self.model(model_input) if method is None else method(model_input)

    return PythonModel(model)


def dumps(value: object, *, owner: object) -> bytes:
    """Pickle a value, storing the user's own module by value.

    Args:
        value: What to pickle.
        owner: The user's object in it, whose module counts.
    """
    module = cloudpickle()
    import pickle  # noqa: PLC0415, S403 - only its protocol number

    with _by_value(module, owner):
        data: bytes = module.dumps(value, protocol=pickle.DEFAULT_PROTOCOL)
    return data


def loads(data: bytes) -> Any:
    """Unpickle. This runs code from ``data``: callers have checked that it is trusted."""
    return cloudpickle().loads(data)


@contextmanager
def _by_value(module: Any, owner: object) -> Iterator[None]:
    home = _own_module(owner)
    if home is None or home.__name__ in module.list_registry_pickle_by_value():
        yield
        return
    module.register_pickle_by_value(home)
    try:
        yield
    finally:
        module.unregister_pickle_by_value(home)


def _own_module(owner: object) -> ModuleType | None:
    """Return the top package of the module that defines an object, if it is not an installed one."""
    name = getattr(owner, "__module__", None) or type(owner).__module__
    module = sys.modules.get(str(name))
    file = getattr(module, "__file__", None)
    if module is None or name == "__main__" or file is None:
        return None
    installed = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "purelib", "platlib")]
    if any(Path(file).resolve().is_relative_to(folder) for folder in installed):
        return None
    return sys.modules.get(str(name).split(".", 1)[0], module)
