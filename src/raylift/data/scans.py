"""Find the CT scans in a folder, by the content of its files, and what else is in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from raylift.errors import BadInput
from raylift.io.dicom.archive import first_dicom
from raylift.io.dicom.files import PREAMBLE, looks_like_dicom, read_dicom_file
from raylift.io.formats import readable
from raylift.storage.paths import COMPANIONS, StoragePath, add_case, case_name, is_file, stem_of, suffix_of, walk

ARCHIVE = ".zip"
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".img", "")
MOST_LISTED = 5  # files of one ending in a folder that are listed one by one


@dataclass
class ScanSearch:
    """What a folder holds.

    Args:
        scans: the scans by case name: files that Raylift reads, zip archives, and folders with DICOM files.
        left_out: what may be a scan but cannot be used, with the reason, by its path in the folder.
        no_scans: other files, likewise; many of one ending are one entry.
    """

    scans: dict[str, StoragePath] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    no_scans: dict[str, str] = field(default_factory=dict)


def find_scans(folder: StoragePath, skip: StoragePath | None = None) -> dict[str, StoragePath]:
    """Return all CT scans below a folder by case name; see `search_scans`."""
    return search_scans(folder, skip).scans


def search_scans(folder: StoragePath, skip: StoragePath | None = None) -> ScanSearch:
    """Search a folder for CT scans, to any depth.

    Hidden files and folders are not searched. Links to folders are followed, but not to those that are searched anyway.
    In a store, DICOM files are recognised by their endings, since opening all takes hours.

    Args:
        folder: a folder, or one scan.
        skip: a folder that is not searched, as the prepared dataset itself may be below `folder`.

    Returns:
        The scans, sorted by name, and what else is in the folder.

    Raises:
        BadInput: the folder is missing or holds no scan, or two scans have the same case name.
    """
    if isinstance(folder, Path) and not folder.exists():
        raise BadInput(folder, "no such folder", "check the path")
    search = ScanSearch()
    if is_file(folder):
        search.scans[stem_of(folder)] = folder
        return search
    for current, names in _folders(folder, skip, search):
        _search_folder(folder, current, names, search)
    if not search.scans:
        problem = f"no CT scans in it{_first_reason(search)}"
        raise BadInput(folder, problem, f"put DICOM folders or {', '.join((*readable(), ARCHIVE))} files there")
    search.scans = dict(sorted(search.scans.items()))
    return search


def is_scan(path: StoragePath) -> bool:
    """Return whether a path is one scan: a file, or a folder that itself holds DICOM files."""
    if is_file(path):
        return True
    _, _, names = next(walk(path), (path, [], []))
    return any(_is_dicom(path / name) for name in _dicom_candidates(path, names))


def patient_of(scan: Path) -> str:
    """Return a digest of the PatientID of a DICOM scan, 16 hexadecimal digits; "" without a PatientID.

    The digest distinguishes patients but does not anonymise them: anyone who knows a PatientID can compute it.

    Args:
        scan: a folder, a zip archive, or a file.
    """
    files: Iterable[Path] = sorted(scan.iterdir()) if scan.is_dir() else [scan]
    if suffix_of(scan) == ARCHIVE:
        dataset = first_dicom(scan, ["PatientID"])
        files, patients = [], [str(dataset.get("PatientID") or "")] if dataset else []
    else:
        patients = []
    for file in files:
        if file.is_file() and (header := read_dicom_file(file, ["PatientID"])) and header.get("PatientID"):
            patients.append(str(header.PatientID))
            break
    return hashlib.sha256(patients[0].encode()).hexdigest()[:16] if patients and patients[0] else ""


def _folders(
    folder: StoragePath, skip: StoragePath | None, search: ScanSearch
) -> Iterator[tuple[StoragePath, list[str]]]:
    """Yield each folder below a folder, and the names of its files, without hidden ones."""

    def left_out(below: Path, reason: str) -> None:
        entries = search.no_scans if below.is_symlink() else search.left_out
        entries[_relative(folder, below)] = reason

    for current, folders, names in walk(folder, left_out):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in folders if skip is None or (current / name).resolve() != skip.resolve()]
        yield current, sorted(name for name in names if not name.startswith("."))


def _search_folder(root: StoragePath, folder: StoragePath, names: list[str], search: ScanSearch) -> None:
    """Add the scans of one folder, and what else is in it, to a search."""
    companions = {
        f"{stem_of(Path(name))}{ending}" for name in names for ending in COMPANIONS.get(suffix_of(Path(name)), ())
    }
    others, dicom = list[str](), False
    candidates = set(_dicom_candidates(folder, names))
    for name in names:
        path, suffix = folder / name, suffix_of(Path(name))
        if isinstance(path, Path) and not path.is_file():
            kind = "a link that leads nowhere" if path.is_symlink() else "neither a file nor a folder"
            search.left_out[_relative(root, path)] = kind
        elif suffix in (*readable(), ARCHIVE):
            add_case(search.scans, case_name(folder / stem_of(Path(name)), root), path)
        elif name in candidates and _is_dicom(path):
            dicom = True
        elif isinstance(path, Path) and not os.access(path, os.R_OK):
            search.left_out[_relative(root, path)] = "cannot be read (permission denied)"
        elif name not in companions and name.upper() != "DICOMDIR":
            others.append(name)
    if dicom:
        add_case(search.scans, case_name(folder, root), folder)
    _list_others(root, folder, others, search)


def _list_others(root: StoragePath, folder: StoragePath, names: list[str], search: ScanSearch) -> None:
    """Add files that are no scans to a search; many of one ending are one entry."""
    by_ending: dict[str, list[str]] = {}
    for name in names:
        by_ending.setdefault(suffix_of(Path(name)), []).append(name)
    for ending, alike in by_ending.items():
        if len(alike) > MOST_LISTED:
            search.no_scans[_relative(root, folder / f"*{ending}")] = f"{len(alike)} files, no scans"
        else:
            search.no_scans |= {_relative(root, folder / name): "no scan" for name in alike}


def _dicom_candidates(folder: StoragePath, names: Iterable[str]) -> list[str]:
    """Return the names of the files that may be DICOM: in a store, those with a usual ending."""
    if isinstance(folder, Path):
        return [name for name in names if name.upper() != "DICOMDIR"]
    return [name for name in names if suffix_of(Path(name)) in DICOM_SUFFIXES and name.upper() != "DICOMDIR"]


def _is_dicom(path: StoragePath) -> bool:
    """Return whether a file looks like DICOM. In a store, an ending is trusted."""
    if not isinstance(path, Path) and suffix_of(path):
        return True
    try:
        with path.open("rb") as file:
            start = file.read(PREAMBLE + 4)
    except OSError:
        return False
    if start[PREAMBLE:] == b"DICM":
        return True
    return looks_like_dicom(start) and isinstance(path, Path) and read_dicom_file(path, []) is not None


def _relative(root: StoragePath, path: StoragePath) -> str:
    """Return a path relative to the searched folder, as text that can be printed."""
    text = str(path).removeprefix(str(root)).replace(os.sep, "/").strip("/") or path.name
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _first_reason(search: ScanSearch) -> str:
    """Return the first thing that was left out, in brackets; "" where there is nothing."""
    for name, reason in search.left_out.items():
        return f" ({name}: {reason})"
    return ""
