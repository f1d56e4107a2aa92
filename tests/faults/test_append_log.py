"""kill -9 of a serving worker loses no record that it has acknowledged."""

import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.storage.predictions import START, AppendReader

pytestmark = pytest.mark.faults

SOURCE = Path(__file__).parents[2] / "src"
ROUNDS = 200
SEED = 20_130_401

# One interpreter stays and forks a writer per round, since starting Python costs more than the round itself.
# The writer answers each accepted record with its number; a letter on standard input starts the next writer.
FORKS = """
import os, random, struct, sys
from pathlib import Path
from modelyard.storage.predictions import AppendWriter

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
while os.read(0, 1):
    seed += 1
    child = os.fork()
    if child == 0:
        os.write(1, struct.pack("<q", -os.getpid()))
        draw = random.Random(seed)
        writer = AppendWriter(folder, segment_bytes=64 << 10, max_bytes=1 << 30)
        number = 0
        while True:
            payload = struct.pack("<qq", seed, number) + draw.randbytes(draw.randrange(2000))
            if not writer.append(payload):
                os._exit(3)
            os.write(1, struct.pack("<q", number))
            number += 1
    _, status = os.waitpid(child, 0)
    os.write(2, b"x")
"""


def _acknowledged(stream, draw):
    """Let one writer live for a random number of answers, kill it, and return the last it gave."""
    (pid,) = struct.unpack("<q", stream.read(8))
    last = -1
    for _ in range(draw.randrange(1, 120)):
        (last,) = struct.unpack("<q", stream.read(8))
    os.kill(-pid, signal.SIGKILL)
    return last


def test_every_acknowledged_record_survives_kill_9(tmp_path):
    draw = random.Random(SEED)
    print(f"seed {SEED}")  # noqa: T201 - repeats a failure
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS, str(tmp_path / "w0"), str(SEED)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    reader = AppendReader(tmp_path / "w0")
    position, stored = START, []
    ledger = {}
    stdout = os.fdopen(os.dup(process.stdout.fileno()), "rb")
    for number in range(ROUNDS):
        process.stdin.write(b"n")
        seed = SEED + number + 1
        ledger[seed] = _acknowledged(stdout, draw)
        assert process.stderr.read(1) == b"x"
        # Answers that were on their way when it died count too.
        ledger[seed] += _drain(stdout, process)
        found, position = reader.read(position, 100_000)
        stored += found
        reader.release(position)
    process.stdin.close()
    assert process.wait() == 0
    for stream in (stdout, process.stdout, process.stderr):
        stream.close()
    _compare(stored, ledger)
    assert reader.damaged == 0


def _drain(stdout, process):
    """Return how many more answers the pipe holds."""
    os.set_blocking(stdout.fileno(), False)
    rest = stdout.read() or b""
    os.set_blocking(stdout.fileno(), True)
    return len(rest) // 8


def _compare(stored, ledger):
    seen = {}
    for record in stored:
        seed, number = struct.unpack_from("<qq", record)
        assert number == seen.get(seed, -1) + 1, "a record is lost, doubled or out of order"
        seen[seed] = number
    for seed, last in ledger.items():
        draw = random.Random(seed)
        assert seen.get(seed, -1) >= last, f"seed {seed}: acknowledged {last}, found {seen.get(seed)}"
        assert seen[seed] <= last + 1, "at most the record whose answer was cut off comes on top"
        sizes = [len(draw.randbytes(draw.randrange(2000))) for _ in range(last + 1)]
        mine = [record for record in stored if struct.unpack_from("<q", record)[0] == seed]
        assert [len(record) - 16 for record in mine[: last + 1]] == sizes
