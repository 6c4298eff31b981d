"""A CT scan to X-rays: found, checked, projected around its thorax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylift.data.preparation import check_scan
from raylift.data.thorax import find_thorax
from raylift.drr.registry import load_projector
from raylift.errors import named
from raylift.geometry import Geometry, Point, View
from raylift.images.xray_set import XraySet
from raylift.io.volumes import read_volume
from raylift.radiographs.sets import SIDECAR, write_xrays
from raylift.storage.copies import local_copy
from raylift.storage.paths import StoragePath, stamps


@dataclass(frozen=True)
class Projection:
    """X-rays of a scan, as `raylift.parallel.cases` does it to many.

    Args:
        views: directions.
        geometry: X-ray unit with its detector pixels.
        engine: key of `raylift.drr.PROJECTORS`.
        dicom: digital radiographs (DICOM DX) instead of .mha.
        isocentre: world point (x, y, z) in mm; the thorax's centre by default.
    """

    views: tuple[View, ...]
    geometry: Geometry
    engine: str = "torch"
    dicom: bool = False
    isocentre: Point | None = None

    def depends_on(self, source: StoragePath) -> Any:
        """The scan's files and the settings."""
        views = [view.to_dict() for view in self.views]
        return [1, stamps(source), views, self.geometry.to_dict(), self.engine, self.dicom, self.isocentre]

    def compute(self, source: StoragePath, progress: Callable[[int], None] | None = None) -> XraySet:
        """Line integrals (V, rows, columns) through the whole scan, without unit; row 0 is superior.

        Raises:
            BadInput: the scan fails a check.
        """
        with local_copy(source) as path:
            volume = read_volume(path)
            with named(path):
                check_scan(volume)
                centre = self.isocentre or find_thorax(volume).centre
        images = load_projector(self.engine)(volume, self.geometry, self.views, centre, progress or (lambda done: None))
        return XraySet(images, self.views, self.geometry, centre)

    def write(self, made: XraySet, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """One file per view and `xrays.json`."""
        paths = write_xrays(made, folder, self.engine, dicom=self.dicom)
        return {"isocentre_lps_mm": made.isocentre}, [path.name for path in paths] + [SIDECAR]
