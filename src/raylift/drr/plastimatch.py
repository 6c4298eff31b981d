"""Plastimatch, the projector of the paper, as the second engine and the reference of ours.

The `plastimatch` package on PyPI carries the program; a `plastimatch` on the PATH serves as well.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from raylift.errors import WrongUsage
from raylift.geometry import IDENTITY, Geometry, View
from raylift.images.hounsfield import hu_to_mu
from raylift.images.volume import Volume


def program() -> Path | None:
    """The plastimatch program beside this Python or on the PATH; None where there is none."""
    beside = shutil.which("plastimatch", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("plastimatch")
    return Path(found) if found else None


def program_for(geometry: Geometry) -> Path:
    """The program. Raises WrongUsage where it is not installed, or the geometry is parallel, which it does not know."""
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
    """X-rays of a CT scan by `plastimatch drr` (Siddon's exact ray tracing); see `drr.projector.project_volume`.

    Raises:
        WrongUsage: plastimatch is not installed, or the geometry is parallel, which it does not know.
        RuntimeError: plastimatch failed.
    """
    executable = program_for(geometry)
    # Plastimatch does not know turned grids, so the patient is turned into the grid's axes, and the unit with them.
    volume = volume.axis_aligned()
    turn = np.reshape(volume.grid.direction, (3, 3)).T
    x, y, z = (float(c) for c in turn @ volume.grid.origin)
    grid = replace(volume.grid, origin=(x, y, z), direction=IDENTITY)
    mu = Volume(hu_to_mu(volume.array.astype(np.float32, copy=False)), grid)
    with tempfile.TemporaryDirectory(prefix="raylift-") as folder:
        ct = Path(folder) / "mu.mha"
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
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell; numbers and our paths
    written = sorted(ct.parent.glob("drr*.pfm"))
    if done.returncode or not written:
        raise RuntimeError(f"plastimatch drr failed: {(done.stderr or done.stdout).strip()[-500:]}")
    # Plastimatch takes attenuation per cm, so it divides the path lengths in mm by 10.
    image = 10 * _read_pfm(written[0])
    for file in written:
        file.unlink()
    return image[:, ::-1] if view.mirrored else image


def _read_pfm(path: Path) -> np.ndarray:
    """A greyscale portable float map as plastimatch writes it: rows from the top, little endian."""
    kind, size, scale, pixels = path.read_bytes().split(b"\n", 3)
    columns, rows = (int(n) for n in size.split())
    if kind.strip() != b"Pf" or float(scale) >= 0:
        raise RuntimeError(f"plastimatch wrote an unexpected image: {kind!r} {scale!r}")
    return np.frombuffer(pixels, "<f4", rows * columns).reshape(rows, columns).copy()
