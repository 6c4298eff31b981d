"""Plastimatch, the paper's projector, as an alternative to Raylift's own and a reference for it.

The `plastimatch` package on PyPI contains the program; a `plastimatch` on the PATH is used otherwise.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from raylift.errors import WrongUsage
from raylift.geometry import IDENTITY, Geometry, View
from raylift.images.hounsfield import hu_to_mu
from raylift.images.volume import Volume
from raylift.storage.scratch import scratch_folder


def program() -> Path | None:
    """Return the path of the plastimatch program beside this Python or on the PATH; None if there is none."""
    beside = shutil.which("plastimatch", path=str(Path(sys.executable).parent))
    path = beside or shutil.which("plastimatch")
    return Path(path) if path else None


def program_for(geometry: Geometry) -> Path:
    """Return the path of the plastimatch program, if it can project with this geometry.

    Raises:
        WrongUsage: plastimatch is not installed, or the geometry is parallel, which plastimatch does not support.
    """
    executable = program()
    if executable is None:
        raise WrongUsage("plastimatch is not installed: pip install plastimatch, or use --drr-engine torch")
    if geometry.parallel:
        raise WrongUsage("plastimatch projects cone beams only: use --drr-engine torch for the parallel geometry")
    return executable


def project_volume(
    volume: Volume,
    geometry: Geometry,
    views: Sequence[View],
    isocentre: Sequence[float],
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Project a CT scan by `plastimatch drr` (Siddon's exact ray tracing).

    Raises WrongUsage, through `program_for`, where plastimatch is not installed or the geometry is parallel, and
    RuntimeError where plastimatch fails.

    Args:
        volume: the whole scan in Hounsfield units.
        geometry: of the X-ray unit.
        views: directions of the X-rays.
        isocentre: world point (x, y, z) in mm.
        progress: called after each view with the number of views done.

    Returns:
        Line integrals (V, rows, columns), dimensionless; row 0 is superior.
    """
    executable = program_for(geometry)
    # Plastimatch does not support rotated grids, so patient and X-ray unit are rotated together into the grid's axes.
    volume = volume.axis_aligned()
    turn = np.reshape(volume.grid.direction, (3, 3)).T
    x, y, z = (float(c) for c in turn @ volume.grid.origin)
    grid = replace(volume.grid, origin=(x, y, z), direction=IDENTITY)
    mu = Volume(hu_to_mu(volume.array.astype(np.float32, copy=False)), grid)
    with scratch_folder() as folder:
        ct = folder / "mu.mha"
        sitk.WriteImage(mu.to_sitk(), str(ct))
        images = []
        for view in views:
            images.append(_project_view(executable, ct, geometry, view, isocentre, turn))
            progress(len(images))
        return np.stack(images)


def _project_view(
    executable: Path, ct: Path, geometry: Geometry, view: View, isocentre: Sequence[float], turn: np.ndarray
) -> np.ndarray:
    triple = lambda vector: " ".join(f"{float(c):.9g}" for c in vector)  # noqa: E731
    output = ct.parent / "drr"
    command = [
        str(executable), "drr", "--threading", "cpu", "--algorithm", "exact", "--hu-conversion", "none",
        "--output-format", "pfm", "--nrm", triple(turn @ view.towards_source), "--vup", triple(turn @ -view.v),
        "--sad", f"{geometry.sad}", "--sid", f"{geometry.sdd}", "--isocenter", triple(turn @ view.centre(isocentre)),
        "--dim", f"{geometry.pixels} {geometry.pixels}",
        "--detector-size", f"{geometry.detector_mm} {geometry.detector_mm}",
        "--output", str(output), str(ct),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell; numbers, paths
    images = sorted(ct.parent.glob("drr*.pfm"))
    if result.returncode or not images:
        raise RuntimeError(f"plastimatch drr failed: {(result.stderr or result.stdout).strip()[-500:]}")
    # Plastimatch expects attenuation per cm, so it divides the path lengths in mm by 10.
    image = 10 * _read_pfm(images[0])
    for path in images:
        path.unlink()
    return image[:, ::-1] if view.mirrored else image


def _read_pfm(path: Path) -> np.ndarray:
    """Read a greyscale portable float map as plastimatch writes it: rows from the top, little endian.

    Returns:
        Values (rows, columns), float32.

    Raises:
        RuntimeError: the file is of another form.
    """
    kind, size, scale, pixels = path.read_bytes().split(b"\n", 3)
    columns, rows = (int(n) for n in size.split())
    if kind.strip() != b"Pf" or float(scale) >= 0:
        raise RuntimeError(f"plastimatch wrote an unexpected image: {kind!r} {scale!r}")
    return np.frombuffer(pixels, "<f4", rows * columns).reshape(rows, columns).copy()
