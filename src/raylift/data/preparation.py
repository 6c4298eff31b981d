"""Prepare a dataset from CT scans: for each the thorax cube, a context to project again, and X-rays, or a rejection."""

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
import SimpleITK as sitk

from raylift.about import __version__
from raylift.data.fetch import provenance
from raylift.data.scans import ScanSearch, patient_of, search_scans
from raylift.data.thorax import Thorax, find_thorax
from raylift.drr import plastimatch
from raylift.drr.registry import load_projector
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.images.volume import AIR, Volume
from raylift.io.volumes import read_volume, write_volume
from raylift.parallel.cases import TaskRecord, run_case, run_tasks
from raylift.parallel.executors import LOCAL, Executor
from raylift.storage.atomic import write_json
from raylift.storage.copies import local_copy
from raylift.storage.paths import StoragePath, stamps

CUBE_MM = 320.0
CONTEXT_SPACING = 2.5  # mm
CONTEXT_MARGIN = 10.0  # mm of air that is kept around the body and the table
COARSEST_SLICES = 10.0  # mm
MOST_HU = 32767.0  # the extended scales of scanners, which show metal, end below
HELD_OUT = 0.2  # default share of the patients in the validation split


@dataclass(frozen=True)
class PreparationSettings:
    """The settings that all cases of a dataset share.

    Args:
        voxels: the edge of the target cube in voxels, 64 (5 mm) or 128 (2.5 mm).
        views: the views of the stored X-rays.
        geometry: the source and the detector with its pixels.
        engine: a key of `raylift.drr.PROJECTORS`.
        most_hu: the upper limit of HU in the X-rays, not in the cube; the published program uses 1000.
    """

    voxels: int = 64
    views: tuple[View, ...] = (View(0.0), View(90.0))
    geometry: Geometry = field(default_factory=lambda: Geometry.preset("chest-stand"))
    engine: str = "torch"
    most_hu: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready data."""
        return {
            "voxels": self.voxels,
            "cube_mm": CUBE_MM,
            "views": [view.to_dict() for view in self.views],
            "geometry": self.geometry.to_dict(),
            "engine": self.engine,
            **({} if self.most_hu is None else {"most_hu": self.most_hu}),
        }


@dataclass(frozen=True)
class PreparedCase:
    """A prepared case in memory.

    Args:
        scan_grid: the grid of the original scan.
        thorax: the thorax in the scan.
        cube: the target around the thorax, (z, y, x) in HU.
        context: the whole scan at 2.5 mm without the air around it, (z, y, x) in HU.
        xrays: line integrals (V, rows, columns), dimensionless; row 0 is superior.
        patient: a digest of the DICOM files' PatientID, which scans of one patient share; "" without a PatientID.
        notes: of the scan, see `Volume`.
    """

    scan_grid: VolumeGrid
    thorax: Thorax
    cube: Volume
    context: Volume
    xrays: np.ndarray
    patient: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preparation:
    """The preparation of one scan as a case, a `CaseTask` of `raylift.parallel.cases`.

    The files are `ct.nii.gz` (the cube, int16 in HU), `context.npy` (int16 in HU, the whole scan at 2.5 mm without the
    air around it, memory-mapped in training) and `xrays.mha` (V, rows, columns; line integrals). The record has the
    warnings, the grids, the isocentre and the patient.

    Args:
        settings: the settings that all cases share.
    """

    settings: PreparationSettings

    def depends_on(self, source: StoragePath) -> Any:
        """Return JSON-ready data that determines the case: the source's files, the settings and the format version."""
        return [1, stamps(source), self.settings.to_dict()]

    def compute(self, source: StoragePath) -> PreparedCase:
        """Return the prepared case of a scan.

        Raises BadInput, through `check_scan` and `find_thorax`, where the scan is unusable.
        """
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
        return PreparedCase(volume.grid, thorax, target, context, xrays, patient, volume.notes)

    def write(self, prepared: PreparedCase, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """Write the case's files.

        Returns:
            The further entries of the record, and the names of the files.
        """
        write_volume(prepared.cube, folder / "ct.nii.gz")
        np.save(folder / "context.npy", np.rint(prepared.context.array).astype(np.int16))
        stack = sitk.GetImageFromArray(prepared.xrays.astype(np.float32))
        pitch = self.settings.geometry.pitch
        stack.SetSpacing((pitch, pitch, 1.0))
        sitk.WriteImage(stack, str(folder / "xrays.mha"), useCompression=True)
        entries: dict[str, Any] = {
            "warnings": [*prepared.notes, *prepared.thorax.warnings],
            "isocentre_lps_mm": list(prepared.thorax.centre),
            "lung_ml": round(prepared.thorax.lung_ml),
            "scan_grid": prepared.scan_grid.to_dict(),
            "context_grid": prepared.context.grid.to_dict(),
        }
        if prepared.patient:
            entries["patient"] = prepared.patient
        return entries, ["ct.nii.gz", "context.npy", "xrays.mha"]


def prepare_case(source: StoragePath, folder: StoragePath, settings: PreparationSettings) -> TaskRecord:
    """Prepare one scan as a case in `folder`; an unusable scan is recorded, not raised (see `run_case`).

    Returns:
        The record, which is the content of `case.json`.
    """
    return run_case(Preparation(settings), (source, folder))


def check_scan(volume: Volume) -> None:
    """Check that a scan may be a chest CT in Hounsfield units with usable slices.

    Raises:
        BadInput: it cannot be.
    """
    low, high = float(volume.array.min()), float(volume.array.max())
    if low > -500 or high < 100:
        raise BadInput("scan", f"values from {low:g} to {high:g} are not Hounsfield units", "rescale it to HU")
    if high > MOST_HU:
        problem = f"values up to {high:g} HU, more than any scanner writes"
        raise BadInput("scan", problem, "set what is no measurement, as padding around a round field, to -1000")
    if max(volume.grid.spacing) > COARSEST_SLICES:
        raise BadInput(
            "scan",
            f"voxels of {max(volume.grid.spacing):g} mm",
            f"give a scan with voxels of at most {COARSEST_SLICES:g} mm",
        )


def _context(scan: Volume) -> Volume:
    """Return the scan at 2.5 mm without the air around body and table."""
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
    settings: PreparationSettings,
    *,
    search: ScanSearch | None = None,
    validation: Sequence[str] = (),
    patients: str = "",
    licence: str = "",
    executor: Executor = LOCAL,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, TaskRecord]:
    """Prepare every scan below `source` as a case of the dataset folder `output`; finished cases are not repeated.

    Raises WrongUsage, through `plastimatch.program_for`, where an engine is not installed or does not support the
    geometry.

    Args:
        source: a folder of CT scans, which is searched to any depth, or one scan.
        output: the dataset folder, with `cases/NAME/`, `dataset.json` and `splits.json`.
        settings: the settings that all cases share.
        search: what `search_scans` found in `source`, where that is known.
        validation: names or shell patterns of the validation cases; by default about a fifth of the patients, see
            `held_out`. All scans of a patient are in the same split.
        patients: a rule for the patients of the scans, see `patients_by_rule`; by default the DICOM files' PatientID,
            and for any other scan a patient of its own.
        licence: the scans' licence, recorded in `dataset.json`; by default that of `raylift data fetch`.
        executor: where the cases are computed.
        progress: called after each case with its name, the number of finished cases and the total.

    Returns:
        The content of each case's `case.json` by case name; cases that were given up because their workers died have
        the status "failed".

    Raises:
        BadInput: there are no scans, or none is usable.
    """
    if settings.engine == "plastimatch":
        plastimatch.program_for(settings.geometry)  # raises once here, rather than for every case
    search = search or search_scans(source, output)
    scans = search.scans
    origins = provenance(scans)
    if unmatched := [p for p in validation if not any(fnmatch.fnmatch(name, p) for name in scans)]:
        raise BadInput(", ".join(unmatched), "matches no case", f"cases are named like {next(iter(scans))}")
    assigned = patients_by_rule(patients, list(scans)) if patients else {}
    records = run_tasks(Preparation(settings), scans, output / "cases", executor, progress)
    usable = [name for name, record in records.items() if record.status == "ok"]
    if not usable:
        name, record = next(iter(records.items()))
        others = f", and {len(records) - 1} more" if len(records) > 1 else ""
        raise BadInput(source, f"no usable scan ({name}: {record.reason}{others})", "give chest CT scans in HU")
    patient_of_case = {name: assigned.get(name, records[name].detail("patient") or name) for name in usable}
    # Programs that anonymise may give all scans the same PatientID.
    if not assigned and len(set(patient_of_case.values())) == 1:
        patient_of_case = {name: name for name in usable}
    validation_cases = held_out(patient_of_case, validation)
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
                name: record.model_dump(exclude_unset=True, include={"status", "reason", "warnings", "sha256"})
                | ({"origin": origins[name]} if name in origins else {})
                for name, record in records.items()
            },
            "left_out": search.left_out | search.no_scans,
        },
        output / "dataset.json",
    )
    splits = {"train": [name for name in usable if name not in validation_cases], "validation": validation_cases}
    write_json(splits, output / "splits.json")
    return records


