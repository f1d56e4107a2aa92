"""Tables of the event log."""

from __future__ import annotations

import sqlalchemy as sa

from modelyard.storage import UtcTime, metadata

events = sa.Table(
    "events",
    metadata,
    sa.Column("chain", sa.String(64), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(80), nullable=False),
    sa.Column("subject", sa.String(600), nullable=False),
    sa.Column("project", sa.String(250), nullable=False),
    sa.Column("actor", sa.String(250), nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("recorded_at", UtcTime, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Index("ix_events_subject_seq", "subject", "seq"),
    sa.Index("ix_events_kind_seq", "kind", "seq"),
)

chains = sa.Table(
    "event_chains",
    metadata,
    sa.Column("chain", sa.String(64), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)

cursors = sa.Table(
    "event_cursors",
    metadata,
    sa.Column("subscriber", sa.String(120), primary_key=True),
    sa.Column("chain", sa.String(64), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
)
