"""What one logged prediction costs the serving worker, against the ways that peers log.

    python benchmarks/append_log.py [--records 100000] [--folder DIR]

Each way stores the same records of about 400 bytes so that they survive the death of the process: the append
log, one ``write`` call per record, one JSON line with flush, and one SQLite insert in WAL mode. They take
turns, in rounds; the best round of each counts. The buffer in memory at the end is the floor, and loses
everything. CPU and wall time are microseconds per record; the worst percentiles show what rotation costs.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import sqlite3
import tempfile
import time
from pathlib import Path

from modelyard.storage.predictions import START, AppendReader, AppendWriter

ROUNDS = 3


def append_log(folder):
    writer = AppendWriter(folder, max_bytes=4 << 30)
    return writer.append, writer.close


def one_write(folder):
    descriptor = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda payload: os.write(descriptor, payload), lambda: os.close(descriptor)


def json_line(folder):
    stream = (folder / "log.jsonl").open("w")

    def log(payload):
        stream.write(json.dumps({"body": base64.b64encode(payload).decode()}) + "\n")
        stream.flush()

    return log, stream.close


def sqlite_insert(folder):
    connection = sqlite3.connect(folder / "log.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE log (body BLOB)")
    return lambda payload: connection.execute("INSERT INTO log VALUES (?)", (payload,)), connection.close


def memory_buffer(_folder):
    buffer = bytearray()
    return buffer.extend, buffer.clear


WAYS = {
    "append log": append_log,
    "os.write": one_write,
    "JSON line, flushed": json_line,
    "SQLite WAL insert": sqlite_insert,
    "bytearray (lost on death)": memory_buffer,
}


def measure(way, parent, payloads):
    """Return CPU and wall µs per record, and the 99.9th percentile and maximum of single calls in µs."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        log, close = way(Path(name))
        cpu, wall = time.process_time(), time.perf_counter()
        for payload in payloads:
            log(payload)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        singles = []
        for payload in payloads:
            before = time.perf_counter_ns()
            log(payload)
            singles.append(time.perf_counter_ns() - before)
        close()
    singles.sort()
    scale = 1e6 / len(payloads)
    return cpu * scale, wall * scale, singles[int(len(singles) * 0.999)] / 1e3, singles[-1] / 1e3


def measure_reader(parent, payloads):
    """Return CPU µs per record of reading it back."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        writer = AppendWriter(Path(name), max_bytes=4 << 30)
        for payload in payloads:
            writer.append(payload)
        reader, position, count = AppendReader(Path(name)), START, 0
        cpu = time.process_time()
        while True:
            batch, position = reader.read(position)
            if not batch:
                break
            count += len(batch)
        cpu = time.process_time() - cpu
        writer.close()
    if count != len(payloads):
        raise SystemExit(f"read {count} of {len(payloads)} records")
    return cpu * 1e6 / count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; the file system matters")
    options = parser.parse_args()
    payloads = [os.urandom(404) for _ in range(1000)] * (options.records // 1000)
    best = dict.fromkeys(WAYS, (float("inf"),) * 4)
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            best[name] = min(best[name], measure(way, options.folder, payloads))
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.platform()}")
    print(f"{len(payloads):,} records of 404 bytes, best of {ROUNDS} rounds, µs per record")
    print(f"{'way':28}{'CPU':>8}{'wall':>8}{'p99.9':>9}{'max':>10}{'CPU ratio':>11}")
    own = best["append log"][0]
    for name, (cpu, wall, high, worst) in best.items():
        print(f"{name:28}{cpu:8.2f}{wall:8.2f}{high:9.1f}{worst:10.1f}{cpu / own:11.1f}")
    print(f"reading back: {measure_reader(options.folder, payloads):.2f} µs CPU per record")


if __name__ == "__main__":
    main()
