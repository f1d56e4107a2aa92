"""Proof that the log was not changed: verification of the chain, and signed checkpoints.

The hash chain alone shows edits, deletions and swaps inside the log. Only a checkpoint kept outside the
database shows that rows were cut off at the end, or that the whole chain was written anew; rows after the
newest checkpoint are not protected against those two.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from modelyard.errors import Invalid
from modelyard.events import merkle
from modelyard.events.canonical import canonical
from modelyard.events.log import GENESIS, row_hash
from modelyard.events.store import chains, events
from modelyard.storage import Database

_PAGE = 5000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement: at this time the chain had this many rows and this Merkle root.

    Attributes:
        root: Hex RFC 6962 root over the row hashes.
        public_key: Base64 Ed25519 public key of the signer.
        signature: Base64 Ed25519 signature over the canonical form of the other fields.
    """

    chain: str
    size: int
    root: str
    at: str
    public_key: str
    signature: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of a verification.

    Attributes:
        rows: Rows that were found to be right.
        first_bad: Number of the first wrong row, or None if all are right.
        reason: What is wrong with it, in words.
        checkpoints: How many checkpoints were compared.
    """

    rows: int
    first_bad: int | None
    reason: str
    checkpoints: int

    @property
    def intact(self) -> bool:
        """Whether nothing wrong was found."""
        return self.first_bad is None


def verify(
    database: Database,
    *,
    chain: str = "main",
    checkpoints: tuple[Checkpoint, ...] = (),
    trusted_key: str | None = None,
) -> Audit:
    """Check every row of a chain and compare it with signed checkpoints.

    Args:
        database: Holds the log.
        chain: Name of the chain.
        checkpoints: Statements kept outside the database.
        trusted_key: Base64 public key that must have signed them; None accepts the key that each one names.

    Returns:
        The verdict; ``first_bad`` names the first wrong row.
    """
    due = sorted((c for c in checkpoints if c.chain == chain), key=lambda c: c.size)
    hashes: list[bytes] = []
    head = GENESIS
    for row in _rows(database, chain):
        expected = len(hashes) + 1
        reason = _wrong(row, expected, head)
        if reason:
            return Audit(len(hashes), expected, reason, 0)
        head = row["hash"]
        hashes.append(bytes.fromhex(head))
    ended = _wrong_end(database, chain, size=len(hashes), head=head)
    if ended:
        return Audit(len(hashes), len(hashes) + 1, ended, 0)
    for number, checkpoint in enumerate(due):
        broken = _wrong_checkpoint(checkpoint, hashes, trusted_key)
        if broken:
            # Everything up to the last checkpoint that still agrees is known to be right.
            good = due[number - 1].size if number else 0
            return Audit(good, min(len(hashes), good) + 1, broken, number)
    return Audit(len(hashes), None, "every row agrees with its hash", len(due))


def make_checkpoint(database: Database, key: Path, *, at: datetime, chain: str = "main") -> Checkpoint:
    """Sign the current state of a chain.

    Args:
        database: Holds the log.
        key: File of the Ed25519 private key; created, readable by its owner only, if it does not exist.
        at: Time to state.
        chain: Name of the chain.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = _private_key(key)
    hashes = [bytes.fromhex(row["hash"]) for row in _rows(database, chain)]
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    statement = {
        "chain": chain,
        "size": len(hashes),
        "root": merkle.root(hashes).hex(),
        "at": at.isoformat(),
        "public_key": base64.b64encode(public).decode(),
    }
    signature = base64.b64encode(private.sign(canonical(statement))).decode()
    return Checkpoint(**statement, signature=signature)  # type: ignore[arg-type]  # one mixed dict, two uses


def read_checkpoints(file: Path) -> tuple[Checkpoint, ...]:
    """Read checkpoints, one JSON object a line; a file that does not exist holds none.

    Raises:
        Invalid: If a line is not a checkpoint.
    """
    if not file.exists():
        return ()
    found = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        try:
            found.append(Checkpoint(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise Invalid(f"Line {number} of {file.name} is not a checkpoint.") from error
    return tuple(found)


def append_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Add a checkpoint to a file, durably."""
    line = json.dumps({name: getattr(checkpoint, name) for name in checkpoint.__slots__}, sort_keys=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        handle.write(line + "\n")
        handle.flush()
        os.fsync(handle.fileno())


def _rows(database: Database, chain: str) -> Iterator[dict[str, Any]]:
    # Keyset pages on one snapshot, so that rows appended meanwhile are left for the next verification.
    with database.reading() as connection:
        last = 0
        while True:
            query = sa.select(events).where(events.c.chain == chain, events.c.seq > last)
            page = connection.execute(query.order_by(events.c.seq).limit(_PAGE)).mappings().all()
            for row in page:
                yield dict(row)
            if len(page) < _PAGE:
                return
            last = page[-1]["seq"]


def _wrong(row: dict[str, Any], expected: int, head: str) -> str:
    if row["seq"] != expected:
        return f"row {expected} is missing; the next one is {row['seq']}"
    if row["previous_hash"] != head:
        return f"row {expected} does not continue row {expected - 1}"
    if row["hash"] != row_hash(row):
        return f"row {expected} was changed: its content does not give its hash"
    return ""


def _wrong_end(database: Database, chain: str, *, size: int, head: str) -> str:
    with database.reading() as connection:
        query = sa.select(chains.c.seq, chains.c.hash).where(chains.c.chain == chain)
        row = connection.execute(query).one_or_none()
    if row is None:
        return "" if size == 0 else "the chain's head is missing"
    if (row.seq, row.hash) == (size, head):
        return ""
    return f"the chain's head says {row.seq} rows, {size} are there"


def _wrong_checkpoint(checkpoint: Checkpoint, hashes: list[bytes], trusted_key: str | None) -> str:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    name = f"the checkpoint of {checkpoint.at}"
    if trusted_key is not None and checkpoint.public_key != trusted_key:
        return f"{name} was signed with another key"
    statement = {key: getattr(checkpoint, key) for key in ("chain", "size", "root", "at", "public_key")}
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(checkpoint.public_key, validate=True))
        public.verify(base64.b64decode(checkpoint.signature, validate=True), canonical(statement))
    except (InvalidSignature, ValueError):
        return f"{name} has a wrong signature"
    if checkpoint.size > len(hashes):
        return f"{name} covers {checkpoint.size} rows, only {len(hashes)} are left"
    if merkle.root(hashes[: checkpoint.size]).hex() != checkpoint.root:
        return f"the first {checkpoint.size} rows are not those that {name} signed"
    return ""


def _private_key(file: Path) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = Ed25519PrivateKey.generate()
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise Invalid(f"{file.name} does not hold an Ed25519 private key.")
    return key
