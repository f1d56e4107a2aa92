"""What waits in a recorder's queue, and the batch that it is put into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from modelyard.tracking import model
from modelyard.tracking.batch import Batch, Ending, Points, Start
from modelyard.tracking.model import Artifact, DatasetInput


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag."""

    key: str
    value: str


Metrics = tuple[int, int, dict[str, float]]
Record = Metrics | Param | Tag | DatasetInput | Artifact | Start | Ending


class Filling:
    """A batch while records are put into it."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._entities = 0

    @property
    def empty(self) -> bool:
        """Whether nothing has been put in yet."""
        return self.batch == Batch(self.batch.id, self.batch.run_id)

    def take(self, record: Record) -> bool:
        """Put a record in; False if there is no room for it or if it must not follow what is inside."""
        batch = self.batch
        if batch.ending is not None:
            return False
        match record:
            case tuple():
                return self._take_metrics(record)
            case Param(key, value):
                return self._take_text(batch.params, key, value, limit=model.MAX_BATCH_PARAMS)
            case Tag(key, value):
                return self._take_text(batch.tags, key, value, limit=model.MAX_BATCH_TAGS)
            case DatasetInput():
                batch.inputs.append(record)
            case Artifact():
                batch.artifacts.append(record)
            case Start():
                self.batch = replace(batch, start=record)
            case Ending():
                self.batch = replace(batch, ending=record)
        return True

    def rest(self, record: Record) -> Iterator[Record]:
        """Yield a record that did not fit, in pieces that fit an empty batch."""
        if not isinstance(record, tuple) or len(record[2]) <= model.MAX_BATCH_METRICS:
            yield record
            return
        step, time_us, values = record
        items = list(values.items())
        for start in range(0, len(items), model.MAX_BATCH_METRICS):
            yield step, time_us, dict(items[start : start + model.MAX_BATCH_METRICS])

    def _take_metrics(self, record: Metrics) -> bool:
        step, time_us, values = record
        if self._entities + len(values) > model.MAX_BATCH_ENTITIES:
            return False
        for name, value in values.items():
            key = str(name)
            points = self.batch.metrics.get(key)
            if points is None:
                points = self.batch.metrics[key] = Points([], [], [])
            points.steps.append(step)
            points.times_us.append(time_us)
            points.values.append(value)
        self._entities += len(values)
        return True

    def _take_text(self, texts: dict[str, str], key: str, value: str, *, limit: int) -> bool:
        full = len(texts) >= limit or self._entities >= model.MAX_BATCH_ENTITIES
        # A second value for a key goes into the next batch: there it wins (tag) or is refused (parameter).
        if full or texts.get(key, value) != value:
            return False
        self._entities += key not in texts
        texts[key] = value
        return True
