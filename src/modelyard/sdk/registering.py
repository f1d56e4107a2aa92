"""From a fitted model to a version: saved, checked, uploaded, registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelyard.sdk.client import Client
from modelyard.sdk.transport import upload_object

if TYPE_CHECKING:
    from modelyard.models import ModelFile

# A defect that touches 1 % of rows escapes 1,000 of them with probability 4e-5 (``models.verify_engine``).
_CHECKED_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version that now exists.

    Attributes:
        content_digest: SHA-256 over its files: what approvals and routes are bound to.
    """

    model: str
    number: int
    stage: str
    content_digest: str
    run_id: str | None

    @property
    def reference(self) -> str:
        """What commands and calls name it by, ``model/number``."""
        return f"{self.model}/{self.number}"


def register(
    client: Client,
    model: object,
    name: str,
    *,
    data: object = None,
    run_id: str | None = None,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> RegisteredVersion:
    """Register a fitted model, or a folder, as the next version of ``name``; see ``ActiveRun.register_model``."""
    with TemporaryDirectory(prefix="modelyard-") as temporary:
        folder = model if isinstance(model, Path) else Path(temporary) / "model"
        found = _listed(folder) if isinstance(model, Path) else save(model, folder, data=data)
        files = [{"path": file.path, "digest": upload_object(client, folder / file.path)} for file in found]
    body = {
        "files": files,
        "run_id": run_id,
        "metrics": None if metrics is None else {key: float(value) for key, value in metrics.items()},
        "description": description,
        "tags": dict(tags or {}),
    }
    answer = client.post(f"/models/{quote(name, safe='')}/versions", body)
    if alias is not None:
        path = f"/models/{quote(name, safe='')}/aliases/{quote(alias, safe='')}"
        client.put(path, {"version": answer["number"]})
    return _version(answer)


def save(model: object, folder: Path, *, data: object = None) -> list[ModelFile]:
    """Save a fitted model into a new folder and list its files.

    With ``data``, the fast engine is checked on it against the model's own code, and the outcome is part of the
    folder: without that record, serving answers with the model's own code.
    """
    from modelyard.models import record_verification, save_model, to_columns, verify_engine

    save_model(model, folder, data=data)
    if data is not None:
        rows = {name: values[:_CHECKED_ROWS] for name, values in to_columns(data).items()}
        record_verification(folder, verify_engine(folder, rows, trust=True))
    return _listed(folder)


def _listed(folder: Path) -> list[ModelFile]:
    from modelyard.models import files

    return files(folder)


def _version(answer: Mapping[str, Any]) -> RegisteredVersion:
    return RegisteredVersion(
        model=answer["model"],
        number=answer["number"],
        stage=answer["stage"],
        content_digest=answer["content_digest"],
        run_id=answer["run_id"],
    )
