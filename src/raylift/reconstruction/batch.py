"""Sets of X-rays to volumes, one after another or many at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from raylift.reconstruction.outputs import Names, write_results
from raylift.reconstruction.reconstructor import Reconstruction, Reconstructor
from raylift.storage.copies import local_copy
from raylift.storage.paths import StoragePath, stamps


@dataclass(frozen=True)
class Lifting:
    """A volume from the X-rays in a folder, with its preview and reports, as `raylift.parallel.cases` does it to many.

    Args:
        weights: path or name, as `Reconstructor.from_pretrained` takes them.
        device: to compute on.
        refine: bring the volume into agreement with the X-rays.
        seconds: time limit of the refinement.
        align: find small displacements of the views first.
        format: an ending of `raylift.io.formats.writable()` without its dot, or "dicom" for a folder with a series.
    """

    weights: str | None = None
    device: str | None = None
    refine: bool = False
    seconds: float = 20.0
    align: bool = False
    format: str = "mha"

    def depends_on(self, source: StoragePath) -> Any:
        """The X-rays' files, the weights and the settings."""
        weights = self.reconstructor().weights.info.identity
        return [1, stamps(source), weights, self.refine, self.seconds, self.align, self.format]

    def compute(self, source: StoragePath) -> Reconstruction:
        """The volume. Raises BadInput where X-rays and weights do not go together."""
        with local_copy(source) as path:
            return self.reconstructor()(path, refine=self.refine, align=self.align, seconds=self.seconds)

    def write(self, made: Reconstruction, folder: Path) -> tuple[dict[str, Any], list[str]]:
        """Write `volume.mha` or the like, and what belongs beside it; the record says how it went."""
        names = Names(folder / ("volume" if self.format == "dicom" else f"volume.{self.format}"))
        write_results(made, names, self.reconstructor().weights.info, aligned=self.align)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        return {"reprojection_error": made.reprojection_error, "notes": list(made.notes)}, files

    def reconstructor(self) -> Reconstructor:
        """Return the reconstructor, loaded once for each process."""
        return _loaded(self.weights, self.device)


_loaded = lru_cache(1)(Reconstructor.from_pretrained)
