"""Code: the commit, what differs from it, the script and how it was started."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from modelyard.tracking.recorder import RunRecorder

_GIT_TIMEOUT_S = 5.0
MAX_DIFF_BYTES = 1 << 20
MAX_SOURCE_BYTES = 1 << 20
_SECRET = re.compile(r"(?i)(pass(word|wd)?|secret|token|api[-_]?key|credential)")


@dataclass(frozen=True, slots=True)
class CodeState:
    """The code of a run.

    Attributes:
        commit: Git commit, or None outside a repository.
        branch: Branch, or None if there is none.
        remote: URL of ``origin`` without user and password, or None.
        diff: What tracked files differ from the commit; empty if nothing, cut at ``MAX_DIFF_BYTES``.
        script: Name of the script, or None in an interactive session.
        source: The script's bytes, or None.
        entry_point: How the process was started, values of secrets removed.
    """

    commit: str | None
    branch: str | None
    remote: str | None
    diff: bytes
    script: str | None
    source: bytes | None
    entry_point: tuple[str, ...]

    @property
    def dirty(self) -> bool:
        """Whether tracked files differ from the commit."""
        return bool(self.diff)

    @property
    def digest(self) -> str:
        """Hex SHA-256 over commit, diff and script: equal code gives an equal digest."""
        total = hashlib.sha256()
        for part in ((self.commit or "").encode(), self.diff, self.source or b""):
            total.update(b"%d:" % len(part))
            total.update(part)
        return total.hexdigest()


def read_code(*, script: Path | None = None, arguments: Sequence[str] | None = None) -> CodeState:
    """Read the state of the code around a script.

    Args:
        script: The script; by default what Python was started with.
        arguments: Command line; by default that of this process.
    """
    script = _script() if script is None else script
    folder = Path.cwd() if script is None else script.parent
    head = _git(folder, "rev-parse", "HEAD")
    commit = None if head is None else head.decode().strip()
    branch = _git(folder, "symbolic-ref", "--short", "HEAD") if commit else None
    remote = _git(folder, "config", "--get", "remote.origin.url") if commit else None
    diff = _git(folder, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv") if commit else None
    return CodeState(
        commit=commit,
        branch=None if branch is None else branch.decode().strip(),
        remote=None if remote is None else without_user(remote.decode().strip()),
        diff=(diff or b"")[:MAX_DIFF_BYTES],
        script=None if script is None else script.name,
        source=None if script is None else _source(script),
        entry_point=without_secrets(sys.orig_argv if arguments is None else arguments),
    )


def record_code(run: RunRecorder, code: CodeState) -> None:
    """Log the code as tags, and diff and script as artifacts."""
    tags = {
        "modelyard.code_digest": code.digest,
        "modelyard.git_commit": code.commit,
        "modelyard.git_branch": code.branch,
        "modelyard.git_remote": code.remote,
        "modelyard.git_dirty": None if code.commit is None else str(code.dirty).lower(),
        "modelyard.script": code.script,
        "modelyard.entry_point": " ".join(code.entry_point),
    }
    run.set_tags({key: value for key, value in tags.items() if value})
    if code.diff:
        run.log_artifact("code/uncommitted.diff", code.diff)
    if code.source is not None and code.script is not None:
        run.log_artifact(f"code/{code.script}", code.source)


def without_secrets(arguments: Sequence[str]) -> tuple[str, ...]:
    """Replace the values of options whose name speaks of a secret.

    >>> without_secrets(["train.py", "--api-key=abc", "--token", "abc", "--depth", "3"])
    ('train.py', '--api-key=***', '--token', '***', '--depth', '3')
    """
    kept: list[str] = []
    hide = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        secret = argument.startswith("-") and _SECRET.search(name) is not None
        if hide and not argument.startswith("-"):
            kept.append("***")
        else:
            kept.append(f"{name}=***" if secret and equals else argument)
        hide = secret and not equals
    return tuple(kept)


def without_user(url: str) -> str:
    """Remove user and password from a URL.

    >>> without_user("https://ada:secret@example.com/repo.git")
    'https://example.com/repo.git'
    """
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _script() -> Path | None:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).resolve() if file else None


def _source(script: Path) -> bytes | None:
    try:
        if script.stat().st_size > MAX_SOURCE_BYTES:
            return None
        return script.read_bytes()
    except OSError:
        return None


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Run git; None if it is not there, takes too long or says no. A repository's own programs are not run."""
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - an argument list, no shell
            command, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
