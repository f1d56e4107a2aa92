"""The inference log stores each prediction once and finds it again, on both databases."""

import hashlib
import itertools
import os
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from modelyard.errors import Conflict, Corrupted, Invalid, Unavailable
from modelyard.storage.predictions import (
    PREDICTION_SCHEMA,
    START,
    Advance,
    AppendReader,
    AppendWriter,
    Position,
    PredictionStore,
)

T0 = datetime(2013, 4, 1, 10, 30, tzinfo=UTC)
WALL = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def _rows(numbers, *, endpoint="flights", project="default", version=1, start=T0, step=MINUTE, **features):
    numbers = list(numbers)
    size = len(numbers)
    columns = {
        "prediction_id": [f"{project[0]}{number:08d}" for number in numbers],
        "project": [project] * size,
        "endpoint": [endpoint] * size,
        "version": [version] * size,
        "time": [start + step * number for number in numbers],
        "recorded_at": [WALL] * size,
        "score": [number / 2 for number in numbers],
        "status": ["ok"] * size,
        **{f"f.{name}": values for name, values in features.items()},
    }
    return pa.table(columns)


class Kit:
    def __init__(self, database, folder):
        self.database = database
        self.folder = folder
        self.wall = WALL
        ids = itertools.count()
        self.store = PredictionStore(database, folder, new_id=lambda: f"{next(ids):026d}", now=lambda: self.wall)
        self.events = []

    def write(self, rows, *advances):
        with self.database.transaction() as tx:
            return self.store.write(tx, rows, advances=advances)

    def seal(self, **options):
        return self.store.seal(record=lambda tx, change: self.events.append(change), **options)

    def on_disk(self):
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def kit(database, tmp_path):
    return Kit(database, tmp_path / "predictions")


def _ids(table):
    return sorted(table.column("prediction_id").to_pylist())


def _expected(numbers):
    return [f"d{number:08d}" for number in numbers]


def test_rows_come_back_in_the_schema_with_their_features(kit):
    kit.write(_rows(range(10), age=list(range(10)), city=["Ulm"] * 10))
    table = kit.store.scan("flights")
    assert table.schema.names == [*PREDICTION_SCHEMA.names, "f.age", "f.city"]
    assert table.schema.field("time").type == pa.timestamp("us", tz="UTC")
    assert table.column("time").to_pylist() == [T0 + MINUTE * number for number in range(10)]
    assert table.column("f.age").to_pylist() == list(range(10))
    assert table.column("model").null_count == 10
    assert kit.store.scan("absent").num_rows == 0
    assert kit.store.scan("flights", "other").num_rows == 0


def test_rolled_back_rows_are_not_there_and_their_position_stays(kit):
    step = Advance("w0", START, Position(3, 40))
    with pytest.raises(RuntimeError), kit.database.transaction() as tx:
        kit.store.write(tx, _rows(range(5)), advances=[step])
        raise RuntimeError
    assert kit.store.scan("flights").num_rows == 0
    assert kit.store.positions() == {}
    kit.write(_rows(range(5)), step)
    assert kit.store.positions() == {"w0": Position(3, 40)}
    assert kit.store.count("flights") == 5


def test_the_same_records_are_stored_once_even_by_two_readers(kit):
    step = Advance("w0", START, Position(1, 100))
    kit.write(_rows(range(5)), step, Advance("w1", START, Position(9, 9)))
    with pytest.raises(Conflict):
        kit.write(_rows(range(5)), step)
    assert kit.store.count("flights") == 5
    kit.write(_rows(range(5, 7)), Advance("w0", Position(1, 100), Position(2, 32)))
    assert kit.store.positions() == {"w0": Position(2, 32), "w1": Position(9, 9)}
    with kit.database.transaction() as tx:
        kit.store.forget_position(tx, "w1")
    assert list(kit.store.positions()) == ["w0"]


def test_append_log_to_store_is_exactly_once_whatever_step_fails(kit, tmp_path):
    writer = AppendWriter(tmp_path / "w0", segment_bytes=4096)
    for number in range(300):
        writer.append(str(number).encode())
    failures = itertools.cycle(["", "before", "", "after"])
    while True:
        # Each turn is a new process: it knows only what is stored.
        reader = AppendReader(tmp_path / "w0")
        before = kit.store.positions().get("w0", START)
        records, after = reader.read(before, limit=23)
        if not records:
            break
        failure = next(failures)
        try:
            with kit.database.transaction() as tx:
                if failure == "before":
                    raise RuntimeError
                rows = _rows(int(record) for record in records)
                kit.store.write(tx, rows, advances=[Advance("w0", before, after)])
                if failure == "after":
                    raise RuntimeError
        except RuntimeError:
            continue
        reader.release(after)
    assert _ids(kit.store.scan("flights")) == _expected(range(300))
    writer.close()


