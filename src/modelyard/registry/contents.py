"""The content of a version: files pinned into the object store, and written out again."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from modelyard import models
from modelyard.errors import Conflict, Invalid, TooLarge
from modelyard.registry.model import MAX_FILES, FileRef
from modelyard.storage.objects import ObjectStore
from modelyard.tracking import relative_key


def pin(folder: Path, objects: ObjectStore) -> tuple[FileRef, ...]:
    """Store every file of a folder and return what was stored; later changes of the folder do not matter.

    Raises:
        BadModelFolder: If the folder is absent, or holds a link or a special file.
        Conflict: If a file changes while it is read.
        Invalid, TooLarge: If it holds no file, too many, or one whose path is not portable.
    """
    pinned = []
    for file in models.files(folder):
        relative_key(file.path)
        digest = objects.put(folder / file.path)
        if digest != file.sha256:
            raise Conflict(f"{file.path!r} changed while it was being registered. Register it when it is done.")
        pinned.append(FileRef(file.path, digest, file.size_bytes))
    return checked(pinned)


def checked(files: Iterable[FileRef]) -> tuple[FileRef, ...]:
    """Return files sorted by path, if they can be the content of a version.

    Raises:
        Invalid: If there is none, two have one path, or one lies below another.
        TooLarge: If there are too many.
    """
    ordered = tuple(sorted(files, key=lambda file: relative_key(file.path)))
    if not ordered:
        raise Invalid("A version needs at least one file.")
    if len(ordered) > MAX_FILES:
        raise TooLarge("A version", size=len(ordered), limit=MAX_FILES, unit="files")
    names = {file.path for file in ordered}
    if len(names) < len(ordered):
        raise Invalid("Two files of the version have the same path.")
    for name in names:
        parents = [parent.as_posix() for parent in Path(name).parents]
        if names.intersection(parents):
            raise Invalid(f"{name!r} lies below a path that is a file itself.")
    return ordered


def content_digest(files: Iterable[FileRef]) -> str:
    """Return the SHA-256 (hex) over path, digest and size of every file, sorted by path.

    It is what ``models.folder_digest`` gives for the folder, which the tests hold.
    """
    total = hashlib.sha256()
    for file in sorted(files, key=lambda each: each.path):
        name = file.path.encode()
        total.update(b"%d:%s:%s:%d\n" % (len(name), name, file.digest.encode(), file.size_bytes))
    return total.hexdigest()


def write_out(files: Iterable[FileRef], folder: Path, objects: ObjectStore, *, digest: str) -> Path:
    """Write files to a folder, verified, which appears only when it is whole.

    A folder that holds exactly this content is left as it is.

    Raises:
        Conflict: If the folder exists with another content.
        Corrupted: If an object's bytes are not those that were stored.
    """
    if folder.exists():
        if models.folder_digest(folder) == digest:
            return folder
        raise Conflict(f"{folder} exists with another content. Choose another folder.", folder=str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # mkdtemp gives a folder of mode 0o700 that nobody else can prepare or swap.
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for file in files:
            target = partial.joinpath(*relative_key(file.path).split("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            objects.copy_to(file.digest, target)
        models.check_digest(partial, digest)
        return _appear(partial, folder, digest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _appear(partial: Path, folder: Path, digest: str) -> Path:
    try:
        return partial.rename(folder)
    except OSError as error:
        # Another process has written the same folder meanwhile.
        if folder.is_dir() and models.folder_digest(folder) == digest:
            return folder
        raise Conflict(f"{folder} has appeared with another content meanwhile.") from error
