"""The files of a reconstruction: the volume and its uncertainty in any format, a picture, and reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raylift.errors import BadInput
from raylift.io.dicom import Study, write_ct
from raylift.io.formats import writable
from raylift.io.volumes import write_volume
from raylift.model.weights_info import WeightsInfo
from raylift.plots.montages import montage
from raylift.reconstruction.html_report import write_page
from raylift.reconstruction.reconstructor import Reconstruction
from raylift.storage.atomic import atomic_write_folder, write_json
from raylift.storage.paths import StoragePath, remove, stem_of, suffix_of

# Window centre and width in HU: mediastinum and lungs; and for an uncertainty, up to that of a border whose position is
# unknown.
CT_WINDOWS = ((40.0, 400.0), (-600.0, 1500.0))
UNCERTAINTY_WINDOWS = ((200.0, 400.0),)
FILE_KEYS = ("volume", "uncertainty", "preview", "page")  # keys of a report that hold file names


class OutputPaths:
    """The paths of a reconstruction's files, which follow from the volume's path.

    Args:
        volume: path of a volume file; or, without an ending, of a folder for a DICOM series.

    Raises:
        BadInput: it has another ending, or is a folder that is not empty.
    """

    def __init__(self, volume: StoragePath) -> None:
        ending = suffix_of(volume)
        if ending not in ("", *writable()):
            known = f"one of {', '.join(writable())}, or in nothing for a folder of DICOM files"
            raise BadInput(volume, "not a volume format that Raylift writes", f"end the name in {known}")
        stem = stem_of(volume)
        self.dicom, self.stem = not ending, stem
        self.volume, self.uncertainty = volume, volume.with_name(f"{stem}-uncertainty{volume.name.removeprefix(stem)}")
        self.preview = volume.with_name(f"{stem}-preview.png")
        self.report, self.page = volume.with_name(f"{stem}-report.json"), volume.with_name(f"{stem}-report.html")
        for folder in (self.volume, self.uncertainty) if self.dicom else ():
            if folder.is_dir() and any(folder.iterdir()):
                raise BadInput(folder, "the folder is not empty", "name a new folder for the DICOM series")


def describe(reconstruction: Reconstruction, weights: WeightsInfo, aligned: bool) -> dict[str, Any]:
    """Return the report of a reconstruction, without the names of its files."""
    refinement = reconstruction.refinement
    report = {
        "grid": reconstruction.volume.grid.to_dict(),
        "views": [view.name for view in reconstruction.xrays.views],
        "geometry": reconstruction.xrays.geometry.to_dict(),
        "reprojection_error": reconstruction.reprojection_error,
        "reprojection_error_inside": reconstruction.error_inside,
        "trust": reconstruction.trust,
        "warnings": list(reconstruction.warnings),
        "refinement": None
        if refinement is None
        else {
            "iterations": refinement.iterations,
            "error_with_surroundings_before": refinement.error_before,
            "error_with_surroundings_after": refinement.error_after,
        },
        "tone_curves": [tone and tone.to_dict() for tone in reconstruction.xrays.tones] or None,
        "aligned_views": [view.to_dict() for view in reconstruction.xrays.views] if aligned else None,
        "weights_sha256": weights.sha256,
        "weights_recipe": weights.recipe.name,
        "notes": list(reconstruction.notes),
        "purpose": "research only; not a medical device",
    }
    if reconstruction.ood_score is not None:
        report["ood_score"] = reconstruction.ood_score
    if reconstruction.uncertainty is not None:
        report["mean_uncertainty_hu"] = float(reconstruction.uncertainty.array.mean())
    return report


def write_results(
    reconstruction: Reconstruction,
    paths: OutputPaths,
    weights: WeightsInfo,
    *,
    aligned: bool = False,
    study: Study | None = None,
    inputs: Sequence[str] = (),
) -> dict[str, Any]:
    """Write all files of a reconstruction, together or not at all.

    Args:
        reconstruction: to write.
        paths: of the files.
        weights: the content of `weights.json`.
        aligned: whether the views were aligned.
        study: to which a DICOM series belongs; a new one by default.
        inputs: names of the X-rays' files, for the HTML report.

    Returns:
        The content of the JSON report.
    """
    report = {"volume": paths.volume.name, "preview": paths.preview.name, "page": paths.page.name}
    if reconstruction.uncertainty is not None:
        report["uncertainty"] = paths.uncertainty.name
    report |= describe(reconstruction, weights, aligned)
    views = [view.name for view in reconstruction.xrays.views]
    pictures = [
        *zip(views, reconstruction.xrays.images, strict=True),
        *zip([f"{view}, re-projected" for view in views], reconstruction.reprojected, strict=True),
    ]
    with atomic_write_folder(paths.volume.parent) as folder:
        if paths.dicom:
            study = study or Study()
            write_ct(
                reconstruction.volume, folder / paths.volume.name, study, 1, "Volume computed from X-rays", CT_WINDOWS
            )
            if reconstruction.uncertainty is not None:
                text = "Its standard deviation in HU"
                write_ct(
                    reconstruction.uncertainty, folder / paths.uncertainty.name, study, 2, text, UNCERTAINTY_WINDOWS
                )
        else:
            write_volume(reconstruction.volume, folder / paths.volume.name)
            if reconstruction.uncertainty is not None:
                write_volume(reconstruction.uncertainty, folder / paths.uncertainty.name)
        montage(None, reconstruction.volume, pictures, folder / paths.preview.name, paths.stem)
        write_json(report, folder / paths.report.name)
        write_page(reconstruction, report, weights, inputs, folder / paths.page.name)
    if reconstruction.uncertainty is None:  # an earlier volume's uncertainty would be taken for this one's
        remove(paths.uncertainty)
    return report
