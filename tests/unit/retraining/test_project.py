"""Projects are packed by content alone, and unpacked without surprises."""

import io
import subprocess
import tarfile

import pytest

from modelyard.errors import Invalid, NotFound
from modelyard.retraining.project import function_name, pack, project_files, unpack


def _project(root):
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "train.py").write_text("x = 1\n")
    (root / "run.sh").write_text("true\n")
    (root / "run.sh").chmod(0o755)
    (root / ".env").write_text("SECRET=1\n")
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "a.pyc").write_bytes(b"x")
    return root


def test_equal_content_gives_equal_bytes_and_comes_back(tmp_path):
    one, two = _project(tmp_path / "one"), _project(tmp_path / "two")
    packed = pack(one)
    assert packed == pack(two)
    unpack(packed, tmp_path / "out")
    assert (tmp_path / "out" / "pkg" / "train.py").read_text() == "x = 1\n"
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o100
    assert not (tmp_path / "out" / ".env").exists()


def test_git_decides_what_belongs(tmp_path):
    root = _project(tmp_path / "p")
    (root / ".gitignore").write_text("data/\n")
    (root / "data").mkdir()
    (root / "data" / "big.csv").write_text("1")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    names = [str(file) for file in project_files(root)]
    assert "pkg/train.py" in names
    assert "data/big.csv" not in names


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_anything_but_plain_files_is_refused(tmp_path, kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("x")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(Invalid, match="plain files"):
        unpack(buffer.getvalue(), tmp_path / "out")


@pytest.mark.parametrize("name", ["../outside", "/abs", "a/../../outside"])
def test_paths_stay_inside(tmp_path, name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    target = tmp_path / "deep" / "out"
    if name.startswith("/"):
        unpack(buffer.getvalue(), target)
        assert (target / "abs").exists()
    else:
        with pytest.raises(Invalid):
            unpack(buffer.getvalue(), target)
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "deep" / "outside").exists()


def test_bad_input_is_named(tmp_path):
    with pytest.raises(NotFound):
        pack(tmp_path / "nothing")
    with pytest.raises(Invalid, match="not a packed project"):
        unpack(b"garbage", tmp_path / "out")
    assert function_name("pkg.mod:train") == ("pkg.mod", "train")
    for bad in ("train", "os.system('x'):f", "a:b:c", ":f", "a:"):
        with pytest.raises(Invalid):
            function_name(bad)
