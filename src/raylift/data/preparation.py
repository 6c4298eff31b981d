"""CT scans to a prepared dataset: the thorax cube, a context to project again, X-rays, and what was rejected why."""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from raylift.about import __version__
from raylift.data.fetch import provenance
from raylift.data.thorax import Thorax, find_thorax
from raylift.drr import plastimatch
from raylift.drr.registry import load_projector
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import AIR, Volume
from raylift.io.formats import readable
from raylift.io.volumes import read_volume, write_volume
from raylift.parallel.cases import run_case, run_tasks
from raylift.parallel.executors import LOCAL, Executor
from raylift.storage.atomic import write_json
from raylift.storage.copies import local_copy
from raylift.storage.paths import StoragePath, add_case, case_name, is_file, stamps, stem_of, suffix_of, walk

CUBE_MM = 320.0
CONTEXT_SPACING = 2.5  # mm
CONTEXT_MARGIN = 10.0  # mm of air kept around what is not air
COARSEST_SLICES = 10.0  # mm
HELD_OUT = 0.2  # of all patients, where nobody says which


@dataclass(frozen=True)
class Settings:
    """What every case of a dataset shares.

    Args:
        voxels: edge of the target cube in voxels, 64 (5 mm) or 128 (2.5 mm).
        views: directions of the stored X-rays.
        geometry: X-ray unit with its detector pixels.
        engine: key of `raylift.drr.PROJECTORS`.
        most_hu: what is denser counts as this in the X-rays, not in the cube; the published program takes 1000.
    """

    voxels: int = 64
    views: tuple[View, ...] = (View(0.0), View(90.0))
    geometry: Geometry = field(default_factory=lambda: Geometry.preset("chest-stand"))
    engine: str = "torch"
    most_hu: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "voxels": self.voxels,
            "cube_mm": CUBE_MM,
            "views": [view.to_dict() for view in self.views],
            "geometry": self.geometry.to_dict(),
            "engine": self.engine,
            **({} if self.most_hu is None else {"most_hu": self.most_hu}),
        }


def find_scans(folder: StoragePath, skip: StoragePath | None = None) -> dict[str, StoragePath]:
    """Every CT scan below a folder by case name: files Raylift reads, and folders that hold DICOM files.

    Hidden folders are not searched.

    Args:
        folder: searched to any depth; or one scan.
        skip: a folder that is not searched, as the prepared dataset itself may lie below `folder`.

    Raises:
        BadInput: the folder is missing, holds none, or two of the same name.
    """
    if isinstance(folder, Path) and not folder.exists():
        raise BadInput(folder, "no such folder", "check the path")
    if is_file(folder):
        return {stem_of(folder): folder}
    scans: dict[str, StoragePath] = {}
    endings = readable()
    for here, folders, names in walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in folders if skip is None or (here / name).resolve() != skip.resolve()]
        for name in names:
            if suffix_of(Path(name)) in endings:
                add_case(scans, case_name(here / stem_of(Path(name)), folder), here / name)
        if _holds_dicom(here, names):
            add_case(scans, case_name(here, folder), here)
    if not scans:
        raise BadInput(folder, "no CT scans in it", f"put DICOM folders or {', '.join(endings)} files there")
    return dict(sorted(scans.items()))


def is_scan(place: StoragePath) -> bool:
    """Whether it is one scan, rather than a folder of scans: a file, or a folder with DICOM files itself."""
    if is_file(place):
        return True
    _, _, names = next(walk(place), (place, [], []))
    return _holds_dicom(place, names)


def _holds_dicom(folder: StoragePath, names: Iterable[str]) -> bool:
    candidates = [name for name in names if suffix_of(Path(name)) in (".dcm", ".ima", "")]
    if not isinstance(folder, Path) and any(suffix_of(Path(name)) for name in candidates):
        return True  # by the name: a look into one file of each folder of a store takes hours where they are many
    return any(_is_dicom(folder / name) for name in candidates)


def _is_dicom(path: StoragePath) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:  # a link to nothing, a file of somebody else's
        return False


@dataclass(frozen=True)
class Prepared:
    """A case in memory.

    Args:
        scan_grid: of the scan that it is from.
        thorax: what was found in it.
        cube: the target around the thorax, (z, y, x) in HU.
        context: the whole scan at 2.5 mm without the air around it, (z, y, x) in HU.
        xrays: line integrals (V, rows, columns), without unit; row 0 is superior.
        patient: digest of the DICOM files' PatientID, by which scans of one patient are told; "" without.
    """

    scan_grid: VolumeGrid
    thorax: Thorax
    cube: Volume
    context: Volume
    xrays: np.ndarray
    patient: str


