"""Single-row requests per second of one endpoint, and CPU per request of the worker.

    python benchmarks/serving.py [--seconds 3] [--rounds 3] [--connections 1 16 64] [--workers 1]

The models are the two of the serving reference: **A** logistic regression, 20 floats; **B** LightGBM, 200 trees of
31 leaves, 20 floats. Requests come from ``wrk`` if it is installed, else from a raw-socket client in a process of
its own, which shares the machine's cores with the worker: compare ratios, and trust the CPU column, which contention
hardly moves. Variants of one figure (records captured or not, traffic split or not) are interleaved round by round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.models import folder_digest, save_model
from modelyard.serving import EndpointRoute, RoutePublisher, RouteTable, VariantRoute

FEATURES = 20
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Round:
    """What one run against one address gave."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.workers)
        try:
            bench.start()
            report(bench, given)
        finally:
            bench.stop()


class Bench:
    """A home with models A and B behind several endpoints, and its workers."""

    def __init__(self, home: Path, workers: int) -> None:
        self.home = home
        self.workers = workers
        self.publisher = RoutePublisher(home)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.port = 0

    def start(self) -> None:
        endpoints = []
        for task, make in (("a", logistic), ("b", boosted)):
            digests = [self._add(f"{task}{seed}", make(seed)) for seed in (1, 2)]
            control = VariantRoute("control", "control", task, 1, digests[0], 10_000)
            canary = VariantRoute("canary", "canary", task, 2, digests[1], 1_000)
            plain = EndpointRoute(task, "default", "salt", None, None, (control,))
            split = (replace(control, weight=9_000), canary)
            endpoints += [
                plain,
                replace(plain, name=f"{task}-unlogged", sample=0.0),
                replace(plain, name=f"{task}-split", entity_key="customer", variants=split),
            ]
        table = self.publisher.publish(RouteTable(0, tuple(endpoints)))
        for worker in range(self.workers):
            self._start(worker)
        self.publisher.await_loaded(table.generation, workers=self.workers)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()

    def cpu_s(self) -> float:
        """Return the CPU seconds that the workers have used."""
        total = 0
        for process in self.processes:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def run(self, path: str, body: bytes, connections: int, seconds: float) -> Round:
        before = self.cpu_s()
        requests, p50, p99, spent = load(self.port, path, body, connections, seconds)
        return Round(requests / spent, p50, p99, (self.cpu_s() - before) / max(requests, 1) * 1e6)

    def _add(self, name: str, made: tuple[Any, Any]) -> str:
        model, data = made
        save_model(model, self.home / name, data=data)
        digest = folder_digest(self.home / name)
        shutil.move(self.home / name, self.publisher.paths.models / digest)
        return digest

    def _start(self, worker: int) -> None:
        command = [sys.executable, "-m", "modelyard.serving.worker", "--home", str(self.home)]
        command += ["--worker", str(worker), "--workers", str(self.workers), "--port", str(self.port)]
        self.processes.append(subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL))
        while not any(status.worker == worker for status in self.publisher.workers()):
            time.sleep(0.01)
        self.port = self.publisher.workers()[0].port


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def table(seed: int) -> tuple[Any, Any]:
    import pandas as pd

    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(4000, FEATURES)), columns=[f"feature_{i}" for i in range(FEATURES)])
    return frame, (frame["feature_0"] + rng.normal(size=4000) > 0).astype(int)


def logistic(seed: int) -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression

    frame, target = table(seed)
    return LogisticRegression().fit(frame, target), frame


def boosted(seed: int) -> tuple[Any, Any]:
    from lightgbm import LGBMClassifier

    frame, target = table(seed)
    return LGBMClassifier(n_estimators=200, num_leaves=31, n_jobs=1, verbosity=-1).fit(frame, target), frame


def load(port: int, path: str, body: bytes, connections: int, seconds: float) -> tuple[int, float, float, float]:
    """Return requests answered, p50 and p99 in ms, and seconds."""
    if shutil.which("wrk"):
        return wrk(port, path, body, connections, seconds)
    arguments = [str(port), path, body.decode(), str(connections), str(seconds)]
    command = [sys.executable, __file__, "--client", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    requests, p50, p99, spent = json.loads(found.stdout)
    return requests, p50, p99, spent


def wrk(port: int, path: str, body: bytes, connections: int, seconds: float) -> tuple[int, float, float, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            f'wrk.method="POST"\nwrk.body={json.dumps(body.decode())}\n'
            'wrk.headers["Content-Type"]="application/json"\n'
            "done=function(s,l,r) io.write(string.format("
            '"RESULT %d %f %f %f %d\\n", s.requests, l:percentile(50)/1e3, l:percentile(99)/1e3, s.duration/1e6,'
            " s.errors.status)) end\n"
        )
        script.flush()
        url = f"http://127.0.0.1:{port}{path}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", script.name, url]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = re.search(r"RESULT (\S+) (\S+) (\S+) (\S+) (\S+)", found)
    assert numbers is not None, found
    assert int(numbers[5]) == 0, found
    return int(numbers[1]), float(numbers[2]), float(numbers[3]), float(numbers[4])