def test_one_batch_of_many_endpoints_is_kept_apart(kit):
    kit.write(
        pa.concat_tables(
            [
                _rows(range(3), endpoint="a", x=[1, 2, 3]),
                _rows(range(4), endpoint="b", y=["u"] * 4),
                _rows(range(5), endpoint="a", project="other"),
            ],
            promote_options="default",
        )
    )
    assert kit.store.scan("a").schema.names[-1] == "f.x"
    assert kit.store.scan("b").schema.names[-1] == "f.y"
    assert (kit.store.count("a"), kit.store.count("b"), kit.store.count("a", "other")) == (3, 4, 5)


def test_names_of_endpoints_never_become_paths(kit):
    name = "../../../etc/x'; DROP TABLE prediction_files; --\n"
    kit.write(_rows(range(3), endpoint=name))
    kit.wall += timedelta(hours=2)
    kit.seal()
    assert kit.store.count(name) == 3
    for path in kit.on_disk():
        assert set(path) <= set("abcdefghijklmnopqrstuvwxyz0123456789=/-.")
        assert ".." not in path


@pytest.mark.parametrize("sealed", [False, True])
def test_time_range_is_half_open_and_prunes_files(kit, sealed):
    for first in range(0, 300, 100):
        kit.write(_rows(range(first, first + 100)))
    if sealed:
        kit.seal(max_rows=100)
    start, end = T0 + MINUTE * 95, T0 + MINUTE * 210
    assert _ids(kit.store.scan("flights", start=start, end=end)) == _expected(range(95, 210))
    assert kit.store.count("flights", start=start, end=end) == 115
    assert kit.store.count("flights", start=start, end=start) == 0
    assert kit.store.count("flights") == 300
    if not sealed:
        assert len(kit.store.files("flights", start=T0 + MINUTE * 100, end=T0 + MINUTE * 200)) == 1


@pytest.mark.parametrize("sealed", [False, True])
def test_pruned_files_are_not_even_opened(kit, sealed):
    for first in range(0, 300, 100):
        kit.write(_rows(range(first, first + 100), step=timedelta(hours=1)))
    if sealed:
        kit.seal(max_rows=100)
    wanted = _expected([100, 150, 199])
    for file in kit.store.files("flights"):
        if file.max_id < wanted[0] or file.min_id > wanted[-1]:
            kit.store.path(file).unlink()
    assert _ids(kit.store.scan("flights", ids=[*wanted, *wanted])) == wanted
    with pytest.raises(Unavailable):
        kit.store.scan("flights")


def test_ids_between_the_ids_of_a_file_are_not_invented(kit):
    kit.write(_rows(range(0, 100, 2)))
    assert kit.store.scan("flights", ids=_expected([1, 3])).num_rows == 0
    assert kit.store.scan("flights", ids=[]).num_rows == 0
    assert _ids(kit.store.scan("flights", ids=_expected([0, 98, 99, 1000]))) == _expected([0, 98])


def test_columns_of_different_versions_come_together(kit):
    kit.write(_rows(range(2), version=1, age=[30, 40], size=[1, 2], kind=[1, 2]))
    kit.write(_rows(range(2, 4), version=2, age=[30.5, 2.0**60], kind=["x", None], extra=[True, False]))
    kit.write(_rows(range(4, 6), version=3))
    for _ in range(2):
        table = kit.store.scan("flights").sort_by("prediction_id")
        assert table.schema.names[-4:] == ["f.age", "f.extra", "f.kind", "f.size"]
        assert table.column("f.age").to_pylist() == [30.0, 40.0, 30.5, 2.0**60, None, None]
        assert table.column("f.kind").to_pylist() == ["1", "2", "x", None, None, None]
        assert table.column("f.size").to_pylist() == [1, 2, None, None, None, None]
        assert table.column("f.extra").to_pylist() == [None, None, True, False, None, None]
        kit.wall += timedelta(hours=2)
        kit.seal()
    some = kit.store.scan("flights", columns=["f.size", "score", "f.nobody"])
    assert some.schema.names == ["f.size", "score", "f.nobody"]
    assert some.column("f.nobody").null_count == 6
    with pytest.raises(Invalid, match="no column 'scores'"):
        kit.store.scan("flights", columns=["scores"])


def test_large_whole_numbers_beside_floats_are_still_read(kit):
    kit.write(_rows(range(1), key=[2**60 + 1]))
    kit.write(_rows(range(1, 2), key=[0.5]))
    assert kit.store.scan("flights").column("f.key").to_pylist() == [float(2**60), 0.5]


