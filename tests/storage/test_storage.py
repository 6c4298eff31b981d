"""Places by path or URL: what is read, copied and written there, and that nothing is half-written."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raylift.errors import BadInput, WrongUsage
from raylift.geometry import VolumeGrid
from raylift.images.volume import Volume
from raylift.io.volumes import read_volume, write_volume
from raylift.storage.atomic import atomic_write, atomic_write_folder
from raylift.storage.copies import cached_copy, local_copy
from raylift.storage.paths import StoragePath, Unreachable, case_name, remove, stamps, storage_path, walk
from raylift.storage.scratch import SCRATCH


@pytest.fixture(params=["disk", "store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoragePath]:
    """An empty folder of this machine, and one of a store."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    (tmp_path / "root").mkdir()
    yield tmp_path / "root" if request.param == "disk" else storage_path("memory://bucket/root")
    MemoryFileSystem.store.clear()


def put(path: StoragePath, content: bytes = b"content") -> StoragePath:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def interrupt(context: AbstractContextManager[Path], name: str = "") -> None:
    """While a file is written."""
    with context as temporary:
        (temporary / name).write_bytes(b"half")
        raise KeyboardInterrupt


def names(folder: StoragePath) -> set[str]:
    return {case_name(here / name, folder) for here, _, found in walk(folder) for name in found}


def test_paths_and_urls(tmp_path: Path) -> None:
    assert storage_path("scans/a.nii.gz") == Path("scans/a.nii.gz")
    assert storage_path(f"file://{tmp_path}") == tmp_path
    assert str(storage_path("s3://bucket/folder") / "a b.mha") == "s3://bucket/folder/a b.mha"
    with pytest.raises(WrongUsage, match=r"foo://bucket: .*foo"):
        storage_path("foo://bucket")


def test_a_store_whose_reader_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(WrongUsage, match=r"gs://bucket: needs pip install 'raylift\[gcs\]'"):
        storage_path("gs://bucket")


def test_walk_goes_down_and_can_be_kept_out(root: StoragePath) -> None:
    for name in ("a/1.txt", "a/b/2.txt", "c/3.txt", "4.txt"):
        put(root / name)
    found = {}
    for here, folders, inside in walk(root):
        found[str(here).removeprefix(str(root)).strip("/")] = sorted(inside)
        folders[:] = [name for name in folders if name != "c"]
    assert found == {"": ["4.txt"], "a": ["1.txt"], "a/b": ["2.txt"]}


def test_what_is_not_there() -> None:
    nowhere = storage_path("memory://nowhere/at/all")
    with pytest.raises(Unreachable, match=r"memory://nowhere/at/all: cannot be read \(FileNotFoundError"):
        list(walk(nowhere))
    with pytest.raises(Unreachable), local_copy(nowhere / "x.mha"):
        pass


def test_stamps_tell_of_a_change(root: StoragePath) -> None:
    put(root / "scan" / "b", b"123")
    put(root / "scan" / "a")
    put(root / "scan" / "deeper" / "c")
    before = stamps(root / "scan")
    assert [(name, size) for name, size, _ in before] == [("a", 7), ("b", 3)]
    assert stamps(root / "scan") == before
    assert stamps(root / "scan" / "b") == before[1:]
    put(root / "scan" / "b", b"1234")
    assert stamps(root / "scan") != before
    assert stamps(root / "nothing") == []


@pytest.mark.parametrize(("name", "beside"), [("s[1].npy", "s[1].json"), ("s.mhd", "s.raw"), ("s.mhd", "s.zraw")])
def test_what_stands_beside_a_file_belongs_to_it(root: StoragePath, name: str, beside: str) -> None:
    put(root / "scans" / name)
    put(root / "scans" / beside, b"1")
    put(root / "scans" / "s1.json")
    before = stamps(root / "scans" / name)
    assert {one for one, _, _ in before} == {name, beside}
    put(root / "scans" / beside, b"12")
    assert stamps(root / "scans" / name) != before
    with local_copy(root / "scans" / name) as path:
        assert path.with_name(beside).read_bytes() == b"12"