class Connection(asyncio.Protocol):
    """Sends one request, waits for its answer, sends the next."""

    def __init__(self, request: bytes, spent: list[float]) -> None:
        self.request = request
        self.spent = spent
        self.answer = b""
        self.length = 0
        self.stopped = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.answer, self.length = b"", 0
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.answer += data
        if not self.length:
            end = self.answer.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self.answer.find(b"content-length: ") + 16
            self.length = end + 4 + int(self.answer[at : self.answer.find(b"\r", at)])
        if len(self.answer) >= self.length:
            assert self.answer.startswith(b"HTTP/1.1 200"), self.answer
            self.spent.append(time.perf_counter() - self.sent)
            if not self.stopped:
                self.send()


async def client(port: int, path: str, body: bytes, connections: int, seconds: float) -> list[float]:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    spent: list[float] = []
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: Connection(request, spent), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - started
    ordered = sorted(spent)
    for protocol in made:
        protocol.stopped = True
        protocol.transport.close()
    return [len(ordered), ordered[len(ordered) // 2] * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3, took]


def run_client(arguments: list[str]) -> None:
    import uvloop

    port, path, body, connections, seconds = arguments
    print(json.dumps(uvloop.run(client(int(port), path, body.encode(), int(connections), float(seconds)))))


def report(bench: Bench, given: argparse.Namespace) -> None:
    names = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "httptools", "msgspec", "numpy"))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {given.workers} worker(s); {names}")
    print(f"client: {'wrk' if shutil.which('wrk') else 'raw sockets on uvloop'}; {given.rounds} x {given.seconds:g} s")
    row = {f"feature_{i}": round(float(v), 6) for i, v in enumerate(np.random.default_rng(0).normal(size=FEATURES))}
    native = json.dumps({"rows": [{**row}]}, separators=(",", ":")).encode()
    keyed = json.dumps({"rows": [{**row, "customer": "c-1234"}]}, separators=(",", ":")).encode()
    tensor = {"name": "input-0", "shape": [1, FEATURES], "datatype": "FP64", "data": list(row.values())}
    oip = json.dumps({"id": "1", "inputs": [tensor]}, separators=(",", ":")).encode()
    cases: list[tuple[str, str, bytes]] = []
    for task in ("a", "b"):
        cases += [
            (f"{task.upper()} native, captured", f"/predict/{task}", native),
            (f"{task.upper()} native, not captured", f"/predict/{task}-unlogged", native),
            (f"{task.upper()} native, captured, split by key", f"/predict/{task}-split", keyed),
            (f"{task.upper()} OIP v2, captured", f"/v2/models/{task}/infer", oip),
        ]
    print(f"request bytes: native {len(native)}, OIP {len(oip)}\n")
    header = f"{'endpoint':36}" + "".join(f"{c:>5} conn: req/s  p50/p99 ms   CPU us |" for c in given.connections)
    print(header)
    found: dict[tuple[str, int], list[Round]] = {}
    bench.run("/predict/a", native, 16, 1.0)
    for _ in range(given.rounds):
        for name, path, body in cases:
            for connections in given.connections:
                found.setdefault((name, connections), []).append(bench.run(path, body, connections, given.seconds))
    for name, _, _ in cases:
        cells = [middle(found[name, connections]) for connections in given.connections]
        shown = (f"{c.requests_per_s:17.0f} {c.p50_ms:6.2f}/{c.p99_ms:<6.2f}{c.cpu_us:7.0f} |" for c in cells)
        print(f"{name:36}" + "".join(shown))
    print()
    for task in ("A", "B"):
        for connections in given.connections:
            on = middle(found[f"{task} native, captured", connections])
            off = middle(found[f"{task} native, not captured", connections])
            rate, cpu = on.requests_per_s / off.requests_per_s - 1, on.cpu_us - off.cpu_us
            print(f"{task} capture at {connections:3} connections: {rate:+.1%} req/s, {cpu:+.1f} us CPU a request")


def middle(rounds: list[Round]) -> Round:
    """Return the median of each figure."""
    pick: Callable[[str], float] = lambda name: statistics.median(getattr(r, name) for r in rounds)  # noqa: E731
    return Round(pick("requests_per_s"), pick("p50_ms"), pick("p99_ms"), pick("cpu_us"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        run_client(sys.argv[2:])
    else:
        main()
