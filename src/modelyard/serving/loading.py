"""From a route table to loaded, checked endpoints, beside those that answer meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.errors import Invalid, ModelyardError
from modelyard.serving.application import Live
from modelyard.serving.capture import Descriptor, VariantDescription, write_descriptor
from modelyard.serving.endpoint import LiveEndpoint, LiveVariant, ModelFace, Scored
from modelyard.serving.ids import PredictionIds
from modelyard.serving.model import EndpointRoute, LoadedModel, LoadFailure, RouteTable, VariantRoute
from modelyard.serving.protocols.ask import Row
from modelyard.serving.publisher import ServingPaths
from modelyard.serving.tally import TallyBook, share_of

if TYPE_CHECKING:
    from modelyard.models import PredictionBatch, Predictor, Signature

log = logging.getLogger(__name__)

LoadFace = Callable[[Path, str], ModelFace]
"""Loads and checks the model in a folder whose content must have this digest."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of loading a table.

    Attributes:
        live: What to answer from.
        models: Versions held now.
        failed: Variants that could not be loaded.
        tallies: Names of the counters in use.
    """

    live: Live
    models: tuple[LoadedModel, ...]
    failed: tuple[LoadFailure, ...]
    tallies: tuple[tuple[str, ...], ...]


class Loader:
    """Makes endpoints out of route tables; models that stay are not loaded again.

    Args:
        paths: The home's files.
        worker: Number of this worker.
        workers: How many there are, for the shares of leases.
        book: This worker's counters.
        ids: Makes prediction ids.
        load_face: Loads a model.
        limit: Most requests under way at once per endpoint.
    """

    def __init__(
        self,
        paths: ServingPaths,
        *,
        worker: int,
        workers: int,
        book: TallyBook,
        ids: PredictionIds,
        load_face: LoadFace,
        limit: int,
    ) -> None:
        self._paths = paths
        self._worker, self._workers = worker, workers
        self._book = book
        self._ids = ids
        self._load_face = load_face
        self._limit = limit
        self._held: dict[str, tuple[ModelFace, LoadedModel]] = {}

    def load(self, table: RouteTable, previous: Live) -> Loaded:
        """Load what the table names. Runs in a thread of its own; ``previous`` goes on answering.

        A canary or shadow that cannot be loaded is left out. Where the control cannot be loaded, the endpoint
        of ``previous`` stays in force if there is one.
        """
        failed: list[LoadFailure] = []
        endpoints: dict[str, LiveEndpoint] = {}
        unserved: dict[str, str] = {}
        for route in table.endpoints:
            faces = self._faces(route, failed)
            if route.control.name in faces:
                endpoints[route.name] = self._endpoint(route, faces)
            elif route.name in previous.endpoints:
                endpoints[route.name] = previous.endpoints[route.name]
            else:
                unserved[route.name] = failed[-1].message if failed else "its control is not loaded."
        used = {variant.route.digest for endpoint in endpoints.values() for variant in endpoint.variants}
        self._held = {digest: held for digest, held in self._held.items() if digest in used}
        names = tuple(
            (endpoint.name, variant.route.name, variant.route.digest)
            for endpoint in endpoints.values()
            for variant in endpoint.variants
        )
        live = Live(table.generation, endpoints, unserved)
        return Loaded(live, tuple(model for _, model in self._held.values()), tuple(failed), names)

    def _faces(self, route: EndpointRoute, failed: list[LoadFailure]) -> dict[str, ModelFace]:
        faces = {}
        # The control last: its failure is then the one that explains an endpoint without answers.
        for variant in sorted(route.variants, key=lambda variant: variant.role == "control"):
            try:
                faces[variant.name] = self._face(variant)
            except ModelyardError as error:
                failed.append(LoadFailure(route.name, variant.name, variant.version, error.message))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge to the model's own code
                log.exception("version %d of endpoint %r cannot be loaded", variant.version, route.name)
                message = f"Loading raised {type(error).__name__}: {str(error)[:300]}"
                failed.append(LoadFailure(route.name, variant.name, variant.version, message))
        return faces

    def _face(self, variant: VariantRoute) -> ModelFace:
        held = self._held.get(variant.digest)
        if held is None:
            started = time.perf_counter()
            face = self._load_face(self._paths.models / variant.digest, variant.digest)
            spent_ms = (time.perf_counter() - started) * 1000
            held = self._held[variant.digest] = (
                face,
                LoadedModel(variant.digest, face.engine, round(spent_ms, 2)),
            )
        return held[0]

    def _endpoint(self, route: EndpointRoute, faces: Mapping[str, ModelFace]) -> LiveEndpoint:
        variants = []
        for index, variant in enumerate(route.variants):
            if variant.name not in faces:
                continue
            lease = variant.lease
            tally = self._book.tally(
                route.name,
                variant.name,
                variant.digest,
                lease=None if lease is None else lease.id,
                share=0 if lease is None else share_of(lease.answers, worker=self._worker, workers=self._workers),
            )
            variants.append(LiveVariant(variant, index, faces[variant.name], tally))
        digest = write_descriptor(self._paths.descriptors, describe(route, faces))
        return LiveEndpoint(route, variants, descriptor=digest, ids=self._ids, limit=self._limit)


def describe(route: EndpointRoute, faces: Mapping[str, ModelFace]) -> Descriptor:
    """Return what the collector needs to read the endpoint's records."""
    control = faces[route.control.name]
    columns = dict(control.columns)
    for variant in route.variants:
        if variant.name in faces:
            for name, kind in faces[variant.name].columns:
                columns.setdefault(name, kind)
    return Descriptor(
        endpoint=route.name,
        project=route.project,
        entity_key=route.entity_key,
        time_column=route.time_column,
        redact=route.redact,
        variants=tuple(VariantDescription(v.name, v.role, v.model, v.version) for v in route.variants),
        columns=tuple(columns.items()),
        order=tuple(name for name, _ in control.columns),
    )


