"""A demonstration on a phantom: scan, two X-rays, reconstruction, picture and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raylift.data.phantom import thorax_phantom
from raylift.data.thorax import find_thorax
from raylift.drr.registry import load_projector
from raylift.evaluation.report import CaseResult, write_report
from raylift.evaluation.scores import score
from raylift.images.hounsfield import hu_to_normalised
from raylift.images.xray_set import XraySet
from raylift.io.volumes import write_volume
from raylift.plots.montages import montage
from raylift.radiographs.sets import write_xrays
from raylift.reconstruction.reconstructor import Reconstructor
from raylift.reconstruction.reprojection import reproject
from raylift.storage.atomic import write_json

WRITTEN_ENDINGS = ("nii.gz", "mha", "npy")


def demo(folder: Path, seed: int = 0, report: Callable[[str], None] = lambda line: None) -> dict[str, float]:
    """Write a phantom, its X-rays, their reconstruction, a picture and a report into a folder.

    Args:
        folder: receives `phantom.nii.gz`, `xrays/`, `reconstruction.{nii.gz,mha,npy}`, `preview.png` and `report/`.
        seed: of the phantom.
        report: called with one line per finished step.

    Returns:
        The scores under the `hu` protocol, the re-projection error of the reconstruction and that of the true cube.
    """
    phantom = thorax_phantom(seed)
    write_volume(phantom, folder / "phantom.nii.gz")
    report(f"phantom of a chest CT: {folder / 'phantom.nii.gz'}")
    reconstructor = Reconstructor.from_pretrained()
    views, isocentre = reconstructor.lifted_network.views, find_thorax(phantom).centre
    geometry = reconstructor.geometry.with_pixels(256)
    images = load_projector("torch")(phantom, geometry, views, isocentre)
    xrays = XraySet(images, views, geometry, isocentre)
    write_xrays(xrays, folder / "xrays", "torch")
    report(f"X-rays of {', '.join(view.name for view in views)}: {folder / 'xrays'}")
    reconstruction = reconstructor(folder / "xrays")
    for ending in WRITTEN_ENDINGS:
        write_volume(reconstruction.volume, folder / f"reconstruction.{ending}")
    report(f"reconstruction: {folder / 'reconstruction'}.{{{','.join(WRITTEN_ENDINGS)}}}")
    truth = phantom.resample(reconstruction.volume.grid)
    pictures = [(view.name, image) for view, image in zip(xrays.views, images, strict=True)]
    title = "Raylift demo: a phantom and its reconstruction"
    preview = montage(truth, reconstruction.volume, pictures, folder / "preview.png", title)
    metrics = score(hu_to_normalised(reconstruction.volume.array), hu_to_normalised(truth.array), "hu")
    floor = float(
        abs(reproject(truth, reconstruction.xrays) - reconstruction.xrays.images).mean()
        / reconstruction.xrays.images.mean()
    )
    errors = {"reprojection_error": reconstruction.reprojection_error, "reprojection_error_of_truth": floor}
    case = CaseResult("phantom", metrics, extra=errors)
    write_report([case], "hu", folder / "report", "Raylift demo", images=[preview])
    write_json(metrics | errors, folder / "figures.json")
    report(f"picture and report: {preview}, {folder / 'report' / 'report.md'}")
    return metrics | errors
