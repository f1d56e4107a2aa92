"""What training code logs, by hand or by itself, on its way from the child to the server.

The child has no connection: its batches go to a file, contents of artifacts beside it. The parent applies the
batches under ids of its own, so that a step that is redone adds nothing twice.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from modelyard.errors import ModelyardError
from modelyard.events import Actor
from modelyard.storage.objects import ObjectStore
from modelyard.tracking import Batch, RunRecorder, Tracking, Transport, decode, encode
from modelyard.tracking.capture import capture_context, read_environment, record_environment

_BATCHES, _ARTIFACTS = "batches.jsonl", "artifacts"


@contextmanager
def recording(run_id: str, folder: Path) -> Iterator[AbstractContextManager[None]]:
    """Record into a folder until the block ends, the environment first.

    Args:
        run_id: The run.
        folder: Where to; created if needed.

    Yields:
        A context in which the libraries' own training is recorded.
    """
    (folder / _ARTIFACTS).mkdir(parents=True, exist_ok=True)

    def send(batch: Batch) -> None:
        with (folder / _BATCHES).open("a", encoding="utf-8") as file:
            file.write(encode(batch) + "\n")

    def upload(content: bytes | Path) -> str:
        data = content.read_bytes() if isinstance(content, Path) else content
        digest = hashlib.sha256(data).hexdigest()
        (folder / _ARTIFACTS / digest).write_bytes(data)
        return digest

    recorder = RunRecorder(run_id, Transport(send, upload), spool=folder / "spool")
    record_environment(recorder, read_environment())
    try:
        yield capture_context(recorder)
    finally:
        recorder.close()
        shutil.rmtree(folder / "spool", ignore_errors=True)


def keep(folder: Path, objects: ObjectStore) -> str | None:
    """Put what was recorded into the object store.

    Returns:
        Digest of the batches, None if there are none.
    """
    if not (folder / _BATCHES).is_file():
        return None
    for file in sorted((folder / _ARTIFACTS).iterdir()):
        if file.is_file() and not file.is_symlink():
            objects.put(file)
    return objects.put(folder / _BATCHES)


def apply(content: bytes, run_id: str, *, tracking: Tracking, actor: Actor) -> list[str]:
    """Apply recorded batches to their run, each once.

    A line that was cut off by the child's death is left out, and so is what only the parent may say: another
    run's data, the start and the end.

    Returns:
        Why batches were refused, one line each: what cannot be recorded does not stop a release.
    """
    whole = content[: content.rfind(b"\n") + 1].splitlines()
    batches = [replace(decode(line), id=f"captured-{n}", start=None, ending=None) for n, line in enumerate(whole)]
    outcomes = tracking.log_batches([batch for batch in batches if batch.run_id == run_id], actor=actor)
    return [outcome.message for outcome in outcomes if isinstance(outcome, ModelyardError)]