def patients_by_rule(rule: str, cases: Sequence[str]) -> dict[str, str]:
    """Return the patient of each case by the user's rule.

    Args:
        rule: a CSV file with the columns `case` and `patient`, or a regular expression whose first group is the
            patient's name within the case's name.
        cases: the names of all scans.

    Raises:
        BadInput: a case is not in the table, or the expression does not match its name; or the table cannot be read.
        WrongUsage: the rule is neither a file nor a regular expression with a group.
    """
    table = Path(rule)
    if table.is_file():
        patients = _read_patients(table)
    else:
        try:
            pattern = re.compile(rule)
        except re.error as error:
            raise WrongUsage(f"--patients {rule}: no such file, and no regular expression ({error})") from None
        if not pattern.groups:
            raise WrongUsage(f"--patients {rule}: no such file, and no regular expression with a (group)")
        matches = {name: pattern.search(name) for name in cases}
        patients = {name: match[1] for name, match in matches.items() if match and match[1]}
    if missing := [name for name in cases if name not in patients]:
        raise BadInput(missing[0], f"--patients {rule} gives no patient for this scan", "cover every case")
    return {name: patients[name] for name in cases}


def _read_patients(table: Path) -> dict[str, str]:
    """Read a CSV file of cases and patients.

    Returns:
        The patient of each case.

    Raises:
        BadInput: the file cannot be read, or lacks a column.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        return {row["case"].strip(): row["patient"].strip() for row in rows if row["patient"].strip()}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        problem = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise BadInput(
            table, f"not a table of patients ({problem})", "give a CSV file with the columns case,patient"
        ) from None


def _collections(origins: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the public collections that the cases come from, with the number of cases."""
    keys = ("collection", "doi", "licence", "idc_version")
    counts = Counter(tuple(origin[key] for key in keys) for origin in origins)
    return [dict(zip(keys, values, strict=True)) | {"cases": count} for values, count in sorted(counts.items())]


def held_out(patients: Mapping[str, str], patterns: Sequence[str] = ()) -> list[str]:
    """Return the validation cases: all cases of the patients with a matching case, or of about a fifth of the patients.

    Without patterns a patient's split depends only on the patient's name, so that it is the same on every machine and
    remains when patients are added or removed. One patient is always trained on and, of several, one always held out.

    Args:
        patients: the patient of each case by the case's name.
        patterns: names or shell patterns of cases.
    """
    if patterns:
        chosen = {who for name, who in patients.items() if any(fnmatch.fnmatch(name, p) for p in patterns)}
    else:
        positions = {who: int(hashlib.sha256(who.encode()).hexdigest(), 16) / 2**256 for who in patients.values()}
        *rest, _ = sorted(positions, key=lambda who: positions[who])  # the last is always trained on
        chosen = {who for who in rest if positions[who] < HELD_OUT} or set(rest[:1])
    return [name for name, who in patients.items() if who in chosen]
