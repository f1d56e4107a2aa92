"""The route table that follows from endpoints and rollouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelyard.deployment.model import Endpoint
from modelyard.deployment.store import Watched
from modelyard.serving.model import WEIGHT_TOTAL, EndpointRoute, VariantRoute


def variant_name(version: int) -> str:
    """Return the name under which a version answers, whatever its role.

    >>> variant_name(7)
    'v7'
    """
    return f"v{version}"


def build_routes(endpoints: Iterable[Endpoint], running: Mapping[str, Watched]) -> tuple[EndpointRoute, ...]:
    """Return the routes of all endpoints.

    Args:
        endpoints: Every endpoint.
        running: The rollout under way, by endpoint.
    """
    return tuple(_route(endpoint, running.get(endpoint.name)) for endpoint in endpoints)


def _route(endpoint: Endpoint, watched: Watched | None) -> EndpointRoute:
    weight = 0 if watched is None else watched.rollout.weight
    variants = [
        VariantRoute(
            variant_name(endpoint.champion),
            "control",
            endpoint.model,
            endpoint.champion,
            endpoint.champion_digest,
            WEIGHT_TOTAL - weight,
        )
    ]
    if watched is not None:
        rollout = watched.rollout
        variants.append(
            VariantRoute(
                variant_name(rollout.version),
                "canary",
                rollout.model,
                rollout.version,
                rollout.digest,
                weight,
                watched.exposure.lease(rollout.id),
            )
        )
    taken = {variant.version for variant in variants}
    if endpoint.standby is not None and endpoint.standby_digest is not None and endpoint.standby not in taken:
        name, digest = variant_name(endpoint.standby), endpoint.standby_digest
        variants.append(VariantRoute(name, "canary", endpoint.model, endpoint.standby, digest, 0))
    return EndpointRoute(
        name=endpoint.name,
        project=endpoint.project,
        salt=endpoint.salt,
        entity_key=endpoint.entity_key,
        time_column=endpoint.time_column,
        variants=tuple(variants),
        # The guard judges what it sees, so a rollout's answers are all captured.
        sample=endpoint.sample if watched is None else 1.0,
        redact=endpoint.redact,
    )