def test_batches_and_limits_bound_what_is_read(kit):
    kit.write(_rows(range(1000)))
    kit.write(_rows(range(1000, 1500)))
    parts = list(kit.store.batches("flights", batch_rows=300))
    assert max(part.num_rows for part in parts) <= 300
    assert _ids(pa.concat_tables(parts)) == _expected(range(1500))
    assert kit.store.scan("flights", limit=1100).num_rows == 1100
    assert kit.store.scan("flights", limit=0).num_rows == 0


def test_consumer_sees_every_file_once_even_across_sealing(kit):
    seen, cursor = [], 0
    for turn in range(8):
        kit.write(_rows(range(turn * 10, turn * 10 + 10)))
        if turn == 2:
            kit.seal(max_rows=1)
        if turn % 3 == 1:
            kit.wall += timedelta(hours=2)
            kit.seal()  # what the consumer has read and what it has not come into one file
        if turn % 2:
            head = kit.store.head("flights")
            kit.write(_rows([1000 + turn]))  # arrives after it looked
            table = kit.store.scan("flights", after_file=cursor, through_file=head)
            assert kit.store.count("flights", after_file=cursor) == table.num_rows + 1
            seen += table.column("prediction_id").to_pylist()
            cursor = head
    seen += kit.store.scan("flights", after_file=cursor).column("prediction_id").to_pylist()
    assert sorted(seen) == _expected([*range(80), *(1001, 1003, 1005, 1007)])
    numbers = kit.store.scan("flights", columns=["file_number"]).column("file_number")
    assert pc.count_distinct(numbers).as_py() == 12


def test_sealing_waits_for_age_or_rows(kit):
    kit.write(_rows(range(50)))
    assert kit.seal() == []
    assert len(kit.seal(max_rows=50)) == 1
    kit.write(_rows(range(50, 60)))
    kit.write(_rows(range(5), endpoint="other"))
    kit.wall += timedelta(hours=1, seconds=1)
    assert kit.seal(endpoint="nobody") == []
    assert [(change.endpoint, change.rows) for change in kit.seal()] == [("flights", 10), ("other", 5)]
    assert kit.seal() == []


