"""Both places for objects keep the same promises."""

import hashlib
import os
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore

from modelyard.errors import Conflict, Corrupted, Invalid, NotFound, StorageFull, Unavailable
from modelyard.storage.objects import ObjectStore
from modelyard.storage.objects.local import LocalObjects
from modelyard.storage.objects.remote import RemoteObjects

DAY = timedelta(days=1)
SOURCE = Path(__file__).parents[2] / "src"


class Kit:
    """A store, a clock to turn, and a way to reach behind the store's back."""

    def __init__(self, kind, folder):
        self.ahead_s = 0.0
        if kind == "bucket":
            self._bucket = MemoryStore()
            place = RemoteObjects(self._bucket, wall=self.wall)
        else:
            self._folder = folder
            self._bucket = None
            place = LocalObjects(folder)
        self.store = ObjectStore(place, wall=self.wall)

    def wall(self):
        import time

        return time.time() + self.ahead_s

    def overwrite(self, digest, content):
        if self._bucket is not None:
            obstore.put(self._bucket, f"{digest[:2]}/{digest}", content)
            return
        path = self._folder / digest[:2] / digest
        path.chmod(0o644)
        path.write_bytes(content)


@pytest.fixture(params=["folder", "bucket"])
def kit(request, tmp_path):
    return Kit(request.param, tmp_path / "objects")


@pytest.fixture
def store(kit):
    return kit.store


@pytest.mark.parametrize("size", [0, 1, 100_000, (1 << 20), 3 * (1 << 20) + 17])
def test_content_comes_back_by_its_digest(store, tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    digest = store.put(content)
    assert digest == hashlib.sha256(content).hexdigest()
    assert store.put(tmp_path / "source") == digest
    assert store.get(digest) == content
    assert b"".join(store.stream(digest)) == content
    assert store.size(digest) == size
    assert store.exists(digest)
    assert list(store.digests()) == [digest]
    target = store.copy_to(digest, tmp_path / "new" / "target")
    assert target.read_bytes() == content
    store.verify(digest)


def test_absent_objects_are_not_found(store, tmp_path):
    digest = hashlib.sha256(b"never stored").hexdigest()
    assert not store.exists(digest)
    assert not store.delete(digest)
    for read in (store.get, store.size, store.verify, lambda d: store.copy_to(d, tmp_path / "target")):
        with pytest.raises(NotFound):
            read(digest)
    with pytest.raises(NotFound, match="file"):
        store.put(tmp_path / "absent")
    assert list(tmp_path.glob("target*")) == []


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "a" * 62 + "/.", "é" * 64]
)
def test_only_a_digest_becomes_a_path(store, name):
    for use in (store.get, store.exists, store.size, store.delete, store.verify):
        with pytest.raises(Invalid):
            use(name)


def test_every_flipped_byte_is_detected_and_nothing_of_it_is_served_whole(kit, tmp_path):
    content = os.urandom(200)
    digest = kit.store.put(content)
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1
        kit.overwrite(digest, bytes(damaged))
        with pytest.raises(Corrupted):
            kit.store.get(digest)
    with pytest.raises(Corrupted):
        kit.store.copy_to(digest, tmp_path / "target")
    assert list(tmp_path.glob("*target*")) == []
    assert isinstance(Corrupted("x"), Unavailable)


def test_a_damaged_large_object_never_yields_its_last_piece(kit):
    content = os.urandom(3 << 20)
    digest = kit.store.put(content)
    kit.overwrite(digest, content[:-1] + bytes([content[-1] ^ 1]))
    seen = 0
    with pytest.raises(Corrupted):
        for piece in kit.store.stream(digest):
            seen += len(piece)
    assert seen < len(content)


def test_truncated_object_is_replaced_by_storing_the_content_again(kit):
    content = os.urandom(1000)
    digest = kit.store.put(content)
    kit.overwrite(digest, content[:500])
    with pytest.raises(Corrupted):
        kit.store.get(digest)
    assert kit.store.put(content) == digest
    assert kit.store.get(digest) == content


