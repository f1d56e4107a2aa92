"""What is known of a version before it has a number: its run, its metrics, and what its own files say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard import models
from modelyard.errors import Invalid
from modelyard.registry.model import FileRef
from modelyard.storage.objects import ObjectStore
from modelyard.tracking import Run, Tracking, clean_name

# Tags under which capture leaves the digests of code and environment.
_DIGEST_TAGS = {"code": "modelyard.code_digest", "environment": "modelyard.environment_digest"}


def origin_of(
    tracking: Tracking,
    run_id: str | None,
    *,
    lineage: Mapping[str, Any],
    metrics: Mapping[str, float] | None,
) -> tuple[Run | None, dict[str, Any], dict[str, float]]:
    """Return the run, the lineage and the metrics, what nobody has given being read off the run.

    Raises:
        NotFound: If there is no such run.
        Invalid: If a metric is not a number.
    """
    if run_id is None:
        check_metrics(metrics or {})
        return None, dict(lineage), dict(metrics or {})
    run = tracking.get_run(run_id)
    data = tracking.run_data(run_id)[run_id]
    known: dict[str, Any] = {"data": [each.digest for each in data.inputs], "parameters": dict(data.params)}
    known |= {kind: data.tags[tag] for kind, tag in _DIGEST_TAGS.items() if tag in data.tags}
    measured = {key: each.last for key, each in data.metrics.items()} if metrics is None else dict(metrics)
    check_metrics(measured)
    return run, {**known, **lineage}, measured


def described_by(files: Sequence[FileRef], objects: ObjectStore) -> dict[str, Any]:
    """Read ``signature`` and ``engine`` off the stored files, without loading the model."""
    digests = {file.path: file.digest for file in files}
    described: dict[str, Any] = {}
    if "modelyard.json" in digests:
        described["signature"] = _document(objects.get(digests["modelyard.json"])).get("signature")
    elif "MLmodel" in digests:
        signature = _mlflow_signature(objects.get(digests["MLmodel"]))
        described["signature"] = None if signature is None else signature.to_json()
    if "verification.json" in digests:
        described["engine"] = _document(objects.get(digests["verification.json"])) or None
    return described


def check_metrics(metrics: Mapping[str, float]) -> None:
    """Refuse metrics that are not numbers, or whose names cannot be stored.

    Raises:
        Invalid: For the first of them.
    """
    for key, value in metrics.items():
        clean_name("metric name", key, limit=250)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Invalid(f"Metric {key!r} is {type(value).__name__}, not a number.", key=key)


def _document(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _mlflow_signature(content: bytes) -> models.Signature | None:
    import yaml

    try:
        document = yaml.safe_load(content)
        return models.Signature.from_mlflow(document["signature"])
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError, Invalid):
        return None
