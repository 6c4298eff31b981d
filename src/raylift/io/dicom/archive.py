"""Read DICOM series from zip archives, within limits on their content."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pydicom.dataset import Dataset

from raylift.errors import BadInput
from raylift.io.dicom.files import PREAMBLE, looks_like_dicom, read_dicom_file
from raylift.storage.paths import safe_name
from raylift.storage.scratch import scratch_folder

MOST_FILES = 20_000
MOST_BYTES = 8 * 2**30  # of all files, unpacked
MOST_RATIO = 200  # of a file's size to its packed size; CT images pack by 2 to 20, air by 100
PIECE = 2**20  # bytes


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack the DICOM files of a zip archive into a temporary folder for as long as the block lasts.

    No name of the archive becomes a path: folders in it are ignored.

    Args:
        path: the archive.

    Yields:
        The folder.

    Raises:
        BadInput: the archive is damaged, encrypted or too large, or holds no DICOM file.
    """
    with scratch_folder() as folder:
        count = 0
        for name, _ in _dicom_files(path, folder):
            count += bool(name)
        if not count:
            raise BadInput(path, "an archive without DICOM files", "give an archive of one CT series")
        try:
            yield folder
        except BadInput as error:
            raise BadInput(*(str(part).replace(str(folder), str(path)) for part in error.args)) from None


def first_dicom(path: Path, tags: Sequence[str]) -> Dataset | None:
    """Return the header of the first DICOM file in a zip archive; None where there is none.

    Args:
        path: the archive.
        tags: keywords of the elements to read.
    """
    with scratch_folder() as folder:
        for _, file in _dicom_files(path, folder):
            if (header := read_dicom_file(file, tags)) is not None:
                return header
    return None


def _dicom_files(path: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Unpack the DICOM files of an archive one by one.

    Yields:
        The name in the archive, and the unpacked file.

    Raises:
        BadInput: the archive is damaged, encrypted or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_limits(path, entries)
            for number, entry in enumerate(entries):
                name = PurePosixPath(entry.filename).name
                with archive.open(entry) as packed:
                    start = packed.read(PREAMBLE + 4)
                    if name.upper() == "DICOMDIR" or not looks_like_dicom(start):
                        continue
                    target = folder / f"{number:05}-{safe_name(name)}"
                    with target.open("wb") as file:
                        file.write(start)
                        while piece := packed.read(PIECE):
                            file.write(piece)
                yield entry.filename, target
    except BadInput:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise BadInput(path, f"cannot be unpacked ({error})", "unpack it, and give the folder of the series") from None


def _check_limits(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Check that an archive's content has bounds; reading stops at the sizes that it declares.

    Raises:
        BadInput: it holds too many files or bytes.
    """
    size = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_FILES:
        raise BadInput(path, f"{len(entries):,} files in one archive", "give an archive of one CT series")
    if size > MOST_BYTES:
        raise BadInput(path, f"{size / 2**30:.0f} GB unpacked", "give an archive of one CT series")
    for entry in entries:
        if entry.flag_bits & 1:
            raise BadInput(path, "an encrypted archive", "unpack it, and give the folder of the series")
        if entry.file_size > 2**20 and entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
            name = safe_name(PurePosixPath(entry.filename).name)
            raise BadInput(
                path, f"{name} in it unpacks to {entry.file_size / 2**20:.0f} MB", "give an archive of scans"
            )
