"""The tracked run of a release."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from modelyard.errors import ModelyardError, NotFound
from modelyard.events import Actor
from modelyard.retraining import captured
from modelyard.retraining.model import Recipe
from modelyard.storage.objects import ObjectStore
from modelyard.tracking import Artifact, Batch, DatasetInput, Ending, Points, RunStatus, Start, Tracking
from modelyard.tracking.model import MAX_ERROR
from modelyard.tracking.summary import to_us
from modelyard.workflows import Context

_CAPTURED = "modelyard.captured"
_log = logging.getLogger("modelyard.retraining")


class Trail:
    """Writes the run: every batch has an id of its own, so that a step that is redone adds nothing.

    Args:
        tracking: Experiments and runs.
        objects: Bytes by digest.
    """

    def __init__(self, tracking: Tracking, objects: ObjectStore) -> None:
        self._tracking = tracking
        self._objects = objects

    def begin(self, context: Context, recipe: Recipe) -> str:
        """Create the run, if it is not there, and return its id."""
        run = run_id(context.run_id)
        now = context.clock.now()
        start = Start(recipe.model, recipe.project, f"{recipe.model} {now:%Y-%m-%d %H:%M}", to_us(now))
        tags = {
            "modelyard.release": context.run_id,
            "modelyard.code_digest": recipe.code_digest,
            "modelyard.function": recipe.function,
            "modelyard.seed": str(recipe.seed),
        }
        self._tracking.log_batch(Batch("begin", run, start=start, tags=tags), actor=recipe.author)
        return run

    def apply(self, run: str, digest: str, recipe: Recipe) -> None:
        """Apply what a child has recorded; of a training that was done again after a crash, the first counts."""
        self._tracking.log_batch(Batch("captured", run, tags={_CAPTURED: digest}), actor=recipe.author)
        first = self._tracking.run_data(run)[run].tags[_CAPTURED]
        for reason in captured.apply(self._objects.get(first), run, tracking=self._tracking, actor=recipe.author):
            _log.warning("A part of what run %s logged was refused: %s", run, reason)

    def finish(
        self, context: Context, run: str, recipe: Recipe, *, data: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Log the data and the measurements, and end the run well."""
        now = to_us(context.clock.now())
        source = json.dumps(recipe.source.to_json(), sort_keys=True)
        dataset = DatasetInput(
            recipe.source.path, data["content"], context="training", source_type="local", source=source
        )
        batch = Batch(
            "finish",
            run,
            metrics={name: Points([0], [now], [value]) for name, value in metrics.items()},
            inputs=[dataset],
            artifacts=[
                Artifact(f"data/{name}.parquet", data[name], self._objects.size(data[name]))
                for name in ("train", "holdout")
            ],
            ending=Ending("finished", now),
        )
        self._tracking.log_batch(batch, actor=recipe.author)

    def fail(self, release_id: str, error: str, *, at: datetime, actor: Actor, status: RunStatus = "failed") -> None:
        """End the run of a release that broke, unless it has ended or never began."""
        run = run_id(release_id)
        try:
            if self._tracking.get_run(run).status != "running":
                return
        except NotFound:
            return
        batch = Batch("finish", run, ending=Ending(status, to_us(at), error[:MAX_ERROR]))
        try:
            self._tracking.log_batch(batch, actor=actor)
        except ModelyardError as refusal:  # the run was binned meanwhile; the release's own end must be written
            _log.warning("Run %s could not be ended: %s", run, refusal.message)


def run_id(release_id: str) -> str:
    """Return the id of a release's run, the same whenever its steps are redone."""
    return hashlib.sha256(release_id.encode()).hexdigest()[:32]
