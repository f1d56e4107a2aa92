"""A consistent copy of a home folder in one file, made while Modelyard runs, and its way back.

The order makes it consistent: first the workers' append files, then one snapshot of each database, then the
content that the snapshots name. Content is immutable and deleted only after a grace, so whatever a snapshot
names is still there; whatever was written later is merely not named.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from modelyard.errors import Conflict, Invalid, NotFound

FORMAT = 1
_AT_ONCE = 64 * 1024 * 1024
_MANIFEST = "modelyard-backup.json"
_DATABASES = ("modelyard.db", "workflows.db")
# Before the databases, and after them; what is not listed is rebuilt at the next start.
_FIRST = ("predictions/append",)
_LAST = ("objects", "predictions", "serving", "keys")


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup holds.

    Attributes:
        files: Number of files.
        size_bytes: Sum of their sizes.
    """

    files: int
    size_bytes: int


def backup(home: Path, file: Path) -> BackupReport:
    """Copy a home folder into one tar file, also while Modelyard runs in it.

    Args:
        home: The home folder, with SQLite databases.
        file: File to create; it must not exist, and appears only when it is complete.

    Raises:
        NotFound: If the folder holds no Modelyard.
        Conflict: If the file exists.
    """
    if not (home / _DATABASES[0]).exists():
        raise NotFound("Modelyard home", home)
    if file.exists():
        raise Conflict(f"{file} exists already; choose another name.")
    part = file.with_name(f".{file.name}.part")
    sums: dict[str, str] = {}
    size = 0
    try:
        with tempfile.TemporaryDirectory(dir=home) as scratch, tarfile.open(part, "w") as archive:
            for name, source in _sources(home, Path(scratch)):
                if name in sums:
                    continue
                try:
                    sums[name], added = _add_file(archive, name, source)
                except FileNotFoundError:
                    continue  # swept between listing and reading: nothing in the snapshot names it
                size += added
            manifest = {"format": FORMAT, "files": sums}
            _add(archive, _MANIFEST, io.BytesIO(json.dumps(manifest, sort_keys=True).encode()))
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return BackupReport(len(sums), size)


def restore(file: Path, home: Path) -> BackupReport:
    """Unpack a backup into a new home folder, checking every file against its digest.

    Args:
        file: What ``backup`` made.
        home: Folder to create; it must be absent or empty.

    Raises:
        NotFound: If there is no such file.
        Conflict: If the folder holds anything.
        Invalid: If the file is no backup, is damaged or incomplete; the folder is then left empty.
    """
    if not file.is_file():
        raise NotFound("backup", file)
    if home.exists() and any(home.iterdir()):
        raise Conflict(f"{home} is not empty; restore into a new folder.")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".restore-") as scratch:
        unpacked = Path(scratch, "home")
        unpacked.mkdir()
        report = _unpack(file, unpacked)
        if home.exists():
            home.rmdir()
        unpacked.rename(home)
    return report


def _sources(home: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    for folder in _FIRST:
        yield from _below(home, folder)
    for name in _DATABASES:
        if (home / name).exists():
            yield name, _snapshot(home / name, scratch / name)
    for folder in _LAST:
        yield from _below(home, folder)


def _below(home: Path, folder: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((home / folder).rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(home).as_posix(), path


def _snapshot(database: Path, copy: Path) -> Path:
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> tuple[str, int]:
    """Add a file; return its digest and size."""
    with path.open("rb") as handle:
        # Files that a worker maps and changes are small, and read at once; large content never changes.
        whole = os.fstat(handle.fileno()).st_size <= _AT_ONCE
        stream: BinaryIO = io.BytesIO(handle.read()) if whole else handle
        digest = _digest(stream)
        return digest, _add(archive, name, stream)


def _digest(stream: BinaryIO) -> str:
    sha = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        sha.update(chunk)
    return sha.hexdigest()


def _add(archive: tarfile.TarFile, name: str, stream: BinaryIO) -> int:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = stream.seek(0, io.SEEK_END), 0o600
    stream.seek(0)
    archive.addfile(entry, stream)
    return entry.size


def _unpack(file: Path, folder: Path) -> BackupReport:
    try:
        with tarfile.open(file, "r:") as archive:
            handle = archive.extractfile(_MANIFEST)
            manifest = json.loads(handle.read()) if handle else {}
            if manifest.get("format") != FORMAT:
                raise Invalid(f"{file.name} is a backup of another format; expected format {FORMAT}.")
            sums: dict[str, str] = manifest["files"]
            size = sum(_unpack_one(archive, name, digest, folder) for name, digest in sums.items())
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise Invalid(f"{file.name} is not a complete backup: {error}") from error
    return BackupReport(len(sums), size)


def _unpack_one(archive: tarfile.TarFile, name: str, digest: str, folder: Path) -> int:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Invalid(f"A backup holds relative paths only, not {name!r}.")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(name)
    if source is None:
        raise Invalid(f"{name} in the backup is not a file.")
    with target.open("w+b") as out:
        shutil.copyfileobj(source, out)
        out.seek(0)
        if _digest(out) != digest:
            raise Invalid(f"{name} in the backup is damaged: its content does not have the recorded digest.")
        size = out.tell()
    target.chmod(0o600)
    return size
