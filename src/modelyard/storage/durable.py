"""Write a file so that it is either there whole, on the disk, or not there at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from modelyard.errors import StorageFull, Unavailable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PARTIAL_PREFIX = ".partial-"


@contextmanager
def whole_file(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a stream whose content appears at ``path`` at the end of the block, durably, or not at all.

    Missing folders are created. An existing file is replaced in one step.

    Raises:
        StorageFull: If the disk or a quota is full.
        Unavailable: If the file cannot be written for another reason.
    """
    partial = path.with_name(f"{PARTIAL_PREFIX}{os.urandom(8).hex()}")
    with translated(path):
        make_folder(path.parent)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(descriptor)
            partial.replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                partial.unlink()
            raise
        sync_folder(path.parent)


def write_whole(path: Path, content: bytes | memoryview, *, mode: int = 0o644) -> None:
    """Write ``content`` to ``path``: whole and on the disk, or not at all."""
    with whole_file(path, mode=mode) as stream:
        stream.write(content)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents so that they outlive a loss of power."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about ``path`` into ours; a missing file stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                f"There is no room to write {path.name}. Free some space; no restart is needed."
            ) from error
        raise Unavailable(f"{path.name} cannot be used: {error.strerror or error}.") from error
