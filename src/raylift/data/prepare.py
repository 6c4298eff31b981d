"""CT scans to a prepared dataset: the thorax cube, a context to project again, X-rays, and what was rejected why."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from raylift._version import __version__
from raylift.data.fetch import provenance
from raylift.drr import ENGINES, plastimatch
from raylift.engines import LOCAL, Engine, Lost, run_cases
from raylift.errors import BadInput, WrongUsage
from raylift.geometry import Geometry, View, VolumeGrid
from raylift.thorax import Thorax, find_thorax
from raylift.volumes import (
    AIR,
    READABLE,
    Volume,
    read_volume,
    replacing,
    stem_of,
    suffix_of,
    write_json,
    write_volume,
)

CUBE_MM = 320.0
CONTEXT_SPACING = 2.5  # mm
CONTEXT_MARGIN = 10.0  # mm of air kept around what is not air
COARSEST_SLICES = 10.0  # mm


@dataclass(frozen=True)
class Settings:
    """What every case of a dataset shares.

    Args:
        voxels: edge of the target cube in voxels, 64 (5 mm) or 128 (2.5 mm).
        views: directions of the stored X-rays.
        geometry: X-ray unit with its detector pixels.
        engine: key of `raylift.drr.ENGINES`.
    """

    voxels: int = 64
    views: tuple[View, ...] = (View(0.0), View(90.0))
    geometry: Geometry = field(default_factory=lambda: Geometry.preset("chest-stand"))
    engine: str = "torch"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "voxels": self.voxels,
            "cube_mm": CUBE_MM,
            "views": [view.to_dict() for view in self.views],
            "geometry": self.geometry.to_dict(),
            "engine": self.engine,
        }


def find_scans(folder: Path, skip: Path | None = None) -> dict[str, Path]:
    """Every CT scan below a folder by case name: files Raylift reads, and folders that hold DICOM files.

    Hidden folders are not searched.

    Args:
        folder: searched to any depth; or one scan.
        skip: a folder that is not searched, as the prepared dataset itself may lie below `folder`.

    Raises:
        BadInput: the folder is missing, holds none, or two of the same name.
    """
    if not folder.exists():
        raise BadInput(folder, "no such folder", "check the path")
    if folder.is_file():
        return {stem_of(folder): folder}
    scans: dict[str, Path] = {}

    def add(name: str, path: Path) -> None:
        if scans.setdefault(name, path) != path:
            raise BadInput(path, f"as a case it would be called {name}, as {scans[name]} is", "rename one of them")

    for directory, folders, names in os.walk(folder):
        here = Path(directory)
        folders[:] = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in folders if skip is None or (here / name).resolve() != skip.resolve()]
        for name in names:
            if suffix_of(Path(name)) in READABLE:
                add(_case_name(here / stem_of(Path(name)), folder), here / name)
        if any(_is_dicom(here / name) for name in names if suffix_of(Path(name)) in (".dcm", ".ima", "")):
            add(_case_name(here, folder), here)
    if not scans:
        raise BadInput(folder, "no CT scans in it", f"put DICOM folders or {', '.join(READABLE)} files there")
    return dict(sorted(scans.items()))


def _case_name(path: Path, root: Path) -> str:
    relative = path.relative_to(root).as_posix() if path != root else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", relative).strip("._") or "case"


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:  # a link to nothing, a file of somebody else's
        return False


def prepare_case(source: Path, folder: Path, settings: Settings) -> dict[str, Any]:
    """Prepare one scan into `folder`; a scan that fails a quality check, or otherwise, is recorded, not raised.

    Writes `ct.nii.gz` (the cube, int16 HU), `context.npy` (int16 HU, the whole scan at 2.5 mm without the air
    around it, memory-mapped in training), `xrays.mha` (V, rows, columns; line integrals) and, last, `case.json`.

    Returns:
        The content of `case.json`: status "ok" or "rejected", reason, warnings, grids, isocentre, checksum.

    Raises:
        OSError: of the system rather than the scan, such as a full disk.
    """
    fingerprint = _fingerprint(source, settings)
    previous = _read_case(folder)
    if previous is not None and previous["fingerprint"] == fingerprint and _complete(folder, previous):
        return previous
    folder.mkdir(parents=True, exist_ok=True)
    # What is overwritten from here on is no case until its new record is written.
    (folder / "case.json").unlink(missing_ok=True)
    record: dict[str, Any] = {"source": source.name, "fingerprint": fingerprint}
    try:
        volume = read_volume(source)
        check_scan(volume)
        thorax = find_thorax(volume)
        made = _make_case(volume, thorax, settings)
    except OSError:
        raise
    except BadInput as error:
        reason = str(error).removeprefix("scan: ").replace(str(source), source.name)
        record |= {"status": "rejected", "reason": reason}
    except Exception as error:
        # Not the scan's fault for certain, so without a fingerprint: the next run tries it again.
        reason = " ".join(f"{type(error).__name__}: {error}".split()).replace(str(source), source.name)
        record = {"source": source.name, "status": "rejected", "reason": reason}
    else:  # beyond the try, as ITK tells of a full disk by a RuntimeError
        record |= _write_case(volume, thorax, made, folder, settings.geometry)
    write_json(record, folder / "case.json")
    return record


def check_scan(volume: Volume) -> None:
    """Raise BadInput where a scan cannot be a chest CT in Hounsfield units with usable slices."""
    low, high = float(volume.array.min()), float(volume.array.max())
    if low > -500 or high < 100:
        raise BadInput("scan", f"values from {low:g} to {high:g} are not Hounsfield units", "rescale it to HU")
    if max(volume.grid.spacing) > COARSEST_SLICES:
        raise BadInput("scan", f"voxels of {max(volume.grid.spacing):g} mm", f"at most {COARSEST_SLICES:g} mm serve")


def _make_case(volume: Volume, thorax: Thorax, settings: Settings) -> tuple[Volume, Volume, np.ndarray]:
    """Cube, context and X-rays."""
    cube = VolumeGrid.cube(thorax.centre, CUBE_MM, settings.voxels)
    # Air below -1000 HU has no attenuation; clipping before any averaging keeps projections linear in HU.
    np.maximum(volume.array, np.asarray(AIR, volume.array.dtype), out=volume.array)
    xrays = ENGINES[settings.engine](volume, settings.geometry, settings.views, thorax.centre)
    return volume.resample(cube), _context(volume), xrays


def _write_case(
    volume: Volume, thorax: Thorax, made: tuple[Volume, Volume, np.ndarray], folder: Path, geometry: Geometry
) -> dict[str, Any]:
    cube, context, xrays = made
    write_volume(cube, folder / "ct.nii.gz")
    with replacing(folder / "context.npy") as temporary:
        np.save(temporary, np.rint(context.array).astype(np.int16))
    stack = sitk.GetImageFromArray(xrays.astype(np.float32))
    stack.SetSpacing((geometry.pitch, geometry.pitch, 1.0))
    with replacing(folder / "xrays.mha") as temporary:
        sitk.WriteImage(stack, str(temporary), useCompression=True)
    return {
        "status": "ok",
        "reason": "",
        "warnings": thorax.warnings,
        "isocentre_lps_mm": list(thorax.centre),
        "lung_ml": round(thorax.lung_ml),
        "scan_grid": volume.grid.to_dict(),
        "context_grid": context.grid.to_dict(),
        "sha256": _checksum([folder / name for name in ("ct.nii.gz", "context.npy", "xrays.mha")]),
    }


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


def _fingerprint(source: Path, settings: Settings) -> str:
    """What the prepared case depends on: the source's files, the settings and the format's version."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    seen = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(json.dumps([1, seen, settings.to_dict()]).encode()).hexdigest()


