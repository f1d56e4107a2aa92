"""A worker's life: take the port, load, answer, swap on every new route table, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import uvicorn

import modelyard
from modelyard.errors import Invalid, ModelyardError
from modelyard.serving.access import (
    Authorize,
    Doorkeeper,
    TokenCheck,
    allow_all,
    read_tokens,
    refuse_all,
)
from modelyard.serving.answering import Answering
from modelyard.serving.application import Application
from modelyard.serving.capture import Capture
from modelyard.serving.ids import PredictionIds
from modelyard.serving.loading import Loaded, Loader, LoadFace, load_face
from modelyard.serving.model import RouteTable, VariantStatus, WorkerStatus, decode_table, encode
from modelyard.serving.publisher import ServingPaths, write_atomically
from modelyard.serving.shadow import ShadowQueue
from modelyard.serving.tally import TallyBook
from modelyard.serving.worker import WorkerSettings
from modelyard.storage.predictions import AppendWriter

log = logging.getLogger(__name__)

WATCH_S = 0.05
REPORT_S = 0.1
RETRY_S = 1.0
_BACKLOG = 2048

Stamp = tuple[int, int, int] | None


class Worker:
    """One serving process.

    Args:
        settings: How it runs.
        load: Loads a model; a test may pass another.
    """

    def __init__(self, settings: WorkerSettings, *, load: LoadFace = load_face) -> None:
        self.settings = settings
        self.paths = ServingPaths(settings.home)
        self._book = TallyBook(self.paths.tallies(settings.worker))
        self._writer = AppendWriter(self.paths.append(settings.worker), max_bytes=settings.append_bytes)
        self._capture = Capture(self._writer, chance=random.Random().random)  # noqa: S311 - sampling is no secret
        self._shadows = ShadowQueue(timer_ns=time.perf_counter_ns)
        self._answering = Answering(capture=self._capture, shadows=self._shadows)
        self._doorkeeper = Doorkeeper(listening=settings.host, hosts=settings.hosts, origins=settings.origins)
        self.application = Application(
            doorkeeper=self._doorkeeper,
            authorize=allow_all if self._doorkeeper.on_loopback else refuse_all,
            answering=self._answering,
            max_body_bytes=settings.max_body_bytes,
            version=modelyard.__version__,
        )
        self._loader = Loader(
            self.paths,
            worker=settings.worker,
            workers=settings.workers,
            book=self._book,
            ids=PredictionIds(),
            load_face=load,
            limit=settings.concurrency,
        )
        self._loaded = Loaded(self.application.live, (), (), ())
        self._routes_stamp: Stamp = None
        self._tokens_stamp: Stamp = None
        self._swap_ms = 0.0
        self._error = ""
        self._port = settings.port
        self._reported: object = None
        self.listening = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is under way."""
        listener = listen(self.settings.host, self.settings.port)
        self._port = listener.getsockname()[1]
        server = _Server(self, listener)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(self._serve(server, listener))

    async def look(self) -> bool:
        """Take a new route table or token table if there is one; say whether the routes changed."""
        tokens = stamp(self.paths.tokens)
        if tokens != self._tokens_stamp:
            self._tokens_stamp = tokens
            self.application.authorize = self._authorize()
        routes = stamp(self.paths.routes)
        if routes == self._routes_stamp:
            return False
        self._routes_stamp = routes
        started = time.perf_counter()
        table = self._table()
        if table is None or table.generation == self.application.live.generation:
            return False
        await self._swap(table, started)
        return True

    def status(self) -> WorkerStatus:
        """Return this worker's own account of itself."""
        live = self.application.live
        return WorkerStatus(
            worker=self.settings.worker,
            pid=os.getpid(),
            host=self.settings.host,
            port=self._port,
            generation=live.generation,
            ready=live.ready and not self.application.draining,
            draining=self.application.draining,
            models=self._loaded.models,
            failed=self._loaded.failed,
            variants=tuple(
                VariantStatus(
                    endpoint=endpoint.name,
                    variant=variant.route.name,
                    version=variant.route.version,
                    answers=variant.tally.answers,
                    errors=variant.tally.errors,
                    lease=variant.tally.lease,
                    lease_used=variant.tally.used,
                    lease_share=variant.tally.share,
                    crashes=variant.tally.crashes,
                    latency_us_total=variant.tally.latency_us,
                )
                for endpoint in live.endpoints.values()
                for variant in endpoint.variants
            ),
            rejected=dict(self.application.rejected),
            captured=self._capture.written,
            capture_dropped=self._capture.dropped,
            shadow_dropped=self._shadows.dropped,
            swap_ms=self._swap_ms,
            error=self._error,
            updated_ms=time.time_ns() // 1_000_000,
        )

    def report(self) -> None:
        """Write the status file if something has changed; not before there is a port to name in it."""
        if not self.listening:
            return
        application = self.application
        now = (
            application.live,
            application.draining,
            self._answering.predictions,
            application.rejected.total(),
            self._shadows.handled,
            self._error,
        )
        if now == self._reported:
            return
        try:
            write_atomically(self.paths.status(self.settings.worker), encode(self.status()), durable=False)
        except OSError as error:  # a full disk: predictions go on
            log.error("the status was not written: %s", error)
        else:
            self._reported = now

    async def _serve(self, server: _Server, listener: socket.socket) -> None:
        # A second worker on the port gets connections as soon as it listens, so it loads before it does.
        await self.look()
        gc.collect()
        gc.freeze()  # what is loaded now stays: the collector need not walk it during requests
        tasks = [asyncio.create_task(self._watching()), asyncio.create_task(self._reporting())]
        try:
            await server.serve(sockets=[listener])
        finally:
            self.application.draining = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._shadows.drain()
            self.report()
            self._writer.close()
            self._book.close()

    async def _watching(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self.look()
            except (OSError, ModelyardError) as error:
                self._error = str(error)
                log.error("the route table was not taken, trying again: %s", error)
                self._routes_stamp = None
                await asyncio.sleep(RETRY_S)

    async def _reporting(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self.report()
            self._writer.prepare()

    async def _swap(self, table: RouteTable, started: float) -> None:
        """Load beside what answers now, then replace one reference."""
        with ThreadPoolExecutor(1, thread_name_prefix="loading") as pool:
            previous = self.application.live
            loaded = await asyncio.get_running_loop().run_in_executor(pool, self._loader.load, table, previous)
        self.application.live = loaded.live
        self._loaded = loaded
        self._swap_ms = round((time.perf_counter() - started) * 1000, 3)
        self._error = ""
        self.report()
        # Copies that still wait belong to the table before, and count for its variants.
        await self._shadows.drain()
        self._book.keep_only(loaded.tallies)
        log.info("route table %d in force after %.0f ms", table.generation, self._swap_ms)

    def _table(self) -> RouteTable | None:
        try:
            return decode_table(self.paths.routes.read_bytes())
        except FileNotFoundError:
            return None
        except Invalid as error:
            self._error = error.message
            log.error("the route table was not taken: %s", error.message)
            return None

    def _authorize(self) -> Authorize:
        try:
            return TokenCheck(read_tokens(self.paths.tokens))
        except FileNotFoundError:
            return allow_all if self._doorkeeper.on_loopback else refuse_all
        except Invalid as error:
            log.error("%s Everybody is refused until it can.", error.message)
            return refuse_all


class _Server(uvicorn.Server):
    """Uvicorn, which tells the worker when it is asked to stop."""

    def __init__(self, worker: Worker, listener: socket.socket) -> None:
        config = uvicorn.Config(
            worker.application,
            access_log=False,
            backlog=_BACKLOG,
            date_header=False,
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=worker.settings.drain_s,
            timeout_keep_alive=75,
        )
        super().__init__(config)
        self._worker = worker
        # Before it serves there is nothing to finish; after it, uvicorn raises the signal again, in vain.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and only then say so."""
        await super().startup(sockets)
        self._worker.listening = True
        self._worker.report()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop being ready, then let uvicorn finish the requests under way."""
        self._worker.application.draining = True
        super().handle_exit(sig, frame)

    def _leave(self, _signal: int, _frame: FrameType | None) -> None:
        if not self.should_exit:
            sys.exit(0)


def listen(host: str, port: int) -> socket.socket:
    """Bind the workers' common port; connections come once it is listened on.

    Raises:
        OSError: If the address is not this machine's, or taken by another program.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Accepted connections inherit it: an answer must not wait for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind((host, port))
    listener.setblocking(False)
    return listener


def stamp(path: Path) -> Stamp:
    """Return what changes when a file is replaced, or None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - called 20 times a second
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
