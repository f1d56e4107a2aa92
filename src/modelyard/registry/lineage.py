"""Lineage: what went into what, read in both directions."""

from __future__ import annotations

from datetime import datetime

from modelyard.events import DEFAULT_PROJECT, Actor
from modelyard.registry import store
from modelyard.registry.model import Direction, Edge, Lineage
from modelyard.registry.parts import Parts
from modelyard.storage import Transaction
from modelyard.tracking import clean_name

_ENDS = {"up": ("target",), "down": ("source",), "both": ("target", "source")}
_MAX_SUBJECT = 600


class LineageGraph(Parts):
    """Writes edges and walks them.

    Subjects are ``kind:name`` as in the event log: ``data:<digest>``, ``code:<digest>``, ``run:<id>``,
    ``version:<model>/<number>``, ``endpoint:<name>``, any other.
    """

    def link(
        self,
        source: str,
        target: str,
        *,
        relation: str,
        actor: Actor,
        project: str = DEFAULT_PROJECT,
    ) -> None:
        """Say that ``source`` went into ``target``; saying it again changes nothing."""
        with self.database.transaction() as tx:
            if self.add_edge(tx, source, target, relation=relation, project=project):
                after = {"source": source, "target": target, "relation": relation}
                self._record(tx, "lineage.linked", target, actor=actor, project=project, after=after)

    def add_edge(
        self,
        tx: Transaction,
        source: str,
        target: str,
        *,
        relation: str,
        project: str = DEFAULT_PROJECT,
        at: datetime | None = None,
    ) -> bool:
        """Add an edge in the transaction of a change that writes its own event; False if it was there."""
        row = {
            "project": project,
            "source": clean_name("subject", source, limit=_MAX_SUBJECT),
            "target": clean_name("subject", target, limit=_MAX_SUBJECT),
            "relation": clean_name("relation", relation, limit=64),
            "at": at or self._clock.now(),
        }
        return tx.insert_if_absent(store.edges, row)

    def lineage(
        self,
        subject: str,
        direction: Direction = "both",
        *,
        project: str = DEFAULT_PROJECT,
        limit: int = 1000,
    ) -> Lineage:
        """Return what a subject came from (``up``), what became of it (``down``), or both.

        ``both`` walks up and down apart, and never up again from what it met going down: siblings that only
        share an ancestor are not related.

        Args:
            subject: Where to start.
            direction: Which way to walk.
            project: Whose edges.
            limit: Most edges read in each direction; ``complete`` says whether they sufficed.
        """
        nodes = {subject: None}
        edges: dict[Edge, None] = {}
        complete = True
        with self.database.reading() as connection:
            for end in _ENDS[direction]:
                seen, frontier, left = {subject}, [subject], limit
                while frontier and left:
                    found = store.edges_at(connection, project, frontier, end=end, limit=left)
                    left -= len(found)
                    reached = [edge.source if end == "target" else edge.target for edge in found]
                    frontier = [node for node in dict.fromkeys(reached) if node not in seen]
                    seen.update(frontier)
                    nodes.update(dict.fromkeys(frontier))
                    edges.update(dict.fromkeys(found))
                complete = complete and left > 0
        return Lineage(subject, tuple(nodes), tuple(edges), complete)
