"""Compute X-rays of a CT scan around its thorax."""

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
    """The computation of a scan's X-rays, as a `CaseTask` of `raylift.parallel.cases`.

    Args:
        views: the views of the X-rays.
        geometry: the source and the detector with its pixels.
        engine: a key of `raylift.drr.PROJECTORS`.
        dicom: whether digital radiographs (DICOM DX) are written instead of .mha files.
        isocentre: world point (x, y, z) in mm; by default the centre of the thorax.
    """

    views: tuple[View, ...]
    geometry: Geometry
    engine: str = "torch"
    dicom: bool = False
    isocentre: Point | None = None

    def depends_on(self, source: StoragePath) -> Any:
        """Return JSON-ready data that determines the X-rays: the scan's files and the settings."""
        views = [view.to_dict() for view in self.views]
        return [1, stamps(source), views, self.geometry.to_dict(), self.engine, self.dicom, self.isocentre]

    def compute(self, source: StoragePath, progress: Callable[[int], None] | None = None) -> XraySet:
        """Return the line integrals (V, rows, columns) through the whole scan, dimensionless; row 0 is superior.

        Raises BadInput, through `check_scan` and `find_thorax`, where the scan is unusable.

        Args:
            source: the scan.
            progress: called with the number of finished views.
        """
        with local_copy(source) as path:
            volume = read_volume(path)
            with named(path):
                check_scan(volume)
                centre = self.isocentre or find_thorax(volume).centre
        images = load_projector(self.engine)(volume, self.geometry, self.views, centre, progress or (lambda done: None))
        return XraySet(images, self.views, self.geometry, centre, volume.notes)

    def write(self, xrays: XraySet, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """Write one file per view, and `xrays.json`.

        Returns:
            The further entries of the record, and the names of the files.
        """
        paths = write_xrays(xrays, folder, self.engine, dicom=self.dicom)
        return {"isocentre_lps_mm": xrays.isocentre, "warnings": list(xrays.notes)}, [path.name for path in paths] + [
            SIDECAR
        ]
