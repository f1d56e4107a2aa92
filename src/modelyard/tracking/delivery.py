"""Delivering a batch of which the service may refuse a part.

A refused batch is halved until what is refused stands alone, so that one bad name costs one value and not a
thousand. The ids of the halves follow from the batch's own id: a replay halves it the same way, and the service
applies each half once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from modelyard.errors import ModelyardError, Unavailable
from modelyard.tracking.batch import Batch

Refuse = Callable[[Batch, ModelyardError], None]


def deliver(batch: Batch, send: Callable[[Batch], None], refuse: Refuse) -> None:
    """Send a batch; hand what the service refuses to ``refuse``, and nothing else.

    Raises:
        Unavailable: If it has to be tried again; so is any error that is not of Modelyard's tree.
    """
    try:
        send(batch)
    except Unavailable:
        raise
    except ModelyardError as error:
        halves = halve(batch)
        if not halves:
            refuse(batch, error)
        for half in halves:
            deliver(half, send, refuse)


def halve(batch: Batch) -> list[Batch]:
    """Return two batches that hold together what this one holds, or none if it is one piece.

    The run's start stays in the first and its end in the second.
    """
    pieces = _pieces(batch)
    if len(pieces) < 2:
        return []
    middle = len(pieces) // 2
    return [
        _joined(pieces[:middle], batch, f"{batch.id}.0"),
        _joined(pieces[middle:], batch, f"{batch.id}.1"),
    ]


def _pieces(batch: Batch) -> list[Batch]:
    bare = Batch(batch.id, batch.run_id)
    return [
        *([replace(bare, start=batch.start)] if batch.start else []),
        *(replace(bare, params={key: value}) for key, value in batch.params.items()),
        *(replace(bare, tags={key: value}) for key, value in batch.tags.items()),
        *(replace(bare, inputs=[dataset]) for dataset in batch.inputs),
        *(replace(bare, artifacts=[artifact]) for artifact in batch.artifacts),
        *(replace(bare, metrics={key: points}) for key, points in batch.metrics.items()),
        *([replace(bare, ending=batch.ending)] if batch.ending else []),
    ]


def _joined(pieces: list[Batch], batch: Batch, batch_id: str) -> Batch:
    return Batch(
        id=batch_id,
        run_id=batch.run_id,
        start=next((piece.start for piece in pieces if piece.start), None),
        metrics={key: points for piece in pieces for key, points in piece.metrics.items()},
        params={key: value for piece in pieces for key, value in piece.params.items()},
        tags={key: value for piece in pieces for key, value in piece.tags.items()},
        inputs=[dataset for piece in pieces for dataset in piece.inputs],
        artifacts=[artifact for piece in pieces for artifact in piece.artifacts],
        ending=next((piece.ending for piece in pieces if piece.ending), None),
    )
