import os
import subprocess
import sys

import pytest

from modelyard.errors import Conflict, StorageFull
from modelyard.serving.tally import SLOTS, TallyBook, is_locked, share_of

NAME = ("churn", "canary", "digest")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "workers" / "0.tallies"


def reopened(book, path):
    book.close()
    return TallyBook(path)


def test_counters_outlive_the_book(path):
    book = TallyBook(path)
    tally = book.tally(*NAME, lease="l1", share=2)
    tally.answered(3, latency_us=50)
    tally.failed(2)
    assert [tally.take() for _ in range(3)] == [True, True, False]
    book = reopened(book, path)
    again = book.tally(*NAME, lease="l1", share=2)
    assert (again.answers, again.errors, again.used, again.latency_us, again.crashes) == (3, 2, 2, 150, 0)
    assert not again.take()
    book.close()


def test_a_new_lease_starts_at_zero_and_keeps_the_other_counters(path):
    book = TallyBook(path)
    first = book.tally(*NAME, lease="l1", share=1)
    first.take()
    first.answered(1, latency_us=1)
    second = book.tally(*NAME, lease="l2", share=1)
    assert (second.used, second.answers) == (0, 1)
    assert second.take()
    book.close()


def test_without_a_lease_there_is_no_limit(path):
    book = TallyBook(path)
    tally = book.tally(*NAME)
    assert all(tally.take() for _ in range(1000))
    assert tally.used == 0
    book.close()


def test_a_killed_process_leaves_its_variant_to_blame(path):
    code = (
        "import os, sys; from pathlib import Path; from modelyard.serving.tally import TallyBook\n"
        f"book = TallyBook(Path({str(path)!r})); other = book.tally('churn', 'control', 'd')\n"
        f"other.enter(); other.leave(); t = book.tally(*{NAME!r}, lease='l', share=9); t.take(); t.enter()\n"
        "os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9
    book = TallyBook(path)
    tally = book.tally(*NAME, lease="l", share=9)
    assert (tally.crashes, tally.used, book.tally("churn", "control", "d").crashes) == (1, 1, 0)
    book = reopened(book, path)
    assert book.tally(*NAME, lease="l", share=9).crashes == 1
    book.close()


def test_forgotten_counters_make_room(path):
    book = TallyBook(path)
    for i in range(SLOTS):
        book.tally("e", str(i), "d").failed(1)
    with pytest.raises(StorageFull, match="4,096"):
        book.tally("one", "more", "d")
    book.keep_only([("e", "7", "d")])
    assert book.tally("one", "more", "d").errors == 0
    assert book.tally("e", "7", "d").errors == 1
    assert book.tally("e", "8", "d").errors == 0
    book.close()


def test_one_process_at_a_time(path):
    assert not is_locked(path)
    book = TallyBook(path)
    assert is_locked(path)
    with pytest.raises(Conflict, match="Worker 0 runs already"):
        TallyBook(path)
    book.close()
    assert not is_locked(path)


@pytest.mark.parametrize(("answers", "workers"), [(0, 3), (1, 4), (10, 3), (100, 7)])
def test_shares_sum_to_the_lease(answers, workers):
    shares = [share_of(answers, worker=i, workers=workers) for i in range(workers)]
    assert sum(shares) == answers
    assert max(shares) - min(shares) <= 1
