"""The contents of `dataset.json`, `splits.json` and a prepared case's `case.json` as typed records."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from raylift.geometry import VolumeGrid
from raylift.storage.geometry_records import GeometryRecord, GridRecord, ViewRecord
from raylift.storage.records import Millimetres, PlainName, Sha256, Typed

MOST_VIEWS = 360
MOST_XRAY_VALUES = 2**29  # pixels of all X-rays of a case: 2 GB
MOST_CONTEXT_VALUES = 2**30  # voxels of a scan at 2.5 mm
MOST_NAMES = 5_000_000


class CaseEntry(Typed):
    """The entry of a case in `dataset.json`."""

    status: Annotated[str, Field(max_length=20)]
    sha256: Sha256 | None = None


class DatasetInfo(Typed):
    """The content of `dataset.json`.

    Args:
        source: the name of the folder of scans.
        licence: the licence of the scans.
        geometry: the source and the detector, in the form of `Geometry.to_dict`.
        views: the views of the stored X-rays, in the form of `View.to_dict`.
        voxels: the edge of the target cube in voxels.
        cube_mm: the edge of the target cube in mm.
        cases: the cases' entries by name.
    """

    source: str = ""
    licence: str = ""
    geometry: GeometryRecord
    views: Annotated[list[ViewRecord], Field(min_length=1, max_length=MOST_VIEWS)]
    voxels: Annotated[int, Field(ge=8, le=512)]
    cube_mm: Annotated[float, Field(ge=10, le=2000)]
    cases: Annotated[dict[PlainName, CaseEntry], Field(max_length=MOST_NAMES)]

    def model_post_init(self, context: object) -> None:
        """Check the geometry, the views and the cases' checksums.

        Raises:
            ValueError: a view occurs twice, the X-rays are too large, or a case has no checksum.
        """
        pixels, views = self.geometry.pixels, set(self.views)
        if len(views) < len(self.views):
            raise ValueError("a view occurs twice")
        if len(views) * pixels**2 > MOST_XRAY_VALUES:
            raise ValueError(f"{len(views)} X-rays of {pixels} × {pixels} pixels are too many for a case")
        if any(case.status == "ok" and case.sha256 is None for case in self.cases.values()):
            raise ValueError("a case has no checksum")


class Splits(Typed):
    """The content of `splits.json` under one key: the names of the cases of each split."""

    splits: dict[PlainName, Annotated[list[PlainName], Field(max_length=MOST_NAMES)]]


class CaseRecord(Typed):
    """The entries of a prepared case's `case.json` that a dataset needs."""

    isocentre_lps_mm: Annotated[list[Millimetres], Field(min_length=3, max_length=3)]
    context_grid: GridRecord
    files: list[PlainName] = Field(default_factory=list, max_length=100)
    sha256: Sha256

    @field_validator("context_grid")
    @classmethod
    def _check_size(cls, grid: VolumeGrid) -> VolumeGrid:
        """Return the context's grid after checking its size.

        Raises:
            ValueError: it has too many voxels.
        """
        z, y, x = grid.shape
        if z * y * x > MOST_CONTEXT_VALUES:
            raise ValueError(f"{z} × {y} × {x} voxels are too many for a scan at 2.5 mm")
        return grid
