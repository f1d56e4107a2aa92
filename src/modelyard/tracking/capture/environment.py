"""Environment: Python, packages and hardware, read in a few milliseconds."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from modelyard.tracking.recorder import RunRecorder

_INFO = ".dist-info"


@dataclass(frozen=True, slots=True)
class Environment:
    """Where code runs.

    Attributes:
        packages: Distribution to version.
        memory_bytes: Physical memory, 0 if not known.
        gpus: Names of NVIDIA cards, as the kernel module lists them.
    """

    python: str
    implementation: str
    system: str
    machine: str
    packages: Mapping[str, str]
    cpus: int
    memory_bytes: int
    gpus: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hex SHA-256 over Python and packages: the part that can be made again elsewhere."""
        part = {"python": self.python, "implementation": self.implementation, "packages": dict(self.packages)}
        return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()

    @property
    def requirements(self) -> str:
        """Packages as lines of a requirements file."""
        return "".join(f"{name}=={version}\n" for name, version in self.packages.items())


def read_environment(*, path: Sequence[str] | None = None) -> Environment:
    """Read the environment of this process.

    Args:
        path: Folders to look for packages in; by default ``sys.path``.
    """
    return Environment(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        packages=installed(sys.path if path is None else path),
        cpus=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        gpus=_gpus(Path("/proc/driver/nvidia/gpus")),
    )


def record_environment(run: RunRecorder, environment: Environment) -> None:
    """Log the environment as tags and artifacts."""
    run.set_tags({"modelyard.environment_digest": environment.digest, "modelyard.python": environment.python})
    run.log_artifact("environment/requirements.txt", environment.requirements.encode())
    document = json.dumps(asdict(environment), indent=1, sort_keys=True)
    run.log_artifact("environment/environment.json", document.encode())


def installed(path: Sequence[str]) -> dict[str, str]:
    """Return distributions and versions, the first on the path winning, sorted by name.

    Names and versions are read off the folders' names alone: opening each package's metadata, as
    ``importlib.metadata`` does, takes 50 times as long.
    """
    found: dict[str, str] = {}
    for folder in path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - a string is all that is needed
        except OSError:
            continue
        for name in names:
            if name.endswith(_INFO):
                distribution, _, version = name.removesuffix(_INFO).partition("-")
                found.setdefault(distribution.lower().replace("_", "-"), version)
    return dict(sorted(found.items()))


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _gpus(folder: Path) -> tuple[str, ...]:
    names = []
    for file in sorted(folder.glob("*/information")) if folder.is_dir() else []:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return tuple(names)