def test_sealed_batch_is_one_event_with_rows_digests_and_paths(kit):
    kit.write(_rows(range(200)))
    kit.write(_rows(range(200, 300)))
    (change,) = kit.seal(max_rows=300)
    assert kit.events == [change]
    assert (change.rows, len(change.removed)) == (300, 2)
    assert sum(file.rows for file in change.added) == 300
    for file in change.added:
        content = (kit.folder / file.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256
        assert len(content) == file.bytes
    assert {path.rsplit("/", 1)[0].split("/", 2)[2] for path in (file.path for file in change.added)} == {
        "date=2013-04-01/hour=all"
    }
    table = kit.store.scan("flights")
    assert table.column("time").to_pylist() == sorted(table.column("time").to_pylist())


def test_full_hours_get_files_of_their_own_and_thin_ones_share_one_per_date(kit):
    second = timedelta(seconds=1)
    kit.write(_rows(range(12_000), start=T0, step=timedelta(milliseconds=500)))  # 10:30 to 12:10
    kit.write(_rows(range(12_000, 12_100), start=T0 + timedelta(hours=20), step=second))
    (change,) = kit.seal(max_rows=12_100)
    hours = {file.path.split("/", 2)[2].rsplit("/", 1)[0]: file.rows for file in change.added}
    assert hours == {
        "date=2013-04-01/hour=11": 7200,
        "date=2013-04-01/hour=all": 3600 + 1200,
        "date=2013-04-02/hour=all": 100,
    }
    assert _ids(kit.store.scan("flights")) == _expected(range(12_100))


def test_event_that_cannot_be_written_leaves_the_files_open(kit):
    kit.write(_rows(range(10)))

    def refuse(tx, change):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        kit.store.seal(record=refuse, max_rows=1)
    assert [file.state for file in kit.store.files("flights")] == ["open"]
    assert kit.store.count("flights") == 10
    assert len(kit.seal(max_rows=1)) == 1
    assert kit.store.scan("flights").num_rows == 10


def test_files_sealed_by_another_process_meanwhile_are_a_conflict(kit):
    kit.write(_rows(range(10)))

    other = PredictionStore(kit.database, kit.folder, now=lambda: kit.wall)
    first = iter([True])

    def new_id():
        # Called while the outer sealing writes its file: the other process finishes in between.
        if next(first, False):
            other.seal(record=lambda tx, change: None, max_rows=1)
        return "Z" * 26

    slow = PredictionStore(kit.database, kit.folder, new_id=new_id, now=lambda: kit.wall)
    with pytest.raises(Conflict):
        slow.seal(record=lambda tx, change: None, max_rows=1)
    assert kit.store.count("flights") == 10
    assert kit.store.scan("flights").num_rows == 10


def test_readers_in_progress_outlive_sealing_and_sweeps(kit):
    for first in range(0, 300, 100):
        kit.write(_rows(range(first, first + 100)))
    reading = kit.store.batches("flights", columns=["prediction_id"])
    parts = [next(reading)]
    kit.seal(max_rows=300)
    assert kit.store.sweep(grace=2).deleted == ()
    assert kit.store.sweep(grace=2).deleted == ()
    parts += list(reading)
    assert _ids(pa.concat_tables(parts)) == _expected(range(300))
    assert len(kit.store.sweep(grace=2).deleted) == 3
    assert kit.on_disk() == {file.path for file in kit.store.files("flights")}
    assert kit.store.scan("flights").num_rows == 300


def test_sweep_deletes_orphans_once_old_and_names_what_is_missing(kit):
    (kept,) = kit.write(_rows(range(3)))
    (staged,) = kit.store.stage(_rows(range(3, 6)))
    (kit.folder / "open" / ".partial-12").write_bytes(b"half")
    report = kit.store.sweep()
    assert report == ((), (), ())
    now = kit.store.path(kept).stat().st_mtime
    report = kit.store.sweep(wall=lambda: now + 7200)
    assert report.orphans == ("open/.partial-12", staged.path)
    assert kit.on_disk() == {kept.path}
    with pytest.raises(Unavailable), kit.database.transaction() as tx:
        kit.store.commit(tx, [staged])
    kit.store.path(kept).unlink()
    assert kit.store.sweep().missing == (kept.path,)


def test_retention_drops_whole_files_of_the_past(kit):
    kit.write(_rows(range(100)))
    kit.write(_rows(range(100, 200)))
    kit.write(_rows(range(10), endpoint="other"))
    changes = kit.store.retain(T0 + MINUTE * 150, record=lambda tx, change: kit.events.append(change))
    assert [(change.endpoint, change.rows, change.added) for change in changes] == [
        ("flights", 100, ()),
        ("other", 10, ()),
    ]
    assert kit.events == changes
    assert _ids(kit.store.scan("flights")) == _expected(range(100, 200))
    assert kit.store.count("other") == 0
    assert kit.store.retain(T0) == []


@pytest.mark.parametrize("sealed", [False, True])
def test_every_flipped_byte_of_a_file_is_found_by_verification(kit, sealed):
    kit.write(_rows(range(3)))
    if sealed:
        kit.seal(max_rows=1)
    (file,) = kit.store.files("flights")
    content = kit.store.path(file).read_bytes()
    assert kit.store.verify("flights") == []
    for at in range(0, len(content), 97):
        damaged = bytearray(content)
        damaged[at] ^= 1
        kit.store.path(file).write_bytes(damaged)
        assert kit.store.verify("flights") == [file]
    kit.store.path(file).unlink()
    assert kit.store.verify("flights") == [file]


def test_damaged_pages_are_never_read_or_sealed(kit):
    kit.write(_rows(range(2000), noise=[os.urandom(8).hex() for _ in range(2000)]))
    (file,) = kit.store.files("flights")
    content = bytearray(kit.store.path(file).read_bytes())
    at = len(content) // 2
    content[at] ^= 1
    kit.store.path(file).write_bytes(content)
    with pytest.raises(Corrupted):
        kit.store.scan("flights")
    with pytest.raises(Corrupted):
        kit.seal(max_rows=1)
    assert [found.state for found in kit.store.files("flights")] == ["open"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows.drop_columns(["prediction_id"]),
        lambda rows: rows.set_column(4, "time", pa.nulls(rows.num_rows, pa.timestamp("us", tz="UTC"))),
        lambda rows: rows.append_column("age", rows.column("score")),
        lambda rows: rows.append_column("score", rows.column("score")),
        lambda rows: rows.append_column("latency_us", pa.array(["fast"] * rows.num_rows)),
    ],
)
def test_rows_of_another_shape_are_refused(kit, spoil):
    with pytest.raises(Invalid):
        kit.write(spoil(_rows(range(3))))
    assert kit.on_disk() == set()


def test_batch_without_rows_moves_only_the_position(kit):
    kit.write(_rows([]), Advance("w0", START, Position(1, 50)))
    assert kit.store.positions() == {"w0": Position(1, 50)}
    assert kit.on_disk() == set()


def test_dictionary_and_nested_features_are_stored_flat(kit):
    rows = _rows(range(2)).append_column("f.city", pa.array(["Ulm", "Bonn"]).dictionary_encode())
    kit.write(rows.append_column("f.nothing", pa.nulls(2)))
    table = kit.store.scan("flights")
    assert table.schema.names[-1] == "f.city"
    assert table.schema.field("f.city").type == pa.string()
