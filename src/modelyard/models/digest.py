"""The digest that names a model: SHA-256 over every file of its folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from modelyard.models.faults import BadModelFolder

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model folder.

    Attributes:
        path: Relative, with forward slashes.
        sha256: Hex digest of its content.
        size_bytes: Its length.
    """

    path: str
    sha256: str
    size_bytes: int


def files(folder: Path) -> list[ModelFile]:
    """List the files of a folder, sorted by path.

    Raises:
        BadModelFolder: If the folder is absent, or holds a link or a special file (a link could point
            outside the folder, so that its content would not be the model's).
    """
    if not folder.is_dir():
        raise BadModelFolder("there is no such folder", file=folder.name)
    found = []
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BadModelFolder(f"{name!r} is a link or a special file", file=name)
        if path.is_file():
            found.append(ModelFile(name, _sha256(path), path.stat().st_size))
    return found


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 (hex) over path, digest and size of every file, sorted by path.

    Raises:
        BadModelFolder: As ``files``.
    """
    total = hashlib.sha256()
    for file in files(folder):
        # The path is length-prefixed: no two different listings give the same bytes.
        name = file.path.encode()
        total.update(b"%d:%s:%s:%d\n" % (len(name), name, file.sha256.encode(), file.size_bytes))
    return total.hexdigest()


def check_digest(folder: Path, expected: str) -> None:
    """Refuse a folder whose content is not what was registered.

    Raises:
        BadModelFolder: If its digest differs from ``expected``.
    """
    found = folder_digest(folder)
    if found != expected:
        raise BadModelFolder(f"its digest is {found[:12]}..., registered was {expected[:12]}...; a file was changed")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
