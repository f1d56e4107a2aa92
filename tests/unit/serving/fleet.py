"""Real workers on loopback for tests: processes, models on disk and a small HTTP client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from modelyard.models import Predictor, folder_digest, save_model
from modelyard.serving import EndpointRoute, Lease, RoutePublisher, RouteTable, ServingPaths, VariantRoute

SOURCE = Path(__file__).parents[3] / "src"
NAMES = tuple(f"x{i}" for i in range(5))


def until(condition: Callable[[], Any], *, timeout_s: float = 30.0, what: str = "the condition") -> Any:
    """Wait until a condition holds and return its value."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out waiting for {what}")
        time.sleep(0.005)


def training_data(seed: int, rows: int = 400) -> tuple[Any, Any]:
    import pandas as pd

    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.normal(size=rows) for name in NAMES})
    frame["city"] = pd.Categorical(rng.choice(["Bergen", "Oslo", "Rome"], size=rows))
    noise = rng.normal(scale=0.3, size=rows)
    target = (frame["x0"] + (frame["city"] == "Oslo") + noise > 0.3).astype(int)
    return frame, target


@lru_cache(maxsize=1)
def _kept() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="serving-models-")


@lru_cache(maxsize=8)
def lightgbm_folder(seed: int) -> Path:
    import lightgbm

    frame, target = training_data(seed)
    model = lightgbm.LGBMClassifier(n_estimators=20, num_leaves=7, n_jobs=1, verbosity=-1, random_state=seed)
    model.fit(frame, target)
    folder = Path(_kept().name) / f"lightgbm-{seed}"
    save_model(model, folder, data=frame)
    return folder


@lru_cache(maxsize=8)
def linear_folder(seed: int) -> Path:
    from sklearn.linear_model import LogisticRegression

    frame, target = training_data(seed)
    numbers = frame[list(NAMES)]
    folder = Path(_kept().name) / f"linear-{seed}"
    save_model(LogisticRegression().fit(numbers, target), folder, data=numbers)
    return folder


def python_folder(target: Path, model: Any) -> Path:
    frame, _ = training_data(0, rows=20)
    save_model(model, target, data=frame[list(NAMES)])
    return target


@lru_cache(maxsize=256)
def _row(seed: int) -> dict[str, Any]:
    frame, _ = training_data(seed, rows=3)
    return frame.iloc[0].to_dict()


def row(seed: int, *, city: bool = True) -> dict[str, Any]:
    """One row of a table like the models' training data."""
    return {name: value for name, value in _row(seed).items() if city or name != "city"}


def expected(folder: Path, rows: list[dict[str, Any]]) -> list[float]:
    """What the model itself says, through its own code."""
    return Predictor.load(folder, trust=True, engine="own").predict_rows(rows).scores.tolist()


def add_model(home: Path, folder: Path) -> str:
    digest = folder_digest(folder)
    target = ServingPaths(home).models / digest
    if not target.exists():
        shutil.copytree(folder, target)
    return digest


def variant(home: Path, folder: Path, **given: Any) -> VariantRoute:
    fields = {"name": "control", "role": "control", "model": "churn", "version": 1, "weight": 10_000}
    return VariantRoute(**{**fields, "digest": add_model(home, folder), **given})


def endpoint(*variants: VariantRoute, **given: Any) -> EndpointRoute:
    fields: dict[str, Any] = {
        "name": "churn",
        "project": "default",
        "salt": "s1",
        "entity_key": "customer",
        "time_column": None,
    }
    return EndpointRoute(**{**fields, "variants": variants, **given})


def split(route: EndpointRoute, canary: VariantRoute, weight: int, *, lease: Lease | None = None) -> EndpointRoute:
    """Give a canary its share of an endpoint."""
    control = replace(route.control, weight=10_000 - weight)
    return replace(route, variants=(control, replace(canary, role="canary", weight=weight, lease=lease)))


class Client:
    """One keep-alive HTTP/1.1 connection over a raw socket."""

    def __init__(self, port: int, *, timeout_s: float = 20.0) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.buffer = b""

    def close(self) -> None:
        self.socket.close()

    def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        merged = {"Host": f"127.0.0.1:{self.port}", "Content-Type": "application/json", **(headers or {})}
        merged.setdefault("Content-Length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in merged.items() if v is not None)]
        self.socket.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def receive(self) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, rest = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        self.buffer = rest
        while len(self.buffer) < length:
            self._more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(lines[0].split(" ")[1]), headers, body

    def ask(self, method: str, path: str, body: Any = None, **headers: Any) -> tuple[int, Any]:
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        self.send(method, path, raw, named)
        status, _, answer = self.receive()
        return status, json.loads(answer)

    def predict(self, body: Any, endpoint: str = "churn", **headers: Any) -> dict[str, Any]:
        status, answer = self.ask("POST", f"/predict/{endpoint}", body, **headers)
        assert status == 200, answer
        return answer

    def _more(self) -> None:
        chunk = self.socket.recv(65536)
        if not chunk:
            raise ConnectionError("closed by the worker")
        self.buffer += chunk


class Fleet:
    """Worker processes on one home and one port."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.publisher = RoutePublisher(home)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.port = 0
        self.environment = {**os.environ, "PYTHONPATH": str(SOURCE)}

    def start(self, worker: int = 0, *options: str, workers: int = 1) -> None:
        """Start a worker and wait until its status file says that it runs."""
        command = [sys.executable, "-m", "modelyard.serving.worker", "--home", str(self.home)]
        command += ["--worker", str(worker), "--workers", str(workers), "--port", str(self.port), *options]
        log = (self.home / f"worker-{worker}.log").open("ab")
        process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        log.close()
        self.processes[worker] = process
        until(lambda: self._up(worker, process), what=f"worker {worker}")
        self.port = next(s.port for s in self.publisher.workers() if s.worker == worker)
        until(self._accepts, what="the port")

    def publish(self, *endpoints: EndpointRoute) -> int:
        """Publish a table and wait until all workers serve it."""
        table = self.publisher.publish(RouteTable(0, endpoints))
        self.publisher.await_loaded(table.generation, workers=len(self.processes))
        return table.generation

    def client(self) -> Client:
        return Client(self.port)

    def kill(self, worker: int = 0) -> None:
        process = self.processes.pop(worker)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, worker: int = 0) -> int:
        process = self.processes.pop(worker)
        process.terminate()
        return process.wait(timeout=30)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.processes.clear()

    def log(self, worker: int = 0) -> str:
        return (self.home / f"worker-{worker}.log").read_text()

    def _up(self, worker: int, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.log(worker)
        return any(status.pid == process.pid for status in self.publisher.workers())

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True
