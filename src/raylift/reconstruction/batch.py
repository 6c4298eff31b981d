"""Reconstruction of many sets of X-rays, one after another or in parallel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from raylift.reconstruction.outputs import OutputPaths, write_results
from raylift.reconstruction.reconstructor import Reconstruction, Reconstructor
from raylift.storage.copies import local_copy
from raylift.storage.paths import StoragePath, stamps


@dataclass(frozen=True)
class Lifting:
    """The reconstruction of the X-rays in a folder, as a `CaseTask` of `raylift.parallel.cases`.

    Args:
        weights: path or name, see `Reconstructor.from_pretrained`.
        device: on which to compute.
        refine: bring the volume into agreement with the X-rays.
        seconds: time limit of the refinement.
        align: estimate small displacements of the views first.
        format: an ending of `raylift.io.formats.writable()` without its dot, or "dicom" for a folder with a series.
    """

    weights: str | None = None
    device: str | None = None
    refine: bool = False
    seconds: float = 20.0
    align: bool = False
    format: str = "mha"

    def depends_on(self, source: StoragePath) -> Any:
        """Return what the result depends on: the X-rays' files, the weights and the settings."""
        weights = self.reconstructor().weights.info.identity
        return [2, stamps(source), weights, self.refine, self.seconds, self.align, self.format]

    def compute(self, source: StoragePath) -> Reconstruction:
        """Return the reconstruction of the X-rays in a folder.

        Raises BadInput, through `Reconstructor`, where the X-rays do not fit the weights.
        """
        with local_copy(source) as path:
            return self.reconstructor()(path, refine=self.refine, align=self.align, seconds=self.seconds)

    def write(self, reconstruction: Reconstruction, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """Write the volume (`volume.mha`, say), its preview and its reports.

        Returns:
            The entries of the case's record, and the names of the files written.
        """
        paths = OutputPaths(folder / ("volume" if self.format == "dicom" else f"volume.{self.format}"))
        write_results(reconstruction, paths, self.reconstructor().weights.info, aligned=self.align)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        return {
            "reprojection_error": reconstruction.reprojection_error,
            "warnings": list(reconstruction.warnings),
            "notes": list(reconstruction.notes),
        }, files

    def reconstructor(self) -> Reconstructor:
        """Return the reconstructor, loaded once for each process."""
        return _load(self.weights, self.device)


_load = lru_cache(1)(Reconstructor.from_pretrained)
