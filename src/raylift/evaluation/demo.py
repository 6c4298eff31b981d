"""The main job on a phantom: scan, two X-rays, volume, picture and figures."""

from __future__ import annotations

import json
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
from raylift.reconstruction.reconstructor import Reconstructor, reproject

WRITTEN_ENDINGS = ("nii.gz", "mha", "npy")


def demo(folder: Path, seed: int = 0, say: Callable[[str], None] = lambda line: None) -> dict[str, float]:
    """Phantom → X-rays → reconstruction → picture and report, all in `folder`.

    Args:
        folder: receives `phantom.nii.gz`, `xrays/`, `reconstruction.{nii.gz,mha,npy}`, `preview.png` and `report/`.
        seed: of the phantom.
        say: called with one line per finished step.

    Returns:
        The scores under the `hu` protocol, the re-projection error of the reconstruction and that of the true cube.
    """
    phantom = thorax_phantom(seed)
    write_volume(phantom, folder / "phantom.nii.gz")
    say(f"phantom of a chest CT: {folder / 'phantom.nii.gz'}")
    reconstructor = Reconstructor.from_pretrained()
    views, isocentre = reconstructor.lifted_network.views, find_thorax(phantom).centre
    geometry = reconstructor.geometry.with_pixels(256)
    images = load_projector("torch")(phantom, geometry, views, isocentre)
    xrays = XraySet(images, views, geometry, isocentre)
    write_xrays(xrays, folder / "xrays", "torch")
    say(f"X-rays of {', '.join(view.name for view in views)}: {folder / 'xrays'}")
    made = reconstructor(folder / "xrays")
    for ending in WRITTEN_ENDINGS:
        write_volume(made.volume, folder / f"reconstruction.{ending}")
    say(f"reconstruction: {folder / 'reconstruction'}.{{{','.join(WRITTEN_ENDINGS)}}}")
    truth = phantom.resample(made.volume.grid)
    named = [(view.name, image) for view, image in zip(xrays.views, images, strict=True)]
    title = "Raylift demo: a phantom and its reconstruction"
    preview = montage(truth, made.volume, named, folder / "preview.png", title)
    metrics = score(hu_to_normalised(made.volume.array), hu_to_normalised(truth.array), "hu")
    floor = float(abs(reproject(truth, made.xrays) - made.xrays.images).mean() / made.xrays.images.mean())
    errors = {"reprojection_error": made.reprojection_error, "reprojection_error_of_truth": floor}
    case = CaseResult("phantom", metrics, extra=errors)
    write_report([case], "hu", folder / "report", "Raylift demo", images=[preview])
    (folder / "figures.json").write_text(json.dumps(metrics | errors, indent=2) + "\n")
    say(f"picture and report: {preview}, {folder / 'report' / 'report.md'}")
    return metrics | errors
