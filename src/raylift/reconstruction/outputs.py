"""A reconstruction as files: the volume and its uncertainty in any format, a picture, and reports."""

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

# Window centre and width in HU: mediastinum and lungs; of an uncertainty, up to that of a border of unknown place.
CT_WINDOWS = ((40.0, 400.0), (-600.0, 1500.0))
UNCERTAINTY_WINDOWS = ((200.0, 400.0),)
FILES = ("volume", "uncertainty", "preview", "page")  # that a report names


class Names:
    """Where the files of a reconstruction go, by the volume's name.

    Args:
        volume: ends as a volume file does, or in nothing: a folder with a DICOM series.

    Raises:
        BadInput: it ends in anything else, or is a folder with something in it.
    """

    def __init__(self, volume: StoragePath) -> None:
        ending = suffix_of(volume)
        if ending not in ("", *writable()):
            known = f"one of {', '.join(writable())}, or in nothing for a folder of DICOM files"
            raise BadInput(volume, "not a volume format Raylift writes", f"end the name in {known}")
        stem = stem_of(volume)
        self.dicom, self.stem = not ending, stem
        self.volume, self.uncertainty = volume, volume.with_name(f"{stem}-uncertainty{volume.name.removeprefix(stem)}")
        self.preview = volume.with_name(f"{stem}-preview.png")
        self.report, self.page = volume.with_name(f"{stem}-report.json"), volume.with_name(f"{stem}-report.html")
        for folder in (self.volume, self.uncertainty) if self.dicom else ():
            if folder.is_dir() and any(folder.iterdir()):
                raise BadInput(folder, "a folder with something in it", "name a new folder for the DICOM series")


def describe(made: Reconstruction, weights: WeightsInfo, aligned: bool) -> dict[str, Any]:
    """What the report says of a reconstruction, without its files."""
    refined = made.refined
    report = {
        "grid": made.volume.grid.to_dict(),
        "views": [view.name for view in made.xrays.views],
        "geometry": made.xrays.geometry.to_dict(),
        "reprojection_error": made.reprojection_error,
        "trust": made.trust,
        "refinement": None
        if refined is None
        else {
            "iterations": refined.iterations,
            "error_with_surroundings_before": refined.error_before,
            "error_with_surroundings_after": refined.error_after,
        },
        "aligned_views": [view.to_dict() for view in made.xrays.views] if aligned else None,
        "weights_sha256": weights.sha256,
        "weights_recipe": weights.recipe.name,
        "notes": list(made.notes),
        "purpose": "research only; not a medical device",
    }
    if made.ood_score is not None:
        report["ood_score"] = made.ood_score
    if made.uncertainty is not None:
        report["mean_uncertainty_hu"] = float(made.uncertainty.array.mean())
    return report


def write_results(
    made: Reconstruction,
    names: Names,
    weights: WeightsInfo,
    *,
    aligned: bool = False,
    study: Study | None = None,
    inputs: Sequence[str] = (),
) -> dict[str, Any]:
    """Write all files of a reconstruction, together or not at all.

    Args:
        made: the reconstruction.
        names: of the files.
        weights: the content of `weights.json`.
        aligned: whether the views were aligned.
        study: that a DICOM series belongs to; one of its own by default.
        inputs: names of the X-rays' files, for the page.

    Returns:
        The report, as it is written.
    """
    report = {"volume": names.volume.name, "preview": names.preview.name, "page": names.page.name}
    if made.uncertainty is not None:
        report["uncertainty"] = names.uncertainty.name
    report |= describe(made, weights, aligned)
    views = [view.name for view in made.xrays.views]
    shown = [
        *zip(views, made.xrays.images, strict=True),
        *zip([f"{view}, re-projected" for view in views], made.reprojected, strict=True),
    ]
    with atomic_write_folder(names.volume.parent) as folder:
        if names.dicom:
            study = study or Study()
            write_ct(made.volume, folder / names.volume.name, study, 1, "Volume computed from X-rays", CT_WINDOWS)
            if made.uncertainty is not None:
                text = "Its standard deviation in HU"
                write_ct(made.uncertainty, folder / names.uncertainty.name, study, 2, text, UNCERTAINTY_WINDOWS)
        else:
            write_volume(made.volume, folder / names.volume.name)
            if made.uncertainty is not None:
                write_volume(made.uncertainty, folder / names.uncertainty.name)
        montage(None, made.volume, shown, folder / names.preview.name, names.stem)
        write_json(report, folder / names.report.name)
        write_page(made, report, weights, inputs, folder / names.page.name)
    if made.uncertainty is None:  # that of an earlier volume would be taken for this one's
        remove(names.uncertainty)
    return report
