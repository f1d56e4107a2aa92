"""The entry point of a serving worker: ``python -m modelyard.serving.worker --home … --worker 0 --port 80``.

It is imported before NumPy is, so that it can keep the numeric libraries from starting threads of their own:
a worker uses one core, and a second busy thread in it costs every request.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_BODY_BYTES = 10_000_000
CONCURRENCY = 256
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How one worker runs.

    Attributes:
        home: The home folder.
        worker: Its number, from 0; no two workers of a home may share one.
        workers: How many workers there are, for their shares of leases.
        host: Address to listen on.
        port: Port to listen on; shared by all workers. 0 takes a free one, named in the status file.
        hosts: Host names that clients use, besides the loopback names on loopback.
        origins: Web origins that may send requests.
        max_body_bytes: Largest request body.
        concurrency: Most requests under way at once per endpoint.
        append_bytes: Most bytes of prediction records that wait for the collector.
        drain_s: How long requests under way may take after SIGTERM.
    """

    home: Path
    worker: int = 0
    workers: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body_bytes: int = MAX_BODY_BYTES
    concurrency: int = CONCURRENCY
    append_bytes: int = 1 << 30
    drain_s: int = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until SIGTERM.

    Returns:
        The exit code.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = _parsed(arguments)
    for name in _THREAD_LIMITS:
        os.environ.setdefault(name, "1")
    from modelyard.serving.lifecycle import Worker  # noqa: PLC0415 - after the limits are set

    Worker(settings).run()
    return 0


def _parsed(arguments: Sequence[str] | None) -> WorkerSettings:
    parser = argparse.ArgumentParser(prog="modelyard-serving-worker", description="Answers predictions.")
    parser.add_argument("--home", type=Path, required=True, help="home folder")
    parser.add_argument("--worker", type=int, default=0, help="number of this worker, from 0")
    parser.add_argument("--workers", type=int, default=1, help="how many workers there are")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--allow-host", action="append", default=[], help="host name that clients use")
    parser.add_argument("--allow-origin", action="append", default=[], help="web origin that may ask")
    parser.add_argument("--max-body-bytes", type=int, default=MAX_BODY_BYTES)
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY)
    given = parser.parse_args(arguments)
    return WorkerSettings(
        home=given.home,
        worker=given.worker,
        workers=given.workers,
        host=given.host,
        port=given.port,
        hosts=tuple(given.allow_host),
        origins=tuple(given.allow_origin),
        max_body_bytes=given.max_body_bytes,
        concurrency=given.concurrency,
    )


if __name__ == "__main__":
    raise SystemExit(main())
