"""The user's code as one content-addressed object.

``pack`` puts the project's files into a tar archive whose bytes depend on nothing but names, modes and
contents; every later run unpacks that digest and never sees the working copy.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from modelyard.errors import Invalid, NotFound, TooLarge

MAX_BYTES = 100_000_000
MAX_FILES = 10_000
PROFILE_FILE = "profile.bin"
"""File in a version's folder with the profile that serving is compared with."""

_LEFT_OUT = frozenset({"__pycache__", "node_modules", "mlruns", "dist", "build"})


def pack(root: Path) -> bytes:
    """Pack a project folder: the files that git tracks, or without git all but hidden and generated ones.

    Args:
        root: The project folder.

    Returns:
        An uncompressed tar archive; equal content gives equal bytes.

    Raises:
        NotFound: If there is no such folder.
        TooLarge: If there are more than 10,000 files or 100 MB: data belong in a data source, not in the code.
    """
    if not root.is_dir():
        raise NotFound("project folder", root)
    files = project_files(root)
    if len(files) > MAX_FILES:
        raise TooLarge("The project", size=len(files), limit=MAX_FILES, unit="files")
    size = sum((root / file).stat().st_size for file in files)
    if size > MAX_BYTES:
        raise TooLarge("The project", size=size, limit=MAX_BYTES)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            content = (root / file).read_bytes()
            entry = tarfile.TarInfo(str(file))
            entry.size = len(content)
            entry.mode = 0o755 if (root / file).stat().st_mode & 0o100 else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Unpack a project into an empty folder; links, devices and paths that leave it are refused.

    Raises:
        Invalid: If the bytes are not such an archive.
        TooLarge: If it holds more than the limits of ``pack``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            members = tar.getmembers()
            if len(members) > MAX_FILES:
                raise TooLarge("The project", size=len(members), limit=MAX_FILES, unit="files")
            for member in members:
                if not member.isfile():
                    raise Invalid(f"A project holds plain files only, not {member.name!r}.")
            tar.extractall(folder, members, filter="data")
    except tarfile.TarError as error:
        raise Invalid(f"This is not a packed project: {error}") from error


def project_files(root: Path) -> list[PurePosixPath]:
    """Return the files that belong to a project, relative to its folder, sorted."""
    listed = _tracked(root)
    if listed is None:
        listed = [path.relative_to(root) for path in root.rglob("*")]
        listed = [path for path in listed if not any(p.startswith(".") or p in _LEFT_OUT for p in path.parts)]
    plain = [path for path in listed if (root / path).is_file() and not (root / path).is_symlink()]
    return sorted(PurePosixPath(path.as_posix()) for path in plain)


def _tracked(root: Path) -> list[Path] | None:
    command = ("git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    try:
        answer = subprocess.run(command, capture_output=True, check=True, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return [Path(name) for name in answer.stdout.decode().split("\0") if name]


def function_name(target: str) -> tuple[str, str]:
    """Split ``module:qualname``.

    Raises:
        Invalid: If it has another form.
    """
    module, _, qualname = target.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *qualname.split("."))):
        raise Invalid(f"{target!r} does not name a function; expected module:function.")
    return module, qualname