def _read_case(folder: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((folder / "case.json").read_text())
    except (OSError, ValueError):
        return None
    return record if "fingerprint" in record else None


def _complete(folder: Path, record: dict[str, Any]) -> bool:
    files = [folder / name for name in ("ct.nii.gz", "context.npy", "xrays.mha")]
    if record["status"] != "ok":
        return True
    return all(file.exists() for file in files) and _checksum(files) == record["sha256"]


def _checksum(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def prepare(
    source: Path,
    output: Path,
    settings: Settings,
    *,
    validation: Sequence[str] = (),
    licence: str = "",
    engine: Engine = LOCAL,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Prepare every scan below `source` into the dataset folder `output`; finished cases are not done again.

    Args:
        source: folder of CT scans (searched to any depth), or one scan.
        output: dataset folder, with `cases/NAME/`, `dataset.json` and `splits.json`.
        settings: what every case shares.
        validation: names or shell patterns of the validation cases; by default a fifth, chosen by name, at least
            one of two or more.
        licence: the scans' licence, recorded in `dataset.json`; by default that of `raylift data fetch`.
        engine: where the cases are computed.
        progress: called with the case's name, the number done and the total after each case.

    Returns:
        `case.json` by case name; of a case that was given up since its workers died, with the status "failed".

    Raises:
        BadInput: no scans, or none of them usable.
        WrongUsage: an engine is not installed, or does not know the geometry.
    """
    if settings.engine == "plastimatch":
        _check_plastimatch(settings.geometry)
    scans = find_scans(source, output)
    origins = provenance(scans)
    if unmatched := [p for p in validation if not any(fnmatch.fnmatch(name, p) for name in scans)]:
        raise BadInput(", ".join(unmatched), "matches no case", f"cases are named like {next(iter(scans))}")
    records = dict(_prepare_cases(scans, output / "cases", settings, engine, progress))
    records = {name: records[name] for name in scans}
    usable = [name for name, record in records.items() if record["status"] == "ok"]
    if not usable:
        name, record = next(iter(records.items()))
        others = f", and {len(records) - 1} more" if len(records) > 1 else ""
        raise BadInput(source, f"no usable scan ({name}: {record['reason']}{others})", "give chest CT scans in HU")
    held_out = _held_out(usable, validation)
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
    splits = {"train": [name for name in usable if name not in held_out], "validation": held_out}
    write_json(splits, output / "splits.json")
    return records


def _collections(origins: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The public collections that the cases come from, with the number of cases."""
    keys = ("collection", "doi", "licence", "idc_version")
    counts = Counter(tuple(origin[key] for key in keys) for origin in origins)
    return [dict(zip(keys, values, strict=True)) | {"cases": count} for values, count in sorted(counts.items())]


def _check_plastimatch(geometry: Geometry) -> None:
    """What plastimatch would say of every case, said once."""
    if plastimatch.program() is None:
        raise WrongUsage("plastimatch is not installed: pip install plastimatch, or use --drr-engine torch")
    if geometry.parallel:
        raise WrongUsage("plastimatch projects cone beams only: use --drr-engine torch for the parallel geometry")


def _held_out(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    if patterns:
        return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    if len(names) < 2:
        return []
    # By the names' hashes, the order is arbitrary but the same on every machine and with other cases beside them.
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    drawn = set(ordered[: max(1, round(len(names) / 5))])
    return [name for name in names if name in drawn]


def _prepare_cases(
    scans: dict[str, Path],
    folder: Path,
    settings: Settings,
    engine: Engine,
    progress: Callable[[str, int, int], None],
) -> Iterator[tuple[str, dict[str, Any]]]:
    cases = {name: (path, folder / name) for name, path in scans.items()}
    for name, record in run_cases(partial(_prepare, settings=settings), cases, engine, progress):
        if isinstance(record, Lost):
            record = {"source": scans[name].name, "status": "failed", "reason": record.reason}
            write_json(record, folder / name / "case.json")
        yield name, record


def _prepare(case: tuple[Path, Path], settings: Settings) -> dict[str, Any]:
    return prepare_case(*case, settings)