def test_collection_spares_what_is_referenced_recent_or_put_again(kit):
    store = kit.store
    kept, doomed, renewed = (store.put(word) for word in (b"kept", b"doomed", b"renewed"))
    lost = hashlib.sha256(b"lost").hexdigest()
    young = store.plan_gc({kept})
    assert young.unreferenced == ()
    assert {found.digest for found in young.recent} == {doomed, renewed}

    kit.ahead_s = 2 * DAY.total_seconds()
    plan = store.plan_gc({kept, lost})
    assert {found.digest for found in plan.unreferenced} == {doomed, renewed}
    assert plan.missing == (lost,)
    assert plan.bytes == len(b"doomed" + b"renewed")
    assert store.exists(doomed)  # a plan deletes nothing

    # The store's files carry true times: seen from a plan made before them, they were put again.
    older = type(plan)(plan.unreferenced[:0], (), (), plan.before)
    assert store.collect(older) == 0
    past = type(plan)(plan.unreferenced, (), (), before=kit.wall() - 3 * DAY.total_seconds())
    assert store.collect(past) == 0
    assert store.collect(plan) == plan.bytes
    assert set(store.digests()) == {kept}
    with pytest.raises(Invalid):
        store.plan_gc({"not a digest"})
    with pytest.raises(Invalid):
        store.plan_gc(set(), grace=timedelta(0))


def test_put_again_renews_the_age_of_a_local_object(tmp_path):
    store = ObjectStore.at(tmp_path)
    digest = store.put(b"content")
    path = tmp_path / digest[:2] / digest
    os.utime(path, (0, 0))
    assert [found.digest for found in store.plan_gc(()).unreferenced] == [digest]
    plan = store.plan_gc(())
    store.put(b"content")
    assert store.collect(plan) == 0
    assert store.exists(digest)


def test_old_bucket_object_is_uploaded_again(tmp_path):
    kit = Kit("bucket", tmp_path)
    digest = kit.store.put(b"content")
    kit.overwrite(digest, b"CONTENT")
    kit.store.put(b"content")  # of the same size and recent: trusted
    with pytest.raises(Corrupted):
        kit.store.get(digest)
    kit.ahead_s = 3600
    kit.store.put(b"content")
    assert kit.store.get(digest) == b"content"


def test_file_that_changes_while_it_is_read_is_refused(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"one")

    class Place(LocalObjects):
        def keep(self, digest, size):
            source.write_bytes(b"two")
            return super().keep(digest, size)

    store = ObjectStore(Place(tmp_path / "objects"))
    with pytest.raises(Conflict):
        store.put(source)
    assert list(store.digests()) == []


def test_partial_files_of_dead_processes_are_no_objects_and_go_with_a_collection(tmp_path):
    store = ObjectStore.at(tmp_path)
    digest = store.put(b"content")
    partial = tmp_path / digest[:2] / ".partial-0123"
    partial.write_bytes(b"con")
    assert list(store.digests()) == [digest]
    store.collect(store.plan_gc({digest}))
    assert partial.exists()
    os.utime(partial, (0, 0))
    store.collect(store.plan_gc({digest}))
    assert not partial.exists()


def test_local_objects_are_read_only_files(tmp_path):
    digest = ObjectStore.at(tmp_path).put(b"content")
    assert (tmp_path / digest[:2] / digest).stat().st_mode & 0o777 == 0o444


def test_a_quota_that_runs_out_is_storage_full_and_leaves_nothing(tmp_path):
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from modelyard.errors import StorageFull
        from modelyard.storage.objects import ObjectStore
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        store = ObjectStore.at(Path(sys.argv[1]))
        small = store.put(b"small")
        try:
            store.put(bytes(1_000_000))
        except StorageFull as error:
            print(error.code)
        assert store.get(small) == b"small"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        store.put(bytes(1_000_000))
        print(len(list(store.digests())))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [StorageFull.code, "2"], done.stderr
    assert list(tmp_path.rglob(".partial*")) == []


def test_bucket_errors_become_ours(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = ObjectStore(RemoteObjects(LocalStore(tmp_path)))
    digest = store.put(b"content")
    (tmp_path / digest[:2] / digest).unlink()
    (tmp_path / digest[:2]).rmdir()
    (tmp_path / digest[:2]).write_text("in the way")
    with pytest.raises(Unavailable):
        store.put(b"content")


def test_locations_are_folders_or_buckets(tmp_path):
    digest = ObjectStore.at(str(tmp_path / "a")).put(b"x")
    assert ObjectStore.at(tmp_path / "a").exists(digest)
    with pytest.raises(Invalid):
        ObjectStore.at("ftp://example.com/objects")