def load_face(folder: Path, digest: str) -> ModelFace:
    """Load a materialised version and check that it answers.

    The control plane names only versions that were registered, so once its digest is right a folder is
    trusted to run its code. That is used only where no native engine answers for it: otherwise pickles stay
    closed.

    Raises:
        BadModelFolder: If the content is not what was registered, or no model.
        MissingExtra: If its library is absent.
        Invalid: If it fails on its own example.
    """
    from modelyard.models import Predictor, Untrusted, check_digest  # noqa: PLC0415 - heavy

    check_digest(folder, digest)
    try:
        predictor = Predictor.load(folder, trust=False)
    except Untrusted:
        predictor = Predictor.load(folder, trust=True)
    face = face_of(predictor)
    if predictor.signature is not None:
        self_check(face, predictor.signature)
    return face


def face_of(predictor: Predictor) -> ModelFace:
    """Show a predictor the way that endpoints use it."""
    from modelyard.models import Decoder  # noqa: PLC0415 - heavy

    signature = predictor.signature
    decoder = None if signature is None else Decoder(signature)
    traits = predictor.traits
    label_of = _single_label(predictor)
    predict_rows = predictor.predict_rows

    def predict(rows: Sequence[Row]) -> Scored:
        batch = predict_rows(rows)
        if len(rows) == 1 and label_of is not None:
            score = batch.scores.item()
            return Scored([score], [label_of(score)], None, _warnings(batch) if batch.warnings else ())
        return _scored(batch)

    def check(rows: Sequence[Row]) -> None:
        if decoder is not None:
            decoder.rows(rows)

    return ModelFace(
        predict=predict,
        check=check,
        columns=() if signature is None else tuple((c.name, c.type) for c in signature.inputs),
        classes=traits.classes,
        outputs=len(traits.classes) if traits.task == "multiclass" else 1,
        engine=predictor.engine,
    )


def _single_label(predictor: Predictor) -> Callable[[float], Any] | None:
    """Return how one score becomes its label without an array, or None where only the model knows.

    The rule is that of ``models.own.labels_of``; a test holds the two together.
    """
    traits = predictor.traits
    if traits.task == "regression":
        return lambda score: None
    if traits.task != "binary" or predictor.engine == "own":
        return None
    first, second = traits.classes
    limit = 0.0 if traits.score_kind == "decision" else 0.5
    if traits.positive == 1:
        return lambda score: second if score > limit else first
    return lambda score: first if score >= limit else second


def _warnings(batch: PredictionBatch) -> list[tuple[int, dict[str, Any]]]:
    return [(w.row, {"code": w.code, "column": w.column, "got": w.got}) for w in batch.warnings]


def _scored(batch: PredictionBatch) -> Scored:
    labels = batch.labels
    count = len(batch.scores)
    named: list[Any] = [None] * count if labels is None else labels.tolist()
    warnings = _warnings(batch)
    if batch.scores.ndim == 1:
        return Scored(batch.scores.tolist(), named, None, warnings)
    return Scored([None] * count, named, batch.scores.tolist(), warnings)


def self_check(face: ModelFace, signature: Signature) -> None:
    """Predict one row made from the signature, so that a model that cannot answer is never routed to.

    A row that the model calls invalid proves nothing against it; anything else that it raises does.
    """
    row: dict[str, Any] = {column.name: _plausible(column) for column in signature.inputs}
    try:
        face.predict([row])
    except Invalid as error:
        log.info("self-check: the row made from the signature was refused: %s", error.message)


def _plausible(column: Any) -> Any:
    if column.levels:
        return column.levels[0]
    if column.type in {"integer", "long"}:
        return int(column.minimum or 0)
    if column.type in {"float", "double"}:
        return float(column.minimum or 0.0)
    return {"boolean": False, "string": "", "datetime": "2000-01-01T00:00:00"}[column.type]