def test_what_killed_processes_left_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = put(storage_path("memory://bucket/x.mha"))
    killed = put(tmp_path / f"{SCRATCH}1" / ".lock").parent
    put(killed / "files" / "scan.mha")
    with local_copy(source) as first, local_copy(source) as second:
        assert not killed.exists()
        assert first.exists()
        assert second.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_copy_for_as_long_as_it_is_needed(root: StoragePath) -> None:
    for name in ("1.dcm", "2.dcm"):
        put(root / "series" / name, name.encode())
    with local_copy(root / "series") as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"1.dcm": b"1.dcm", "2.dcm": b"2.dcm"}
        assert folder.name == "series"
    assert folder.exists() == isinstance(root, Path)


@pytest.mark.parametrize("name", ["scan.npy", "scan.nii.gz", "scan.mha"])
def test_volumes_go_and_come_back(root: StoragePath, name: str) -> None:
    scan = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), VolumeGrid.box((1, 2, 3), (3, 4, 5), 2.0))
    write_volume(scan, root / name)
    with local_copy(root / name) as path:  # an array's grid is in a file beside it
        found = read_volume(path)
    np.testing.assert_array_equal(found.array, scan.array)
    assert found.grid == scan.grid


def test_what_is_wrong_with_a_copy_is_said_of_the_source() -> None:
    put(storage_path("memory://bucket/x.mha"))
    with pytest.raises(BadInput, match=r"^memory:.*bucket/x.mha: cannot be read"):  # noqa: SIM117
        with local_copy(storage_path("memory://bucket/x.mha")) as path:
            read_volume(path)


def test_a_kept_copy_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLIFT_CACHE", str(tmp_path / "cache"))
    source = put(storage_path("memory://bucket/context.npy"))
    copy = cached_copy(source)
    assert (copy.name, copy.read_bytes()) == ("context.npy", b"content")
    monkeypatch.setattr(MemoryFileSystem, "get", None)  # would fail
    assert cached_copy(source) == copy
    monkeypatch.undo()
    monkeypatch.setenv("RAYLIFT_CACHE", str(tmp_path / "cache"))
    put(source, b"changed")
    assert cached_copy(source).read_bytes() == b"changed"
    assert cached_copy(tmp_path) == tmp_path


def test_replaced_when_the_block_ends_well(root: StoragePath) -> None:
    path = put(root / "volume.nii.gz")
    with pytest.raises(KeyboardInterrupt):
        interrupt(atomic_write(path))
    assert path.read_bytes() == b"content"
    with atomic_write(path) as temporary:
        assert temporary.name.endswith(".partial.nii.gz")
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert names(root) == {"volume.nii.gz"}


def test_replaced_together(root: StoragePath) -> None:
    put(root / "case" / "a")
    put(root / "case" / "series" / "old.dcm")
    with pytest.raises(KeyboardInterrupt):
        interrupt(atomic_write_folder(root / "case"), "a")
    assert (root / "case" / "a").read_bytes() == b"content"
    with atomic_write_folder(root / "case") as temporary:
        (temporary / "a").write_bytes(b"new")
        (temporary / "series").mkdir()
        (temporary / "series" / "new.dcm").write_bytes(b"dicom")
    assert (root / "case" / "a").read_bytes() == b"new"
    assert names(root) == {"case_a", "case_series_new.dcm"}


def test_remove(root: StoragePath) -> None:
    put(root / "folder" / "a")
    put(root / "file")
    for name in ("folder", "file", "nothing"):
        remove(root / name)
    assert names(root) == set()


@pytest.mark.parametrize(("path", "name"), [("a/b", "a_b"), ("a b/ü", "a_b"), ("..x", "x"), ("-", "-"), ("ü", "case")])
def test_names_of_cases(root: StoragePath, path: str, name: str) -> None:
    assert case_name(root / path, root) == name
    assert case_name(root, root) == "root"
