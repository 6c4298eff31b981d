"""Temporary files without room: the place and what to do are told, or they are written elsewhere."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upath import UPath

from raylift.drr import plastimatch
from raylift.errors import BadInput, DiskFull, WrongUsage
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import Volume
from raylift.storage import full_disk, scratch
from raylift.storage.atomic import atomic_write, atomic_write_folder
from raylift.storage.copies import local_copy
from raylift.storage.scratch import detect_full_tmpdir, prepare_tmpdir, scratch_folder

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TMPDIR and the system's folders are missing, full or read-only."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing"), "/proc"])
    monkeypatch.setenv("TMPDIR", "/proc")


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@pytest.mark.usefixtures("nowhere")
def test_where_nothing_can_be_written_it_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"^temporary files: they cannot be written .*/missing.*; set TMPDIR to a folder "
    ):
        prepare_tmpdir()


@pytest.mark.usefixtures("nowhere")
def test_where_nothing_can_be_written_the_outputs_folder_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: list[Any] = []
    monkeypatch.setattr(scratch.atexit, "register", lambda function, *given, **named: at_exit.append((function, given)))
    prepare_tmpdir(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith(".")  # no command takes it for an input
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(folder)  # which other processes are told
    with scratch_folder() as written:
        assert folder in written.parents
    prepare_tmpdir()  # now there is one
    ((remove, given),) = at_exit
    remove(*given)
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_written_is_left_as_it_is(temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    prepare_tmpdir(tmp_path)
    prepare_tmpdir()
    assert (tempfile.gettempdir(), os.environ["TMPDIR"]) == (str(temporary), str(temporary))
    assert list(temporary.iterdir()) == []


def test_outputs_in_a_store_need_room_for_temporary_files(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "try_writing", failing(FULL))
    with pytest.raises(DiskFull, match=f"^{temporary}: the disk is full; set TMPDIR to a folder with room"):
        prepare_tmpdir()
    prepare_tmpdir(temporary)  # other outputs do not


@pytest.mark.parametrize(
    "error", [FULL, OSError(errno.EDQUOT, "Disk quota exceeded"), RuntimeError("ITK ERROR: No space left on device")]
)
def test_a_full_folder_is_named(temporary: Path, error: Exception) -> None:
    with pytest.raises(DiskFull, match=f"^{temporary}: the disk is full; set TMPDIR"), detect_full_tmpdir():
        raise error


def test_libraries_that_do_not_say_why(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="failed"), detect_full_tmpdir():
        raise RuntimeError("failed")
    monkeypatch.setattr(full_disk, "try_writing", failing(FULL))
    with pytest.raises(DiskFull, match=f"^{temporary}: "), detect_full_tmpdir():
        raise RuntimeError("failed")


@pytest.mark.parametrize("error", [BadInput("a.mha", "cut short"), WrongUsage("no"), DiskFull("output")])
def test_errors_that_tell_what_was_wrong_stay(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(full_disk, "try_writing", failing(FULL))
    with pytest.raises(type(error)) as raised, scratch_folder():
        raise error
    assert raised.value is error
    assert list(temporary.iterdir()) == []


def write_to_a_store() -> None:
    with atomic_write(UPath("memory://bucket/volume.mha")):
        raise FULL


def write_a_folder_to_a_store() -> None:
    with atomic_write_folder(UPath("memory://bucket/case")):
        raise FULL


def copy_from_a_store() -> None:
    source = UPath("memory://bucket/scan.mha")
    source.write_bytes(b"scan")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(source.fs), "get", failing(FULL))
        with local_copy(source):
            pass


def project_by_plastimatch() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plastimatch, "program", lambda: Path("plastimatch"))
        patched.setattr(plastimatch.sitk, "WriteImage", failing(RuntimeError("MetaImageIO: No space left on device")))
        volume = Volume(np.zeros((4, 4, 4), np.int16), VolumeGrid.cube((0, 0, 0), 300, 4))
        plastimatch.project_volume(volume, Geometry.preset("chest-stand", 16), [View(0.0)], (0, 0, 0))


@pytest.mark.parametrize(
    "work", [write_to_a_store, write_a_folder_to_a_store, copy_from_a_store, project_by_plastimatch]
)
def test_what_goes_through_temporary_files_names_their_folder(temporary: Path, work: Callable[[], None]) -> None:
    with pytest.raises(DiskFull, match=f"^{temporary}: the disk is full; set TMPDIR to a folder with room"):
        work()
    assert list(temporary.iterdir()) == []
