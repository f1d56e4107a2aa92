"""Reading endpoints and rollouts."""

from __future__ import annotations

from modelyard.deployment import store
from modelyard.deployment.model import Endpoint, Rollout
from modelyard.deployment.parts import Parts
from modelyard.errors import NotFound
from modelyard.events import DEFAULT_PROJECT

_MAX_PAGE = 500


class Reading(Parts):
    """Answers what stands where."""

    def get_endpoint(self, endpoint: str, *, project: str = DEFAULT_PROJECT) -> Endpoint:
        """Return an endpoint.

        Raises:
            NotFound: If there is none; the message names the most similar one.
        """
        with self.database.reading() as connection:
            found = store.endpoint_of(connection, endpoint)
            if found is None or found.project != project:
                known = store.endpoint_page(connection, project=project, after="", limit=_MAX_PAGE)
                raise NotFound("endpoint", endpoint, known=[each.name for each in known])
        return found

    def list_endpoints(self, *, project: str = DEFAULT_PROJECT, after: str = "", limit: int = 100) -> list[Endpoint]:
        """Return at most ``limit`` endpoints by name, those after a name."""
        with self.database.reading() as connection:
            return store.endpoint_page(connection, project=project, after=after, limit=min(limit, _MAX_PAGE))

    def get_rollout(self, rollout_id: str) -> Rollout:
        """Return a rollout.

        Raises:
            NotFound: If there is none.
        """
        with self.database.reading() as connection:
            found = store.watched_of(connection, rollout_id)
        if found is None:
            raise NotFound("rollout", rollout_id)
        return found.rollout

    def list_rollouts(self, endpoint: str, *, before: str | None = None, limit: int = 50) -> list[Rollout]:
        """Return at most ``limit`` rollouts of an endpoint, newest first, those before an id."""
        with self.database.reading() as connection:
            return store.rollout_page(connection, endpoint=endpoint, before=before, limit=min(limit, _MAX_PAGE))

    def running_rollout(self, endpoint: str) -> Rollout | None:
        """Return the rollout that is under way at an endpoint, None if there is none."""
        with self.database.reading() as connection:
            found = store.active_rollouts(connection, endpoint=endpoint)
        return found[0].rollout if found else None
