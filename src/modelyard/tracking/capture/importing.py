"""Calling a function once a module has been imported, now or later, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Hook = Callable[[ModuleType], None]


class ImportWatch(MetaPathFinder):
    """Calls hooks after imports; one of them stands first in ``sys.meta_path`` while anything is awaited."""

    def __init__(self) -> None:
        self._hooks: dict[str, Hook] = {}
        self._searching = False

    def when_imported(self, name: str, hook: Hook) -> None:
        """Call ``hook`` with the module: at once if it is imported, otherwise right after its import."""
        module = sys.modules.get(name)
        if module is not None and not _initializing(module):
            hook(module)
            return
        self._hooks[name] = hook
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._hooks.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Let the other finders find an awaited module, and wrap its loader."""
        if self._searching or fullname not in self._hooks:
            return None
        self._searching = True
        try:
            spec = self._found(fullname, path, target)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenCall(spec.loader, self._hooks.pop(fullname))
        return spec

    def _found(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    return spec
        return None


class _ThenCall(Loader):
    """A loader that calls a hook after it has run the module, and then takes itself out again."""

    def __init__(self, inner: Any, hook: Hook) -> None:
        self._inner = inner
        self._hook = hook

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the loader does."""
        module: ModuleType | None = self._inner.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then the hook."""
        self._inner.exec_module(module)
        module.__loader__ = self._inner
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        self._hook(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _initializing(module: ModuleType) -> bool:
    return bool(getattr(module.__spec__, "_initializing", False))