@dataclass(frozen=True)
class Preparation:
    """One scan to a case.

    Its files are `ct.nii.gz` (the cube, int16 HU), `context.npy` (int16 HU, the whole scan at 2.5 mm without the air
    around it, memory-mapped in training) and `xrays.mha` (V, rows, columns; line integrals). The record says warnings,
    grids, isocentre and the patient.
    """

    settings: Settings

    def depends_on(self, source: StoragePath) -> Any:
        """The source's files, the settings, and the format's version."""
        return [1, stamps(source), self.settings.to_dict()]

    def compute(self, source: StoragePath) -> Prepared:
        """Cube, context and X-rays of the thorax. Raises BadInput where the scan fails a check."""
        with local_copy(source) as path:
            volume = read_volume(path)
            check_scan(volume)
            thorax = find_thorax(volume)
            cube = VolumeGrid.cube(thorax.centre, CUBE_MM, self.settings.voxels)
            # Air below -1000 HU has no attenuation; clipping before any averaging keeps projections linear in HU.
            np.maximum(volume.array, np.asarray(AIR, volume.array.dtype), out=volume.array)
            target, context, patient = volume.resample(cube), _context(volume), patient_of(path)
            if self.settings.most_hu is not None:
                np.minimum(volume.array, np.asarray(self.settings.most_hu, volume.array.dtype), out=volume.array)
            project = load_projector(self.settings.engine)
            xrays = project(volume, self.settings.geometry, self.settings.views, thorax.centre)
        return Prepared(volume.grid, thorax, target, context, xrays, patient)

    def write(self, made: Prepared, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """The case's files."""
        write_volume(made.cube, folder / "ct.nii.gz")
        np.save(folder / "context.npy", np.rint(made.context.array).astype(np.int16))
        stack = sitk.GetImageFromArray(made.xrays.astype(np.float32))
        pitch = self.settings.geometry.pitch
        stack.SetSpacing((pitch, pitch, 1.0))
        sitk.WriteImage(stack, str(folder / "xrays.mha"), useCompression=True)
        told = {
            "warnings": made.thorax.warnings,
            "isocentre_lps_mm": list(made.thorax.centre),
            "lung_ml": round(made.thorax.lung_ml),
            "scan_grid": made.scan_grid.to_dict(),
            "context_grid": made.context.grid.to_dict(),
        }
        return told | ({"patient": made.patient} if made.patient else {}), ["ct.nii.gz", "context.npy", "xrays.mha"]


def prepare_case(source: StoragePath, folder: StoragePath, settings: Settings) -> dict[str, Any]:
    """Prepare one scan into `folder`; one that does not serve is recorded, not raised (see `run_case`)."""
    return run_case(Preparation(settings), (source, folder))


def patient_of(scan: Path) -> str:
    """Digest of the PatientID of DICOM files in a folder, 16 hexadecimal digits; "" where there is none.

    Who knows a PatientID can find its digest: it tells patients apart, and does not hide who they are.
    """
    for file in sorted(scan.iterdir()) if scan.is_dir() else ():
        try:
            told = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID")
        except (InvalidDicomError, OSError):
            continue
        if told:
            return hashlib.sha256(str(told).encode()).hexdigest()[:16]
    return ""


def check_scan(volume: Volume) -> None:
    """Raise BadInput where a scan cannot be a chest CT in Hounsfield units with usable slices."""
    low, high = float(volume.array.min()), float(volume.array.max())
    if low > -500 or high < 100:
        raise BadInput("scan", f"values from {low:g} to {high:g} are not Hounsfield units", "rescale it to HU")
    if max(volume.grid.spacing) > COARSEST_SLICES:
        raise BadInput("scan", f"voxels of {max(volume.grid.spacing):g} mm", f"at most {COARSEST_SLICES:g} mm serve")


def _context(scan: Volume) -> Volume:
    """The scan at 2.5 mm without the air around body and table."""
    dense = scan.array > -700
    ends = []
    for axis in range(3):
        along = np.flatnonzero(dense.any(axis=tuple(a for a in range(3) if a != axis)))
        ends.append((along[0], along[-1]))
    index = np.array([[end[k] for end in ends[::-1]] for k in (0, 1)])
    world = index @ scan.grid.index_to_world[:3, :3].T + scan.grid.index_to_world[:3, 3]
    low = np.maximum(world.min(0) - CONTEXT_MARGIN, scan.grid.corners.min(0))
    high = np.minimum(world.max(0) + CONTEXT_MARGIN, scan.grid.corners.max(0))
    x, y, z = (max(2, round(float(extent) / CONTEXT_SPACING)) for extent in high - low)
    return scan.resample(VolumeGrid.box((low + high) / 2, (z, y, x), CONTEXT_SPACING))


def prepare(
    source: StoragePath,
    output: StoragePath,
    settings: Settings,
    *,
    validation: Sequence[str] = (),
    patients: str = "",
    licence: str = "",
    executor: Executor = LOCAL,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Prepare every scan below `source` into the dataset folder `output`; finished cases are not done again.

    Args:
        source: folder of CT scans (searched to any depth), or one scan.
        output: dataset folder, with `cases/NAME/`, `dataset.json` and `splits.json`.
        settings: what every case shares.
        validation: names or shell patterns of the validation cases; by default about a fifth of the patients, see
            `held_out`. All scans of a patient go together.
        patients: whose the scans are, see `patients_named`; by default DICOM files' PatientID says it, and any other
            scan is of a patient of its own.
        licence: the scans' licence, recorded in `dataset.json`; by default that of `raylift data fetch`.
        executor: where the cases are computed.
        progress: called with the case's name, the number done and the total after each case.

    Returns:
        `case.json` by case name; of a case that was given up since its workers died, with the status "failed".

    Raises:
        BadInput: no scans, or none of them usable.
        WrongUsage: an engine is not installed, or does not know the geometry.
    """
    if settings.engine == "plastimatch":
        plastimatch.program_for(settings.geometry)  # said once, not of every case
    scans = find_scans(source, output)
    origins = provenance(scans)
    if unmatched := [p for p in validation if not any(fnmatch.fnmatch(name, p) for name in scans)]:
        raise BadInput(", ".join(unmatched), "matches no case", f"cases are named like {next(iter(scans))}")
    named = patients_named(patients, list(scans)) if patients else {}
    records = run_tasks(Preparation(settings), scans, output / "cases", executor, progress)
    usable = [name for name, record in records.items() if record["status"] == "ok"]
    if not usable:
        name, record = next(iter(records.items()))
        others = f", and {len(records) - 1} more" if len(records) > 1 else ""
        raise BadInput(source, f"no usable scan ({name}: {record['reason']}{others})", "give chest CT scans in HU")
    whose = {name: named.get(name, records[name].get("patient", name)) for name in usable}
    if not named and len(set(whose.values())) == 1:  # what removes identities may call all of them the same
        whose = {name: name for name in usable}
    validated = held_out(whose, validation)
    write_json(
        {
            "format": 1,
            "raylift": __version__,
            "simpleitk": sitk.Version_VersionString(),
            "source": source.name,
            "licence": licence or ", ".join(sorted({origin["licence"] for origin in origins.values()})),
            "collections": _collections(origins.values()),
            **settings.to_dict(),
            "cases": {
                name: {key: record[key] for key in ("status", "reason", "warnings", "sha256") if key in record}
                | ({"origin": origins[name]} if name in origins else {})
                for name, record in records.items()
            },
        },
        output / "dataset.json",
    )
    splits = {"train": [name for name in usable if name not in validated], "validation": validated}
    write_json(splits, output / "splits.json")
    return records


def patients_named(told: str, cases: Sequence[str]) -> dict[str, str]:
    """Tell whose scans are.

    Args:
        told: by the user: a CSV file with the columns `case` and `patient`, or a regular expression whose first group
            is the patient's name in the case's.
        cases: names of all scans.

    Returns:
        The patient of each case.

    Raises:
        BadInput: a case is not in the table, or the pattern does not match its name; the table cannot be read.
        WrongUsage: it is neither a table nor a pattern with a group.
    """
    table = Path(told)
    if table.is_file():
        found = _read_patients(table)
    else:
        try:
            pattern = re.compile(told)
        except re.error as error:
            raise WrongUsage(f"--patients {told}: no such file, and no regular expression ({error})") from None
        if not pattern.groups:
            raise WrongUsage(f"--patients {told}: no such file, and no regular expression with a (group)")
        matches = {name: pattern.search(name) for name in cases}
        found = {name: match[1] for name, match in matches.items() if match and match[1]}
    if missing := [name for name in cases if name not in found]:
        raise BadInput(missing[0], f"--patients {told} does not say whose scan this is", "name every case")
    return {name: found[name] for name in cases}


def _read_patients(table: Path) -> dict[str, str]:
    """Read a CSV file of cases and patients. Raises BadInput."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return {row["case"].strip(): row["patient"].strip() for row in rows if row["patient"].strip()}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        told = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise BadInput(
            table, f"no table of patients ({told})", "give a CSV file with the columns case,patient"
        ) from None


def _collections(origins: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The public collections that the cases come from, with the number of cases."""
    keys = ("collection", "doi", "licence", "idc_version")
    counts = Counter(tuple(origin[key] for key in keys) for origin in origins)
    return [dict(zip(keys, values, strict=True)) | {"cases": count} for values, count in sorted(counts.items())]


def held_out(patients: Mapping[str, str], patterns: Sequence[str] = ()) -> list[str]:
    """The validation cases.

    Without patterns a patient's side depends on the patient alone, so that it is the same on every machine and whoever
    comes or goes. Among so few that none, or all, would be held out, one is, or is not.

    Args:
        patients: of each case, by its name.
        patterns: names or shell patterns of cases.

    Returns:
        All cases of the patients whose cases match, or of a fifth of all that could be.
    """
    if patterns:
        chosen = {who for name, who in patients.items() if any(fnmatch.fnmatch(name, p) for p in patterns)}
    else:
        places = {who: int(hashlib.sha256(who.encode()).hexdigest(), 16) / 2**256 for who in patients.values()}
        *rest, _ = sorted(places, key=lambda who: places[who])  # the last is trained on, however few there are
        chosen = {who for who in rest if places[who] < HELD_OUT} or set(rest[:1])
    return [name for name, who in patients.items() if who in chosen]
